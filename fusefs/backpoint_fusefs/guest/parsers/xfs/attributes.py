"""Extended attributes: inside the inode, in leaf blocks, with large values in blocks of their own.

Decides which a guest sees: not those whose writing was cut off, and not parent pointers. Layout:
struct xfs_attr_sf_hdr, xfs_attr_leafblock, xfs_attr3_leaf_hdr, xfs_attr3_rmt_hdr and
xfs_da_intnode in the kernel's fs/xfs/libxfs/xfs_da_format.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported
from backpoint_fusefs.guest.parsers.xfs.block_reader import BlockReader, Seal
from backpoint_fusefs.guest.parsers.xfs.fork_reader import units
from backpoint_fusefs.guest.parsers.xfs.inode import FORMAT_LOCAL, Fork, Inode

_LOCAL: Final = 1 << 0
_ROOT: Final = 1 << 1
_SECURE: Final = 1 << 2
_PARENT: Final = 1 << 3
_INCOMPLETE: Final = 1 << 7
_PREFIXES: Final = {0: b"user.", _ROOT: b"trusted.", _SECURE: b"security."}

_VALUE_MAX: Final = 64 << 10
_TOTAL_MAX: Final = 64 << 20
"""Names and values of one file, held in memory together; far beyond what programs store."""

_PAIR_COST: Final = 200
"""Bytes that Python needs for a name and a value, besides what they say."""

_LEAVES_MAX: Final = 65_536
"""256 MiB of names: more would be a chain that was made to be long."""

_LEVELS_MAX: Final = 5
"""XFS_DA_NODE_MAXDEPTH."""

_SEAL: Final = Seal(crc=12, place=16, uuid=32, owner=48)
_VALUE_SEAL: Final = Seal(crc=12, place=40, uuid=16, owner=32)
_VALUE_MAGIC: Final = b"XARM"
_VALUE_HEADER_SIZE: Final = 56


class _Layout(NamedTuple):
    """Of a version's index blocks. keys, entries: where they start in a node, in a leaf."""

    node_magic: int
    leaf_magic: int
    counts: int
    keys: int
    entries: int


_LAYOUTS: Final = {
    4: _Layout(0xFEBE, 0xFBEE, counts=12, keys=16, entries=32),
    5: _Layout(0x3EBE, 0x3BEE, counts=56, keys=64, entries=80),
}


def attributes(reader: BlockReader, inode: Inode) -> dict[bytes, bytes]:
    """Full names and raw values, as they are stored."""
    fork = inode.attribute_fork
    if fork is None:
        return {}
    if fork.format == FORMAT_LOCAL:
        pairs = _in_inode(fork.raw, inode.ino)
    elif fork.extents:
        pairs = _Index(reader, inode.ino, fork).pairs()
    else:
        return {}
    found: dict[bytes, bytes] = {}
    total = 0
    for name, value in pairs:
        total += len(name) + len(value) + _PAIR_COST
        if name in found:
            raise _damaged(inode.ino)
        if total > _TOTAL_MAX:
            raise GuestUnsupported(f"inode {inode.ino} has more than {_TOTAL_MAX} bytes of xattrs")
        found[name] = value
    return found


def _full_name(flags: int, name: bytes, owner: int) -> bytes | None:
    """None: not for guests to see."""
    if flags & (_INCOMPLETE | _PARENT):
        return None
    prefix = _PREFIXES.get(flags & ~_LOCAL)
    if prefix is None or not name or b"\0" in name:
        raise _damaged(owner)
    return prefix + name


def _in_inode(raw: bytes, owner: int) -> Iterator[tuple[bytes, bytes]]:
    size, count = struct.unpack_from(">HB", raw) if len(raw) >= 4 else (0, 0)
    if not 4 <= size <= len(raw):
        raise _damaged(owner)
    at = 4
    for _ in range(count):
        if at + 3 > size:
            raise _damaged(owner)
        name_length, value_length, flags = raw[at : at + 3]
        value_at = at + 3 + name_length
        at = value_at + value_length
        if at > size:
            raise _damaged(owner)
        name = _full_name(flags, raw[value_at - name_length : value_at], owner)
        if name is not None:
            yield name, raw[value_at:at]


