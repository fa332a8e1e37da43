"""A guest's file in words: a line as `ls -l` prints it, or a JSON record.

Owners are numbers, as only the guest knows their names; times are UTC.
"""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from backpoint_fusefs.guest.guest_tree import Found, shown

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def kind_of(found: Found) -> str:
    """`file`, `folder`, `link`, ..."""
    return _KINDS.get(stat.S_IFMT(found.stat.mode), "unknown")


def path_fields(path: bytes) -> dict[str, Any]:
    """As JSON. path_hex: only where the path is no UTF-8, and `path` can only show it."""
    try:
        return {"path": path.decode()}
    except UnicodeDecodeError:
        return {"path": path.decode(errors="replace"), "path_hex": path.hex()}


def entry_record(path: bytes, found: Found, target: bytes | None) -> dict[str, Any]:
    """target: of a link."""
    record = path_fields(path) | entry_fields(found)
    if target is not None:
        fields = path_fields(target)
        record |= {key.replace("path", "target"): value for key, value in fields.items()}
    return record


def entry_fields(found: Found) -> dict[str, Any]:
    """What its stat says. Times in nanoseconds since 1970, sizes in bytes."""
    seen = found.stat
    record: dict[str, Any] = {
        "type": kind_of(found),
        "volume": "" if found.volume is None else found.volume.volume.name,
        "inode": seen.ino,
        "mode": f"{stat.S_IMODE(seen.mode):04o}",
        "links": seen.nlink,
        "uid": seen.uid,
        "gid": seen.gid,
        "size": seen.size,
        "allocated": seen.allocated,
        "atime_ns": seen.atime_ns,
        "mtime_ns": seen.mtime_ns,
        "ctime_ns": seen.ctime_ns,
    }
    if _is_device(found):
        record |= {"major": os.major(seen.rdev), "minor": os.minor(seen.rdev)}
    return record


def entry_line(path: bytes, found: Found, target: bytes | None) -> str:
    """As `ls -ln` prints it."""
    seen = found.stat
    size = f"{os.major(seen.rdev)}, {os.minor(seen.rdev)}" if _is_device(found) else str(seen.size)
    arrow = "" if target is None else f" -> {shown(target)}"
    moment = _EPOCH + timedelta(microseconds=seen.mtime_ns // 1000)
    return (
        f"{stat.filemode(seen.mode)} {seen.nlink:>3} {seen.uid:>5} {seen.gid:>5} {size:>12} "
        f"{moment:%Y-%m-%d %H:%M:%S} {shown(path)}{arrow}"
    )


def _is_device(found: Found) -> bool:
    return stat.S_ISCHR(found.stat.mode) or stat.S_ISBLK(found.stat.mode)
