"""What an NTFS folder holds: the entries of its index, in one pass over its blocks.

Reads the blocks that the folder's bitmap says are used, in the order they lie (as the drivers
list), so no tree can lead in circles. Format: "$I30 index" (Microsoft; ntfs-3g `layout.h`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, VolumeImage
from backpoint_fusefs.guest.parsers.ntfs.attribute import (
    BITMAP,
    INDEX_ALLOCATION,
    INDEX_ROOT,
)
from backpoint_fusefs.guest.parsers.ntfs.fixups import repaired
from backpoint_fusefs.guest.parsers.ntfs.mft import MasterFileTable
from backpoint_fusefs.guest.parsers.ntfs.ntfs_file import NtfsFile
from backpoint_fusefs.guest.parsers.run_bytes import RunBytes
from backpoint_fusefs.guest.parsers.utf16_name import name_bytes

_I30: Final = "$I30".encode("utf-16-le")
_MAGIC: Final = b"INDX"
_READ_MAX: Final = 1 << 20
_BITMAP_MAX: Final = 8 << 20
_ROOT_HEAD: Final = 16
_BLOCK_HEAD: Final = 24
_NODE: Final = struct.Struct("<III")
# An entry's reference, length, key length and flags, then of its key, a $FILE_NAME: the parent and
# at its end the name's length and namespace.
_ENTRY: Final = struct.Struct("<QHHH2xQ56xBB")
_LAST: Final = 2
_DOS_NAME: Final = 2
_REFERENCE: Final = (1 << 48) - 1
# Windows makes no more than 2^32 - 1 files.
_RECORD_MAX: Final = (1 << 32) - 1


class IndexEntry(NamedTuple):
    """sequence: must be that of the record, else the name is of an earlier file."""

    name: bytes
    record: int
    sequence: int


def folder_entries(
    image: VolumeImage, table: MasterFileTable, folder: NtfsFile
) -> Iterator[IndexEntry]:
    root = folder.first(INDEX_ROOT, _I30)
    if root is None or root.value is None or len(root.value) < _ROOT_HEAD + _NODE.size:
        raise GuestDamaged(f"folder {folder.number} has no index")
    block = int.from_bytes(root.value[8:12], "little")
    yield from _node_entries(root.value, _ROOT_HEAD, folder.number)
    allocation = folder.first(INDEX_ALLOCATION, _I30)
    if allocation is None:
        return
    bitmap = folder.first(BITMAP, _I30)
    if bitmap is None or not 512 <= block <= 1 << 16 or block & (block - 1):
        raise GuestDamaged(f"folder {folder.number}'s index has no map")
    used = table.value(folder.segments(bitmap), _BITMAP_MAX)
    blocks = RunBytes(image, table.mapped(folder.segments(allocation)))
    count = min(allocation.initialized // block, 8 * len(used))
    step = _READ_MAX // block
    for start in range(0, count, step):
        wanted = [n for n in range(start, min(start + step, count)) if used[n >> 3] >> (n & 7) & 1]
        if not wanted:
            continue
        first, length = wanted[0], wanted[-1] + 1 - wanted[0]
        whole = repaired(blocks.read(first * block, length * block), block, _MAGIC)
        for number in wanted:
            node = whole[number - first]
            if node is None:
                raise GuestDamaged(f"block {number} of folder {folder.number} is damaged")
            yield from _node_entries(node, _BLOCK_HEAD, folder.number)


def _node_entries(node: bytes, head: int, folder: int) -> Iterator[IndexEntry]:
    start, length, _ = _NODE.unpack_from(node, head)
    at, end = head + start, head + length
    if end > len(node):
        raise GuestDamaged(f"an index block of folder {folder} reaches out of itself")
    while at + 16 <= end:
        flags = node[at + 12]
        if flags & _LAST:
            return
        if at + _ENTRY.size > end:
            break
        reference, size, _, _, parent, name_length, namespace = _ENTRY.unpack_from(node, at)
        name_at = at + _ENTRY.size
        if size < _ENTRY.size + 2 * name_length or at + size > end:
            break
        if parent & _REFERENCE != folder:
            raise GuestDamaged(f"folder {folder} lists a file of folder {parent & _REFERENCE}")
        if reference & _REFERENCE > _RECORD_MAX:
            raise GuestDamaged(f"folder {folder} lists an impossible record")
        if namespace != _DOS_NAME:
            name = node[name_at : name_at + 2 * name_length]
            # A folder that lists itself is the root, and this is its `.`.
            if reference & _REFERENCE != folder:
                yield IndexEntry(name_bytes(name), reference & _REFERENCE, reference >> 48)
        at += size
    raise GuestDamaged(f"an index block of folder {folder} does not end where it should")
