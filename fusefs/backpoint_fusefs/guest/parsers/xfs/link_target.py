"""What a symbolic link points to: text in its inode, or in blocks of its own.

Layout: struct xfs_dsymlink_hdr in the kernel's fs/xfs/libxfs/xfs_format.h; in version 5 each extent
of the target (not each block) has that header.
"""

from __future__ import annotations

from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.xfs.block_reader import BlockReader, Seal
from backpoint_fusefs.guest.parsers.xfs.extent_map import mappings
from backpoint_fusefs.guest.parsers.xfs.inode import FORMAT_LOCAL, Inode

_LENGTH_MAX: Final = 1024
_BLOCKS_MAX: Final = 3
"""1024 bytes, and a header for each of the smallest blocks."""

_MAGIC: Final = b"XSLM"
_HEADER_SIZE: Final = 56
_SEAL: Final = Seal(crc=12, place=40, uuid=16, owner=32)


def link_target(reader: BlockReader, link: Inode) -> bytes:
    """All of it; the kernel never writes more than 1024 bytes."""
    if not 0 < link.size <= _LENGTH_MAX:
        raise _damaged(link)
    if link.format == FORMAT_LOCAL:
        target = link.data_fork.raw[: link.size]
    else:
        target = _in_blocks(reader, link)
    if len(target) != link.size or b"\0" in target:
        raise _damaged(link)
    return target


def _in_blocks(reader: BlockReader, link: Inode) -> bytes:
    parts: list[bytes] = []
    length, done = 0, 0
    for mapping in mappings(reader, link.ino, link.data_fork):
        if mapping.unwritten or mapping.first != done or mapping.blocks > _BLOCKS_MAX:
            raise _damaged(link)
        done += mapping.blocks
        data = reader.read(mapping.at, mapping.blocks * reader.superblock.block_size)
        if reader.superblock.sealed:
            data = _unsealed(reader, link, data, mapping.at, length)
        parts.append(data[: link.size - length])
        length += len(parts[-1])
        if length == link.size:
            break
    return b"".join(parts)


def _unsealed(reader: BlockReader, link: Inode, data: bytes, at: int, offset: int) -> bytes:
    reader.check_seal(data, at, link.ino, _SEAL)
    own_offset, length = (int.from_bytes(data[first : first + 4], "big") for first in (4, 8))
    if not data.startswith(_MAGIC) or own_offset != offset or length > len(data) - _HEADER_SIZE:
        raise _damaged(link)
    return data[_HEADER_SIZE : _HEADER_SIZE + length]


def _damaged(link: Inode) -> GuestDamaged:
    return GuestDamaged(f"the symbolic link with inode {link.ino} is damaged")
