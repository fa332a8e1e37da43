"""Mounts and loop devices that a test run has left behind: finding them and clearing them away.

Decides what is a leftover: below a folder of ours, anything; elsewhere only Backpoint mounts whose
server is dead, since another run on this machine may be using the living ones.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TYPES = ("fuse.backpoint", "fuseblk.backpoint")
_MOUNTINFO = Path("/proc/self/mountinfo")
_LOOPS = Path("/sys/block")


@dataclass(frozen=True)
class Leftovers:
    """Mount points, innermost first, and loop devices with a file of ours behind them."""

    mounts: tuple[Path, ...]
    loops: tuple[Path, ...]

    def __bool__(self) -> bool:
        return bool(self.mounts or self.loops)

    def __iter__(self) -> Iterator[str]:
        yield from (f"mount {path}" for path in self.mounts)
        yield from (f"loop device {path}" for path in self.loops)


def find_leftovers(*, within: Path | None) -> Leftovers:
    """All below the folder `within`; or, without one, the dead Backpoint mounts of this machine."""
    table = list(_mount_table())
    if within is None:
        dead = (p for p, kind in table if kind in _TYPES and _is_dead(p))
        return Leftovers(tuple(dead), ())
    mounts = (path for path, _ in reversed(table) if path.is_relative_to(within))
    return Leftovers(tuple(mounts), tuple(_loops_on_files_in(within)))


def clear(left: Leftovers) -> list[str]:
    """Unmount and detach them all; what was found, one line each."""
    for mount in left.mounts:
        subprocess.run(["umount", "--lazy", mount], check=False)
    for loop in left.loops:
        subprocess.run(["losetup", "--detach", loop], check=False)
    return list(left)


def _mount_table() -> Iterator[tuple[Path, str]]:
    """Mount points and filesystem types, oldest first."""
    for line in _MOUNTINFO.read_text().splitlines():
        place, _, kind = line.partition(" - ")
        # The kernel writes space, tab, newline and backslash as three octal digits.
        raw = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), place.split()[4])
        yield Path(raw), kind.split()[0]


def _is_dead(mount: Path) -> bool:
    try:
        os.stat(mount)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _loops_on_files_in(folder: Path) -> Iterator[Path]:
    for backing in _LOOPS.glob("loop*/loop/backing_file"):
        try:
            file = Path(backing.read_text().strip().removesuffix(" (deleted)"))
        except OSError:
            # Detached while we looked.
            continue
        if file.is_relative_to(folder):
            yield Path("/dev") / backing.parts[-3]
