"""What the file may say of VMs that run from the backup: the export that hosts mount, and manners.

Without the table's address the running `backpoint export` of this machine is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator

from backpoint_agent.settings.section import KeyPath, Section, mistake
from backpoint_agent.settings.values import LocalPath, Seconds, Text

_TOGETHER: Final = ("address", "path", "folder")
_DATASTORE_MAX: Final = 42
"""ESXi's limit for the name of a datastore."""


def _datastore_name(text: str) -> str:
    if len(text) > _DATASTORE_MAX or any(char in text for char in "/\\%[]"):
        raise mistake(f"must be at most {_DATASTORE_MAX} characters, without / \\ % [ ]")
    return text


def _remote_path(text: str) -> str:
    if not text.startswith("/"):
        raise mistake("must begin with a slash")
    return text.rstrip("/") or "/"


class LiveSettings(Section):
    """networks: what a VM's cards do when it starts: connected, disconnected, or connected only
    while the original VM is off or gone (when-alone)."""

    address: Text | None = None
    """The NFS server as hosts reach it: the same words on each, or they see several datastores."""
    path: Annotated[Text, AfterValidator(_remote_path)] | None = None
    folder: LocalPath | None = None
    """Where the same tree is on this machine: the root of the mount."""
    sessions: LocalPath | None = None
    """Folder of the repository's sessions (--live of other commands); by default theirs."""
    datastore: Annotated[Text, AfterValidator(_datastore_name)] = "backpoint-live"
    networks: Literal["connected", "disconnected", "when-alone"] = "when-alone"
    migrate_s: Seconds = 172_800
    """For a VM's way to a production datastore."""

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """One of the three says nothing without the others."""
        missing = [key for key in _TOGETHER if given.get(key) is None]
        if missing and len(missing) < len(_TOGETHER):
            yield (missing[0],), f"is missing; {', '.join(_TOGETHER)} go together"
