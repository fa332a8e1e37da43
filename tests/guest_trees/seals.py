"""Checksums of forged metadata put right, so that a reader must look at what it guards.

Knows the blocks of btrfs (`btrfs_header`, `btrfs_super_block` of the kernel's btrfs_tree.h) and of
XFS version 5 (xfs_format.h, xfs_da_format.h): CRC-32C, with zeros in the checksum's place. Other
filesystems are fuzzed without checksums, by options of their mkfs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dissect.util.hash import crc32c  # type: ignore[import-untyped, unused-ignore]

_BTRFS_SUPER: Final = 64 << 10
_BTRFS_MAGIC: Final = b"_BHRfS_M"
_BTRFS_NODE: Final = 16 << 10
_BTRFS_SUM: Final = 32
_BLOCK: Final = 4096
_XFS_INODE: Final = 512
_SECTOR: Final = 512

# magic -> (its offset, the checksum's, bytes that are summed) in a block of XFS.
_XFS: Final[dict[bytes, tuple[int, int, int]]] = {
    b"XDB3": (0, 4, _BLOCK),
    b"XDD3": (0, 4, _BLOCK),
    b"XDF3": (0, 4, _BLOCK),
    b"XARM": (0, 12, _BLOCK),
    b"XSLM": (0, 12, _BLOCK),
    b"BMA3": (0, 64, _BLOCK),
    b"IAB3": (0, 52, _BLOCK),
    b"FIB3": (0, 52, _BLOCK),
    b"AB3B": (0, 52, _BLOCK),
    b"AB3C": (0, 52, _BLOCK),
    b"RMB3": (0, 52, _BLOCK),
    b"R3FC": (0, 52, _BLOCK),
    b"\x3e\xbe": (8, 12, _BLOCK),
    b"\x3b\xee": (8, 12, _BLOCK),
    b"\x3d\xf1": (8, 12, _BLOCK),
    b"\x3d\xff": (8, 12, _BLOCK),
}
# The same of the headers at the start of an allocation group, a sector each.
_XFS_SECTORS: Final[dict[bytes, int]] = {b"XFSB": 224, b"XAGF": 216, b"XAGI": 312, b"XAFL": 32}

Read = Callable[[int, int], bytes]


def seal(block_at: Callable[[int], bytes], read: Read, offset: int) -> dict[int, bytes]:
    """Patches that hold the changed block at `offset`, and the checksum over it where one is known.

    block_at, read: the image with its changes.
    """
    block = bytearray(block_at(offset))
    if offset == _BTRFS_SUPER and block[64:72] == _BTRFS_MAGIC:
        return {offset: _sum(block[_BTRFS_SUM:]) + block[4:]}
    if read(0, 4) == b"XFSB" or block[:4] == b"XFSB":
        return {offset: _seal_xfs(block, offset)}
    if read(_BTRFS_SUPER + 64, 8) == _BTRFS_MAGIC:
        return {offset: bytes(block)} | _seal_btrfs(block_at, read, offset)
    return {offset: bytes(block)}


def _seal_btrfs(block_at: Callable[[int], bytes], read: Read, offset: int) -> dict[int, bytes]:
    """The first block of the node around `offset`, where there is a node."""
    start = offset // _BTRFS_NODE * _BTRFS_NODE
    node = read(start, _BTRFS_NODE)
    fsid = read(_BTRFS_SUPER + 32, 16)
    # Copies of the superblock lie among the nodes, with the same UUID in the same place.
    if node[32:48] != fsid or node[64:72] == _BTRFS_MAGIC or len(node) != _BTRFS_NODE:
        return {}
    return {start: _sum(node[_BTRFS_SUM:]) + block_at(start)[4:]}


def _seal_xfs(block: bytearray, offset: int) -> bytes:
    for at in range(0, min(len(block), 4 * _XFS_INODE), _XFS_INODE):
        place = _XFS_SECTORS.get(bytes(block[at : at + 4]))
        if place is not None:
            block[at : at + _XFS_INODE] = _xfs_sealed(block[at : at + _XFS_INODE], place)
    for magic, (at, place, length) in _XFS.items():
        if block[at : at + len(magic)] == magic and length == len(block):
            # The log's copies of these name the sector that they are copies of.
            is_copy = at == 8 and int.from_bytes(block[16:24], "big") != offset // _SECTOR
            return bytes(block if is_copy else _xfs_sealed(block, place))
    for at in range(0, len(block), _XFS_INODE):
        if block[at : at + 2] == b"IN" and block[at + 4] == 3:
            block[at : at + _XFS_INODE] = _xfs_sealed(block[at : at + _XFS_INODE], 100)
    return bytes(block)


def _xfs_sealed(part: bytearray, place: int) -> bytearray:
    part[place : place + 4] = bytes(4)
    part[place : place + 4] = _sum(part)
    return part


def _sum(guarded: bytes | bytearray) -> bytes:
    found: int = crc32c.crc32c(bytes(guarded))
    return found.to_bytes(4, "little")
