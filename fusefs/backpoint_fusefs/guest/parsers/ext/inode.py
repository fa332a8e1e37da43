"""One inode: who owns it, how large it is, its times, and the bytes that say where its content is.

Decides what an inode means; where it lies and what its block map says, others know.
Layout: struct ext4_inode in fs/ext4/ext4.h; times as `ext4_decode_extra_time`, sizes as
`ext4_isize` and `ext4_inode_blocks`, device numbers as `old_decode_dev` and `new_decode_dev`.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, Stat
from backpoint_fusefs.guest.parsers.ext.superblock import (
    HUGE_FILE,
    IS_64BIT,
    LARGEDIR,
    Superblock,
)

ENCRYPTED: Final = 0x800
INDEXED: Final = 0x1000
_HUGE_FILE_BLOCKS: Final = 0x40000
EXTENTS: Final = 0x80000
XATTR_VALUE: Final = 0x200000
INLINE_DATA: Final = 0x10000000

_SECTOR = 512
_SECOND_NS = 1_000_000_000
CLASSIC_SIZE: Final = 128

_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_TYPES = (
    *(stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK),
    *_DEVICES,
)

# mode, uid, size, atime, ctime, mtime, dtime, gid, links, blocks, flags, osd1, i_block, generation,
# xattr block, size high, fragment, blocks high, xattr block high, uid high, gid high, two checksums
_CLASSIC = struct.Struct("<HHIiiiIHHIII60sIIIIHHHHHH")
_EXTRA_TIMES = struct.Struct("<III")  # ctime, mtime, atime: at 0x84


class Inode(NamedTuple):
    """raw: all its bytes on disk. i_block: its block map, or a short target or content."""

    ino: int
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    allocated: int
    flags: int
    generation: int
    xattr_block: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    i_block: bytes
    extra_size: int
    raw: bytes

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


def decode_inode(superblock: Superblock, ino: int, raw: bytes) -> Inode:
    """Raises GuestDamaged for one that is not in use, or impossible."""
    (mode, uid, size, atime, ctime, mtime, _, gid, links, sectors, flags, _, i_block, generation,
     xattr_block, size_high, _, blocks_high, xattr_high, uid_high, gid_high, _, _,
    ) = _CLASSIC.unpack_from(raw)  # fmt: skip
    if not links or stat.S_IFMT(mode) not in _TYPES:
        raise GuestDamaged(f"inode {ino} is not in use")
    extra_size = _extra_size(ino, raw)
    # Each time has its extra word only if it fits: two more bits of seconds, then nanoseconds.
    words = raw[0x84:0x90] if extra_size >= 16 else raw[0x84 : 128 + extra_size].ljust(12, b"\0")
    extra_ctime, extra_mtime, extra_atime = _EXTRA_TIMES.unpack(words)
    if stat.S_ISREG(mode) or superblock.incompat & LARGEDIR:
        size |= size_high << 32
    if size >= 1 << 63:
        raise GuestDamaged(f"inode {ino} has an impossible size")
    return Inode(
        ino,
        mode,
        uid | uid_high << 16,
        gid | gid_high << 16,
        links,
        size,
        _allocated(superblock, flags, sectors, blocks_high),
        flags,
        generation,
        xattr_block | (xattr_high << 32 if superblock.incompat & IS_64BIT else 0),
        (atime + ((extra_atime & 3) << 32)) * _SECOND_NS + (extra_atime >> 2),
        (mtime + ((extra_mtime & 3) << 32)) * _SECOND_NS + (extra_mtime >> 2),
        (ctime + ((extra_ctime & 3) << 32)) * _SECOND_NS + (extra_ctime >> 2),
        i_block,
        extra_size,
        raw,
    )


def _extra_size(ino: int, raw: bytes) -> int:
    if len(raw) == CLASSIC_SIZE:
        return 0
    extra_size = int.from_bytes(raw[CLASSIC_SIZE : CLASSIC_SIZE + 2], "little")
    if extra_size % 4 or CLASSIC_SIZE + extra_size > len(raw):
        raise GuestDamaged(f"inode {ino} has an impossible extra size")
    return extra_size


def _allocated(superblock: Superblock, flags: int, sectors: int, high: int) -> int:
    if superblock.ro_compat & HUGE_FILE:
        sectors |= high << 32
        if flags & _HUGE_FILE_BLOCKS:
            return sectors * superblock.block_size
    return sectors * _SECTOR


def stat_of(inode: Inode) -> Stat:
    """As the kernel's stat shows it."""
    allocated = inode.allocated
    if inode.flags & INLINE_DATA and inode.is_regular:
        # `ext4_file_getattr` counts content in the inode, so that tar does not take it for a hole.
        allocated += -(-inode.size // _SECTOR) * _SECTOR
    return Stat(
        0,
        inode.ino,
        inode.mode,
        inode.links,
        inode.uid,
        inode.gid,
        inode.size,
        allocated,
        inode.atime_ns,
        inode.mtime_ns,
        inode.ctime_ns,
        _device(inode) if stat.S_IFMT(inode.mode) in _DEVICES else 0,
    )


def _device(inode: Inode) -> int:
    old, new = struct.unpack_from("<II", inode.i_block)
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    return os.makedev((new & 0xFFF00) >> 8, (new & 0xFF) | (new >> 12 & 0xFFF00))
