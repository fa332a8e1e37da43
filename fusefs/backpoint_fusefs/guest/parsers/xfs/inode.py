"""One inode: its numbers, decoded, and its two forks' bytes as they lie in it.

Decides what a sound inode is. Knows nothing of what its forks mean. Layout: struct xfs_dinode in
the kernel's fs/xfs/libxfs/xfs_format.h.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, Stat
from backpoint_fusefs.guest.parsers.xfs.superblock import Superblock

FORMAT_DEVICE: Final = 0
FORMAT_LOCAL: Final = 1
FORMAT_EXTENTS: Final = 2
FORMAT_BTREE: Final = 3

CRC_OFFSET: Final = 100

_MAGIC: Final = 0x494E
_CORE: Final = struct.Struct(">HHBBHIII4xQQQQQQ4xIHBB6xH")
_CORE3: Final = struct.Struct(">Q24xQ16s")
_CORE3_OFFSET: Final = 120
_SIZE_OF_CORE: Final = {1: 100, 2: 100, 3: 176}
_REALTIME: Final = 1 << 0
_BIG_TIME: Final = 1 << 3
_LARGE_COUNTS: Final = 1 << 4
_METADATA: Final = 1 << 5
_BIG_TIME_EPOCH_NS: Final = -(1 << 31) * 1_000_000_000

_FORMATS: Final = {
    stat.S_IFREG: (FORMAT_EXTENTS, FORMAT_BTREE),
    stat.S_IFDIR: (FORMAT_LOCAL, FORMAT_EXTENTS, FORMAT_BTREE),
    stat.S_IFLNK: (FORMAT_LOCAL, FORMAT_EXTENTS, FORMAT_BTREE),
    stat.S_IFCHR: (FORMAT_DEVICE,),
    stat.S_IFBLK: (FORMAT_DEVICE,),
    stat.S_IFIFO: (FORMAT_DEVICE,),
    stat.S_IFSOCK: (FORMAT_DEVICE,),
}


class Fork(NamedTuple):
    """format: one of FORMAT_*. extents: how many the inode claims. raw: the bytes in the inode."""

    format: int
    extents: int
    raw: bytes


class Inode(NamedTuple):
    """blocks: all that the file takes, maps and attributes too."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    realtime: bool
    format: int
    extents: int
    fork_offset: int
    attribute_format: int
    attribute_extents: int
    core_size: int
    raw: bytes

    @property
    def data_fork(self) -> Fork:
        """Content, names or the target."""
        end = self.core_size + self.fork_offset if self.fork_offset else len(self.raw)
        return Fork(self.format, self.extents, self.raw[self.core_size : end])

    @property
    def attribute_fork(self) -> Fork | None:
        """Extended attributes; None where there cannot be any."""
        if not self.fork_offset:
            return None
        raw = self.raw[self.core_size + self.fork_offset :]
        return Fork(self.attribute_format, self.attribute_extents, raw)

    def stat(self, block_size: int) -> Stat:
        """As a guest sees it."""
        rdev = self._rdev() if stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode) else 0
        return Stat(
            0,
            self.ino,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            0 if self.format == FORMAT_DEVICE else self.size,
            self.blocks * block_size,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            rdev,
        )

    def _rdev(self) -> int:
        """Packed as System V did: 14 bits of major, of which Linux uses 9, and 18 of minor."""
        packed = int.from_bytes(self.raw[self.core_size : self.core_size + 4], "big")
        return os.makedev(packed >> 18 & 0x1FF, packed & 0x3FFFF)


def decode_inode(raw: bytes, ino: int, superblock: Superblock) -> Inode:
    """A file's inode, free ones and metafiles refused. The checksum is the caller's to look at."""
    core = _CORE.unpack_from(raw)
    magic, mode, version, form, old_nlink, uid, gid, nlink, large_extents = core[:9]
    atime, mtime, ctime, size, blocks, extents, attribute_extents = core[9:16]
    fork_units, attribute_format, flags = core[16:]
    core_size = _SIZE_OF_CORE.get(version)
    if magic != _MAGIC or core_size is None or (version == 3) != superblock.sealed:
        raise GuestDamaged(f"there is no inode {ino} where it should be")
    flags2 = _flags2(raw, ino, superblock) if version == 3 else 0
    if flags2 & _LARGE_COUNTS:
        extents, attribute_extents = large_extents, extents
    if form not in _FORMATS.get(stat.S_IFMT(mode), ()):
        raise GuestDamaged(f"inode {ino} is free, or of no known kind ({mode:o}, {form})")
    if flags2 & _METADATA or ino in superblock.metafiles:
        raise GuestDamaged(f"inode {ino} belongs to the filesystem itself")
    if size >> 63 or core_size + fork_units * 8 >= len(raw):
        raise GuestDamaged(f"inode {ino} contradicts itself")
    big = flags2 & _BIG_TIME
    return Inode(
        ino,
        mode,
        old_nlink if version == 1 else nlink,
        uid,
        gid,
        size,
        blocks,
        atime + _BIG_TIME_EPOCH_NS if big else _old_time_ns(atime),
        mtime + _BIG_TIME_EPOCH_NS if big else _old_time_ns(mtime),
        ctime + _BIG_TIME_EPOCH_NS if big else _old_time_ns(ctime),
        bool(flags & _REALTIME),
        form,
        extents,
        fork_units * 8,
        attribute_format,
        attribute_extents,
        core_size,
        raw,
    )


def _flags2(raw: bytes, ino: int, superblock: Superblock) -> int:
    flags2: int
    flags2, own_number, uuid = _CORE3.unpack_from(raw, _CORE3_OFFSET)
    if own_number != ino or uuid != superblock.uuid:
        raise GuestDamaged(f"where inode {ino} should be lies another one")
    return flags2


def _old_time_ns(packed: int) -> int:
    """Signed seconds, then nanoseconds, 32 bits each."""
    seconds = packed >> 32
    if seconds >> 31:
        seconds -= 1 << 32
    return seconds * 1_000_000_000 + (packed & 0xFFFFFFFF)
