"""What became of one VM in one run: for the summary, the record, the metrics and the next try.

Pure data. Times are seconds since 1970, sizes bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from backpoint_agent.errors import Busy, CannotConnect, QuiesceFailed, TaskFailed, WaitTooLong
from backpoint_repo.errors import (
    BackpointError,
    SourceError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

Status = Literal["done", "failed", "stopped", "not-started"]

_MAY_PASS = (
    *(Busy, CannotConnect, QuiesceFailed, TaskFailed, WaitTooLong),
    # An outage in the middle of a disk, or of every transport, comes as an error of the source.
    *(SourceError, StoreUnavailable),
)
_HOPELESS = (StoreFull, StoreReadOnly)


@dataclass(frozen=True)
class DiskOutcome:
    """how: full (nothing to compare with), compare (all read, all compared) or changed (only what
    change tracking named). audited: bytes read although they were said not to have changed."""

    key: str
    slot: str
    size: int
    how: str
    why: str
    audited: int


@dataclass(frozen=True)
class MachineOutcome:
    """vm: name in vCenter; stored_as: name in the repository. point: hex id, "" for none.

    alarms: what somebody has to look at even though the point may be good (a lie of change
    tracking, a snapshot that would not go, an unanswered question). temporary: another try may do.
    hopeless: nor can any other VM be backed up now.
    """

    vm: str
    moref: str
    identity: str
    stored_as: str
    status: Status
    started: float
    ended: float
    point: str = ""
    point_time: float | None = None
    error: str = ""
    temporary: bool = False
    hopeless: bool = False
    consistency: str = ""
    transport: str = ""
    tries: int = 1
    disks: tuple[DiskOutcome, ...] = ()
    size: int = 0
    read: int = 0
    new: int = 0
    stored: int = 0
    snapshot_create_s: float | None = None
    snapshot_remove_s: float | None = None
    stun_create_s: float | None = None
    stun_remove_s: float | None = None
    warnings: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """A point was made; it may have warnings."""
        return self.status == "done"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def may_pass(error: BackpointError) -> bool:
    """Whether the same may go well in a while."""
    return isinstance(error, _MAY_PASS) and not hopeless(error)


def hopeless(error: BackpointError) -> bool:
    """Whether no other VM can do better: the repository takes nothing more."""
    return isinstance(error, _HOPELESS)


@dataclass
class Notes:
    """Collected while a run goes on; both lists without repetition."""

    warnings: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Something about the point is less than it could be."""
        if text not in self.warnings:
            self.warnings.append(text)

    def alarm(self, text: str) -> None:
        """Somebody has to look."""
        if text not in self.alarms:
            self.alarms.append(text)
