"""Which VMs an agent of this machine works on now, by the locks it holds on them.

Asks the kernel who holds what and takes no lock, not even for a moment: a run that wanted it in
that moment would give up. Decides nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backpoint_agent.machine_lock import Holder

_LOCKS: Final = Path("/proc/locks")
_NOTE_MAX: Final = 4096
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Work:
    """key: the VM's `history.machine_key`, "" for a VM that no record knows. holder: None where it
    has not said yet who it is."""

    key: str
    holder: Holder | None


def work_under_way(locks: Path, keys: Iterable[str]) -> list[Work]:
    """locks: `StateFolder.locks`. Raises OSError."""
    held = _held_inodes()
    # As `machine_lock` names its files.
    by_name = {hashlib.sha256(key.encode()).hexdigest()[:32] + ".lock": key for key in keys}
    with os.scandir(locks) as entries:
        names = sorted(entry.name for entry in entries if entry.inode() in held)
    return [
        Work(by_name.get(name, ""), _read_holder(locks / name))
        for name in names
        if name.endswith(".lock")
    ]


def _held_inodes() -> set[int]:
    """By number alone: of some filesystems the kernel shows another device here than `stat` does,
    and a number that happens to be another filesystem's would need a lock there as well."""
    inodes: set[int] = set()
    for line in _LOCKS.read_text().splitlines():
        match line.split():
            case [_, "FLOCK", _, "WRITE", _, place, *_]:
                inodes.add(int(place.rpartition(":")[2]))
    return inodes


def _read_holder(path: Path) -> Holder | None:
    # Only a word for people: it may be being written now.
    try:
        with open(os.open(path, _FLAGS), "rb") as file:
            record: dict[str, Any] = json.loads(file.read(_NOTE_MAX))
        return Holder(
            int(record["pid"]),
            str(record["host"]),
            str(record["purpose"]),
            float(record["since"]),
        )
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
