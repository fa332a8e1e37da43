"""vSphere's faults as our errors: one table, by the most derived class that is in it.

Decides what a fault means for whoever has to act. Refuses to decide what is done about it: a caller
that knows more (a FileFault of QueryChangedDiskAreas is a lost change id) asks `is_fault`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from backpoint_agent.errors import (
    Busy,
    CannotConnect,
    LoginRefused,
    ObjectGone,
    PermissionMissing,
    QuiesceFailed,
    TaskFailed,
    VSphereError,
)

WORDS_MAX: Final = 600
"""Characters of vCenter's own words in a message."""
_CAUSES_MAX: Final = 5

_MEANING: Final[dict[str, type[VSphereError]]] = {
    "InvalidLogin": LoginRefused,
    "NotAuthenticated": CannotConnect,
    "NoPermission": PermissionMissing,
    "SecurityError": PermissionMissing,
    "RestrictedByAdministrator": PermissionMissing,
    "RestrictedVersion": TaskFailed,
    "ManagedObjectNotFound": ObjectGone,
    "TaskInProgress": Busy,
    "ConcurrentAccess": Busy,
    "ResourceInUse": Busy,
    "SnapshotLocked": Busy,
    "FileLocked": Busy,
    "ApplicationQuiesceFault": QuiesceFailed,
    "FilesystemQuiesceFault": QuiesceFailed,
    "HostCommunication": CannotConnect,
    "HostConnectFault": CannotConnect,
    "Timedout": CannotConnect,
}


def error_of(what: str, fault: Any, name_of: Callable[[Any], str] = str) -> VSphereError:
    """Our error for a MethodFault, raised or found in a task; `is_fault` works on it.

    what: "removing the snapshot of web01". name_of: how a managed object is called in messages.
    """
    faults = _class_names(fault)
    kind = next((_MEANING[name] for name in faults if name in _MEANING), TaskFailed)
    words = _words(fault) or faults[0]
    if kind is TaskFailed and "quiesc" in _keys(fault).lower():
        # Many a failed quiescing comes as GenericVmConfigFault with a key that says so.
        kind = QuiesceFailed
    if kind is PermissionMissing:
        words = _missing(fault, name_of) or words
    return with_faults(kind(f"{what}: {words}"), faults)


def with_faults(error: VSphereError, faults: tuple[str, ...]) -> VSphereError:
    """Note on an error which faults (a class and its bases) it came from."""
    error.faults = faults
    return error


def faults_of(error: BaseException) -> tuple[str, ...]:
    """VMware's name of the fault behind an error, and of what it derives from; () if none."""
    found: tuple[str, ...] = getattr(error, "faults", ())
    return found


def is_fault(error: BaseException, name: str) -> bool:
    """Whether the fault behind our error is a "FileFault" (or derives from it)."""
    return name in faults_of(error)


def _class_names(fault: Any) -> tuple[str, ...]:
    """ "NotAuthenticated", "NoPermission", "SecurityError", ...: most derived first."""
    names = (base.__name__.rpartition(".")[2] for base in type(fault).__mro__)
    return tuple(n for n in names if n not in {"DataObject", "DynamicData", "object"})


def _causes(fault: Any) -> Iterator[Any]:
    for _ in range(_CAUSES_MAX):
        if fault is None:
            return
        yield fault
        fault = getattr(fault, "faultCause", None)


def _words(fault: Any) -> str:
    """vCenter's own texts, each once, on one line and bounded."""
    said: list[str] = []
    for cause in _causes(fault):
        texts = [getattr(cause, "msg", None)]
        texts += [m.message for m in getattr(cause, "faultMessage", None) or []]
        if getattr(cause, "reason", None):
            texts.append(cause.reason)
        for text in texts:
            clean = one_line(str(text or "")).rstrip(".")
            if clean and not any(clean in earlier for earlier in said):
                said.append(clean)
    joined = "; ".join(said)
    return joined if len(joined) <= WORDS_MAX else joined[: WORDS_MAX - 3] + "..."


def one_line(text: str) -> str:
    """Without control characters and runs of blanks: vCenter's words may carry a guest's."""
    head = text[: WORDS_MAX * 4]
    return " ".join("".join(c if c.isprintable() else " " for c in head).split())


def _keys(fault: Any) -> str:
    """The message keys ("msg.snapshot.error-QUIESCINGERROR"), which no language changes."""
    return " ".join(
        one_line(str(message.key or ""))
        for cause in _causes(fault)
        for message in (getattr(cause, "faultMessage", None) or [])[:20]
    )


def _missing(fault: Any, name_of: Callable[[Any], str]) -> str:
    """The privileges that are missing and on what; "" where the fault does not say."""
    wanted: dict[str, list[str]] = {}
    for entry in (getattr(fault, "missingPrivileges", None) or [])[:20]:
        wanted.setdefault(name_of(entry.entity), []).extend(entry.privilegeIds or [])
    if not wanted and getattr(fault, "privilegeId", None):
        wanted[name_of(fault.object)] = [fault.privilegeId]
    parts = [
        f"{', '.join(dict.fromkeys(one_line(str(p))[:100] for p in privileges[:10]))} on {entity}"
        for entity, privileges in wanted.items()
        if privileges
    ]
    return f"the account lacks the privilege {' and '.join(parts)}" if parts else ""