class _Index:
    """The leaf blocks of one file, in their order, and what they refer to."""

    def __init__(self, reader: BlockReader, owner: int, fork: Fork) -> None:
        self._reader = reader
        self._owner = owner
        self._fork = fork
        self._layout = _LAYOUTS[reader.superblock.version]

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Names and values."""
        seen: set[int] = set()
        number = self._first_leaf()
        while True:
            block = self._block(number, self._layout.leaf_magic)
            yield from self._of_leaf(block)
            seen.add(number)
            number = int.from_bytes(block[:4], "big")
            if not number:
                return
            if number in seen or len(seen) > _LEAVES_MAX:
                raise _damaged(self._owner)

    def _first_leaf(self) -> int:
        """Down the left edge of the tree; the leaves are a chain from there on."""
        number = 0
        for _ in range(_LEVELS_MAX + 1):
            block = self._block(number, None)
            if self._magic(block) == self._layout.leaf_magic:
                return number
            count = int.from_bytes(block[self._layout.counts :][:2], "big")
            if self._magic(block) != self._layout.node_magic or not count:
                break
            number = int.from_bytes(block[self._layout.keys + 4 :][:4], "big")
        raise _damaged(self._owner)

    def _block(self, number: int, magic: int | None) -> bytes:
        found = next(units(self._reader, self._owner, self._fork, 1, number, number + 1), None)
        if found is None or (magic is not None and self._magic(found.data) != magic):
            raise _damaged(self._owner)
        self._reader.check_seal(found.data, found.at, self._owner, _SEAL)
        return found.data

    @staticmethod
    def _magic(block: bytes) -> int:
        return int.from_bytes(block[8:10], "big")

    def _of_leaf(self, block: bytes) -> Iterator[tuple[bytes, bytes]]:
        count = int.from_bytes(block[self._layout.counts :][:2], "big")
        entries_end = self._layout.entries + count * 8
        if entries_end > len(block):
            raise _damaged(self._owner)
        for _, at, flags, _ in struct.iter_unpack(
            ">IHBB", block[self._layout.entries : entries_end]
        ):
            if not entries_end <= at <= len(block) - 4:
                raise _damaged(self._owner)
            found = self._local(block, at, flags) if flags & _LOCAL else None
            found = found or self._remote(block, at, flags)
            if found[0] is not None:
                yield found[0], found[1]

    def _local(self, block: bytes, at: int, flags: int) -> tuple[bytes | None, bytes]:
        value_length, name_length = struct.unpack_from(">HB", block, at)
        value_at = at + 3 + name_length
        if value_at + value_length > len(block):
            raise _damaged(self._owner)
        name = _full_name(flags, block[at + 3 : value_at], self._owner)
        return name, block[value_at : value_at + value_length]

    def _remote(self, block: bytes, at: int, flags: int) -> tuple[bytes | None, bytes]:
        if at + 9 > len(block):
            raise _damaged(self._owner)
        first, length, name_length = struct.unpack_from(">IIB", block, at)
        if at + 9 + name_length > len(block):
            raise _damaged(self._owner)
        name = _full_name(flags, block[at + 9 : at + 9 + name_length], self._owner)
        return name, b"" if name is None else self._value(first, length)

    def _value(self, first: int, length: int) -> bytes:
        """Version 5 has a header in each block of a value."""
        if not length <= _VALUE_MAX:
            raise _damaged(self._owner)
        header_size = _VALUE_HEADER_SIZE if self._reader.superblock.sealed else 0
        space = self._reader.superblock.block_size - header_size
        end = first + -(-length // space)
        parts: list[bytes] = []
        for unit in units(self._reader, self._owner, self._fork, 1, first, end):
            offset = (unit.first - first) * space
            if offset != len(parts) * space:
                raise _damaged(self._owner)
            if header_size:
                self._reader.check_seal(unit.data, unit.at, self._owner, _VALUE_SEAL)
                head = struct.pack(">4sII", _VALUE_MAGIC, offset, min(space, length - offset))
                if not unit.data.startswith(head):
                    raise _damaged(self._owner)
            parts.append(unit.data[header_size:])
        value = b"".join(parts)[:length]
        if len(value) != length:
            raise _damaged(self._owner)
        return value


def _damaged(owner: int) -> GuestDamaged:
    return GuestDamaged(f"the extended attributes of inode {owner} are damaged")
