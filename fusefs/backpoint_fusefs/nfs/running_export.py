"""A running export as other commands and the agent see it: a small file of JSON, and whether it is
alive.

The same record is what `backpoint export --status --json` prints, so that a program which boots a
VM from the export need not know this package.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Final

from backpoint_fusefs.nfs.export_folder import RUNTIME, ExportFolder, folder_of
from backpoint_fusefs.process_mark import still_runs
from backpoint_repo.errors import UsageError

_SIZE_MAX: Final = 64 << 10


@dataclass(frozen=True)
class RunningExport:
    """repository: its id, hex. process: `PID START` (see `process_mark`). address: listened on.
    path: what clients mount. mount: where this machine sees the same tree. sessions: the home of
    sessions, which are at `<path>/live/<session>/`; None where only points are exported. versions:
    of NFS, in rising order. allowed: networks that have access. restarts: of the NFS server or the
    mount since the export began."""

    repository: str
    process: str
    address: str
    nfs_port: int
    mount_port: int
    path: str
    mount: str
    sessions: str | None
    read_only: bool
    versions: tuple[int, ...]
    allowed: tuple[str, ...]
    restarts: int = 0

    @property
    def pid(self) -> int:
        return int(self.process.split()[0])

    @property
    def alive(self) -> bool:
        """Whether its process still runs, not another one with its number."""
        return still_runs(self.process.encode())

    def as_json(self) -> dict[str, Any]:
        """With `pid` for who does not want to take `process` apart."""
        return {"type": "export", "pid": self.pid, **asdict(self)}


def write_export(folder: ExportFolder, export: RunningExport) -> None:
    """Atomically, for its owner alone."""
    new = folder.state.with_suffix(".new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(asdict(export), file)
    new.replace(folder.state)


def find_export(repository_id: bytes) -> RunningExport | None:
    """The export of the repository on this machine, if one runs and serves.

    Raises UsageError where only root may know.
    """
    return read_export(folder_of(repository_id, RUNTIME))


def read_export(folder: ExportFolder) -> RunningExport | None:
    """As `find_export`."""
    try:
        with folder.state.open("rb") as file:
            raw = file.read(_SIZE_MAX)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise UsageError("whether an export runs is for root to know: ask as root") from None
    try:
        record = json.loads(raw)
        record["versions"] = tuple(record["versions"])
        record["allowed"] = tuple(record["allowed"])
        export = RunningExport(**record)
        return export if export.alive else None
    except (ValueError, TypeError, KeyError, IndexError):
        raise UsageError(
            f"{folder.state} was not written by this version: end its export and start it again"
        ) from None
