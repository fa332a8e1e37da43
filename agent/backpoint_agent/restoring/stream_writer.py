"""A disk as a streamOptimized VMDK, the form in which vCenter takes disks, made while it is sent.

Decides the format: sparse header of version 3 (ESXi refuses others), grains of 64 KiB compressed by
zlib and kept only where they are not zero, grain tables after their grains, the directory and a
footer at the end, each announced by a marker. Refuses to know where the grains come from and where
the bytes go. VMware Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from backpoint_repo.errors import TargetError

SECTOR: Final = 512
GRAIN_SIZE: Final = 64 << 10
_GRAIN_SECTORS: Final = GRAIN_SIZE // SECTOR
_TABLE_ENTRIES: Final = 512
TABLE_COVERS: Final = GRAIN_SIZE * _TABLE_ENTRIES
"""Bytes of disk that one grain table maps: 32 MiB."""

_MAGIC: Final = 0x564D444B  # "KDMV" on disk
_VERSION: Final = 3
# Valid newlines, compressed grains, markers; no redundant table.
_FLAGS: Final = 1 | 1 << 16 | 1 << 17
_AT_THE_END: Final = (1 << 64) - 1
_DESCRIPTOR_SECTORS: Final = 20
_OVERHEAD_SECTORS: Final = 128
_DEFLATE: Final = 1
_HEADER: Final = struct.Struct("<IIIQQQQIQQQBccccH433x")
_GRAIN_MARKER: Final = struct.Struct("<QI")
_MARKER: Final = struct.Struct("<QII496x")
_TABLE_MARKER: Final = 1
_DIRECTORY_MARKER: Final = 2
_FOOTER_MARKER: Final = 3
_END_OF_STREAM: Final = bytes(SECTOR)
_ZERO_GRAIN: Final = bytes(GRAIN_SIZE)
_SECTORS_MAX: Final = 1 << 32
"""The format numbers sectors of the file with 32 bits."""
_FASTEST: Final = 1
"""zlib's level: what limits an import is the compressor here, or the host's inflating."""

_DESCRIPTOR: Final = """\
# Disk DescriptorFile
version=1
CID={cid:08x}
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW {sectors} SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.virtualHWVersion = "11"
"""


def pack_grain(number: int, data: bytes | memoryview) -> bytes:
    """Grain `number` of the disk with its marker, in whole sectors; b"" for one that is all zero.

    data: GRAIN_SIZE bytes, fewer for the disk's last. May run in any thread.
    """
    if data == _ZERO_GRAIN[: len(data)]:
        return b""
    whole = data if len(data) == GRAIN_SIZE else bytes(data) + _ZERO_GRAIN[len(data) :]
    packed = zlib.compress(whole, _FASTEST)
    return _padded(_GRAIN_MARKER.pack(number * _GRAIN_SECTORS, len(packed)) + packed)


def stream_vmdk(size: int, content_id: int, grains: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """The file's bytes in order. size: of the disk, a multiple of 512.

    content_id: 32 bits that tell this content from any other. grains: number and `pack_grain`'s
    result, in the order of the numbers; what is left out reads as zeros.
    """
    tables = _Tables(-(-size // TABLE_COVERS))
    yield _header(size, _AT_THE_END) + _descriptor(size, content_id)
    tables.at = _OVERHEAD_SECTORS
    for number, packed in grains:
        if packed:
            yield from tables.before(number)
            tables.enter(number, len(packed) // SECTOR)
            yield packed
    yield from tables.finish_table()
    directory = _padded(struct.pack(f"<{len(tables.places)}I", *tables.places))
    sectors = len(directory) // SECTOR
    footer = _header(size, tables.at + 1)
    yield _MARKER.pack(sectors, 0, _DIRECTORY_MARKER) + directory
    yield _MARKER.pack(1, 0, _FOOTER_MARKER) + footer + _END_OF_STREAM


class _Tables:
    """Where the grains are, table by table. at: the sector that is written next."""

    def __init__(self, count: int) -> None:
        self.at = 0
        self.places = [0] * count
        self._current = 0
        self._entries = [0] * _TABLE_ENTRIES

    def before(self, number: int) -> Iterator[bytes]:
        """What comes before grain `number`: the table of the grains so far, if they are another's.

        A grain out of order is a bug of the caller.
        """
        table = number // _TABLE_ENTRIES
        assert table >= self._current
        if table != self._current:
            yield from self.finish_table()
            self._current = table

    def enter(self, number: int, sectors: int) -> None:
        """The grain is the next thing written. Raises TargetError behind 2 TiB of stream."""
        if self.at >= _SECTORS_MAX:
            raise TargetError("the disk is too large for a streamOptimized file: more than 2 TiB")
        self._entries[number % _TABLE_ENTRIES] = self.at
        self.at += sectors

    def finish_table(self) -> Iterator[bytes]:
        """The current table, unless all of it is empty."""
        if not any(self._entries):
            return
        table = struct.pack(f"<{_TABLE_ENTRIES}I", *self._entries)
        self.places[self._current] = self.at + 1
        self.at += 1 + len(table) // SECTOR
        self._entries = [0] * _TABLE_ENTRIES
        yield _MARKER.pack(len(table) // SECTOR, 0, _TABLE_MARKER) + table


def _header(size: int, directory_at: int) -> bytes:
    return _HEADER.pack(
        _MAGIC,
        _VERSION,
        _FLAGS,
        size // SECTOR,
        _GRAIN_SECTORS,
        1,  # the descriptor's sector
        _DESCRIPTOR_SECTORS,
        _TABLE_ENTRIES,
        0,  # no redundant directory
        directory_at,
        _OVERHEAD_SECTORS,
        0,  # shut down cleanly
        b"\n",
        b" ",
        b"\r",
        b"\n",
        _DEFLATE,
    )


def _descriptor(size: int, content_id: int) -> bytes:
    text = _DESCRIPTOR.format(
        cid=min(content_id, 0xFFFFFFFE),
        sectors=size // SECTOR,
        cylinders=max(1, size // SECTOR // (255 * 63)),
    )
    return text.encode().ljust((_OVERHEAD_SECTORS - 1) * SECTOR, b"\0")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % SECTOR)
