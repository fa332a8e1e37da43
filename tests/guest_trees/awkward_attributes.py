"""Modes, owners, times, extended attributes and ACLs at the ends of their ranges.

Decides the values; reads back at once what drivers are known to cut silently.
"""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

from guest_disks.tool import run
from guest_trees.abilities import Abilities

_MODES = (0o000, 0o400, 0o111, 0o644, 0o755, 0o777, 0o1777, 0o2755, 0o4755, 0o6755, 0o7777)
_OWNERS = (
    *((0, 0), (1000, 1000), (65_535, 65_534), (65_536, 65_537), (70_000, 0), (0, 100_000)),
    *((2**31 - 1, 2**31), (2**32 - 2, 2**32 - 2)),
)
_TIMES_S = (0, 1, 86_400, 951_782_400, 2**31 - 1)
# 1901, 1938, the last second before 1970, 2038, 2106, 2200; and 2400, whose nanoseconds need more
# than 63 bits. The 34 bits of ext4's seconds end in 2446.
_LONG_TIMES_S = (
    *(-(2**31) + 1000, -1_000_000_000, -1, 2**31, 2**32, 2**32 + 5),
    *(7_258_118_400, 13_569_465_600),
)
# 1980-01-01 and 2107-12-31 23:59:58 UTC.
_DOS_FIRST_S, _DOS_LAST_S = 315_532_800, 4_354_819_198
_NANOSECONDS = (0, 1, 100, 123_456_700, 123_456_789, 999_999_999)
# Ever more would be refused by XFS and by the kernel itself (XATTR_SIZE_MAX).
_VALUE_MAX = 65_536
_VALUE_LEAST = 256


def fill_attributes(folder: Path, abilities: Abilities, chance: random.Random) -> None:
    """Files and folders that differ in their attributes only."""
    if abilities.owners:
        _modes(folder / "modes")
        _owners(folder / "owners", abilities)
    if abilities.xattrs:
        _xattrs(folder / "xattrs", abilities, chance)
    if abilities.acls:
        _acls(folder / "acls")
    _times(folder / "times", abilities)


def _modes(folder: Path) -> None:
    folder.mkdir()
    for mode in _MODES:
        (folder / f"file {mode:04o}").write_bytes(b"mode")
        (folder / f"folder {mode:04o}").mkdir()
        for name in (f"file {mode:04o}", f"folder {mode:04o}"):
            (folder / name).chmod(mode)
            if (folder / name).stat().st_mode & 0o7777 != mode:
                raise RuntimeError(f"mode {mode:04o} not kept in {folder}")


def _owners(folder: Path, abilities: Abilities) -> None:
    folder.mkdir()
    for uid, gid in _OWNERS:
        path = folder / f"{uid} {gid}"
        path.write_bytes(b"owner")
        os.chown(path, uid, gid)
        found = path.stat()
        if (found.st_uid, found.st_gid) != (uid, gid):
            raise RuntimeError(f"owner {uid}:{gid} not kept in {folder}")
    if abilities.symlinks:
        os.symlink("nowhere", folder / "link")
        os.chown(folder / "link", 70_001, 70_002, follow_symlinks=False)


def _xattrs(folder: Path, abilities: Abilities, chance: random.Random) -> None:
    folder.mkdir()
    for name in ("few", "empty value", "many", "large", "many and large"):
        (folder / name).write_bytes(b"attributes")
    for prefix in ("user", "trusted", "security"):
        os.setxattr(folder / "few", f"{prefix}.one", chance.randbytes(30))
        os.setxattr(folder, f"{prefix}.folder", b"on a folder")
    os.setxattr(folder / "empty value", "user.empty", b"")
    odd = b"user.\xc3\xa4 \x01" + (b"\xff" if abilities.raw_names else b"")
    os.setxattr(folder / "empty value", odd, b"odd name")
    os.setxattr(folder / "empty value", "user." + "n" * 250, b"long name")
    # Each takes 16 bytes besides, on ext4; the longest value here has 48.
    many = min(25, abilities.xattr_space // 60)
    for number in range(many):
        os.setxattr(folder / "many", f"user.number{number:03}", chance.randbytes(number * 2))
    for number in range(0, many, 4):
        os.removexattr(folder / "many", f"user.number{number:03}")
    _largest(folder / "large", chance)
    _until_full(folder / "many and large", chance)
    if abilities.symlinks:
        os.symlink("nowhere", folder / "link")
        os.setxattr(folder / "link", "trusted.link", b"on a link", follow_symlinks=False)
    if abilities.devices:
        os.mkfifo(folder / "fifo")
        os.setxattr(folder / "fifo", "trusted.fifo", b"on a fifo")


def _largest(path: Path, chance: random.Random) -> None:
    """One attribute as long as the filesystem takes."""
    small, large = 0, _VALUE_MAX + 1
    while large - small > 1:
        middle = (small + large) // 2
        if _set(path, "user.large", chance.randbytes(middle)):
            small = middle
        else:
            large = middle
    if small < _VALUE_LEAST or not _set(path, "user.large", chance.randbytes(small)):
        raise RuntimeError(f"{path} takes attributes of {small} bytes only")


def _until_full(path: Path, chance: random.Random) -> None:
    """Attributes of rising length, up to 60 or until one is refused."""
    for number in range(60):
        if not _set(path, f"user.{number}", chance.randbytes(number * 37)):
            break


def _set(path: Path, name: str, value: bytes) -> bool:
    """False where there is no room for it."""
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE):
            return False
        raise
    return True


def _acls(folder: Path) -> None:
    folder.mkdir()
    (folder / "file").write_bytes(b"acl")
    (folder / "below").mkdir()
    run("setfacl", "-m", "u:1000:rw,u:70000:r,g:100:rwx,m::r", folder / "file")
    run("setfacl", "-m", "u:1001:rx", folder / "below")
    run("setfacl", "-d", "-m", "u:1002:rwx,g:70001:rx,o::-", folder / "below")
    # These inherit.
    (folder / "below" / "file").write_bytes(b"inherits")
    (folder / "below" / "folder").mkdir()
    many = ",".join(f"u:{2000 + number}:r" for number in range(20))
    (folder / "many").write_bytes(b"many")
    run("setfacl", "-m", many, folder / "many")


def _times(folder: Path, abilities: Abilities) -> None:
    folder.mkdir()
    seconds = [*_TIMES_S, *(_LONG_TIMES_S if abilities.long_times else ())]
    if abilities.dos_times:
        seconds = [_DOS_FIRST_S, 951_782_400, 2**31, _DOS_LAST_S]
    for second in seconds:
        # ntfs-3g, which has steps of 100 ns, rounds parts of seconds before 1970 the wrong way.
        for part in _NANOSECONDS if second >= 0 or abilities.time_step_ns == 1 else (0,):
            # Both times differ, so that one cannot stand for the other.
            moment, other = second * 10**9 + part, 10**18 + second + part * 7 % 10**9
            path = folder / f"{second} {part}"
            path.write_bytes(b"time")
            os.utime(path, ns=(other, moment))
            found = path.stat().st_mtime_ns
            if not 0 <= moment - found < abilities.time_step_ns:
                raise RuntimeError(f"time {moment} came back as {found} in {folder}")
    (folder / "folder").mkdir()
    os.utime(folder / "folder", ns=(10**18 + 5_000, 10**18 + 7_000))
    if abilities.symlinks:
        os.symlink("nowhere", folder / "link")
        os.utime(folder / "link", ns=(10**18 + 300, 10**18 + 900), follow_symlinks=False)
