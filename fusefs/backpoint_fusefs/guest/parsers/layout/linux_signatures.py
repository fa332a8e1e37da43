"""Linux's filesystems and swap areas, known by their superblocks.

Offsets are those of the kernel's structures: ext4_super_block (fs/ext4/ext4.h), xfs_dsb
(fs/xfs/libxfs/xfs_format.h), btrfs_super_block (include/uapi/linux/btrfs_tree.h),
f2fs_super_block, reiserfs_super_block, jfs_superblock, union swap_header. A function answers None
where the magic number it was called for is an accident.
"""

from __future__ import annotations

import struct

from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signature import Signature, label_text, uuid_text

_EXT = 1024
_EXT_JOURNAL_DEVICE = 0x8
_EXT_64BIT = 0x80
_BTRFS = 0x10000
_SWAP_HEADER = 1024


def ext(probe: Probe) -> Signature | None:
    """ext2, ext3 and ext4 alike; a device that holds only their journal is another kind."""
    head = probe.head
    inodes, blocks = struct.unpack_from("<II", head, _EXT)
    (log_block_size,) = struct.unpack_from("<I", head, _EXT + 0x18)
    incompatible = struct.unpack_from("<I", head, _EXT + 0x60)[0]
    if log_block_size > 6 or not blocks:
        return None
    if incompatible & _EXT_64BIT:
        blocks |= struct.unpack_from("<I", head, _EXT + 0x150)[0] << 32
    label = label_text(head[_EXT + 0x78 : _EXT + 0x88])
    uuid = uuid_text(head[_EXT + 0x68 : _EXT + 0x78])
    if incompatible & _EXT_JOURNAL_DEVICE:
        return Signature("jbd", label, uuid)
    return Signature("ext", label, uuid, blocks << (10 + log_block_size)) if inodes else None


def xfs(probe: Probe) -> Signature:
    block_size, blocks = struct.unpack_from(">IQ", probe.head, 4)
    label = label_text(probe.head[108:120])
    return Signature("xfs", label, uuid_text(probe.head[32:48]), block_size * blocks)


def btrfs(probe: Probe) -> Signature:
    head = probe.head
    label = label_text(head[_BTRFS + 299 : _BTRFS + 555])
    (size,) = struct.unpack_from("<Q", head, _BTRFS + 112)
    return Signature("btrfs", label, uuid_text(head[_BTRFS + 32 : _BTRFS + 48]), size)


def f2fs(probe: Probe) -> Signature:
    label = label_text(probe.head[1024 + 124 : 1024 + 124 + 1024], "utf-16-le")
    return Signature("f2fs", label, uuid_text(probe.head[1024 + 108 : 1024 + 124]))


def reiserfs(probe: Probe) -> Signature:
    """Its superblock is at 64 KiB, or at 8 KiB in the oldest format."""
    start = 65536 if probe.head[65536 + 52 :].startswith(b"ReIsEr") else 8192
    label = label_text(probe.head[start + 100 : start + 116])
    return Signature("reiserfs", label, uuid_text(probe.head[start + 84 : start + 100]))


def jfs(probe: Probe) -> Signature:
    head = probe.head[32768 : 32768 + 168]
    return Signature("jfs", label_text(head[152:168]), uuid_text(head[136:152]))


def swap(probe: Probe) -> Signature:
    """Also one that holds a sleeping machine's memory. The oldest format has no UUID."""
    head = probe.head[_SWAP_HEADER : _SWAP_HEADER + 512]
    version, last_page = struct.unpack_from("<II", head)
    if version not in (1, 1 << 24) or not last_page:
        return Signature("swap")
    return Signature("swap", label_text(head[28:44]), uuid_text(head[12:28]))
