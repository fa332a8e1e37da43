"""A directory as a place to mount on: what lies there now, and whether we may mount there.

Reads the kernel's mount table, so that a mount whose process hangs or died is told without touching
it. Mounts nothing itself.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_repo.errors import UsageError

SUBTYPE: Final = "backpoint"
_TYPES: Final = {"fuse.backpoint", "fuseblk.backpoint"}
"""The second: a mount on a block device, which network file systems know by the device's UUID."""
_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_DEVICE: Final = Path("/dev/fuse")


@dataclass(frozen=True)
class Mounted:
    """A line of the mount table. device: `major:minor`."""

    path: Path
    device: str
    kind: str

    @property
    def ours(self) -> bool:
        """Whether it is a mount of a repository."""
        return self.kind in _TYPES


def find_mount(path: Path) -> Mounted | None:
    """What is mounted at exactly this place, the topmost."""
    # Byte for byte: resolving a path would touch the mount.
    wanted, found = os.path.abspath(path), None
    for line in _MOUNTINFO.read_text(errors="surrogateescape").splitlines():
        place, _, rest = line.partition(" - ")
        fields = place.split(" ")
        # The kernel writes space, tab, newline and backslash as three octal digits.
        mounted = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields[4])
        if mounted == wanted:
            found = Mounted(Path(mounted), fields[2], rest.split(" ")[0])
    return found


def real_place(path: Path) -> Path:
    """The path as the mount table writes it: links on the way resolved, the last part untouched."""
    absolute = Path(os.path.abspath(path))
    return Path(os.path.realpath(absolute.parent)) / absolute.name


def check_mount_point(path: Path) -> None:
    """Raises UsageError where nothing can, or should, be mounted there."""
    mounted = find_mount(path)
    if mounted is not None and mounted.ours:
        raise UsageError(
            f"{path} is a mount of a repository already; `backpoint umount {path}` ends it, also "
            "where its process died"
        )
    if mounted is not None:
        raise UsageError(f"{path} is a mount point already ({mounted.kind})")
    try:
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise UsageError(f"{path} lies in a mount whose process died") from error
        raise UsageError(f"cannot mount at {path}: {error.strerror}") from error
    if not empty:
        raise UsageError(f"{path} is not empty; a mount would hide what is in it")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise UsageError(f"{_DEVICE} cannot be opened: load the kernel's fuse module, or ask root")
    if shutil.which("fusermount3") is None:
        raise UsageError("fusermount3 is missing: install the package fuse3")
