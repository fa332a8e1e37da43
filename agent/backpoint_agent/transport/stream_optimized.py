"""The streamOptimized VMDK, as an export lease sends it: read once, from first byte to last.

By the "Virtual Disk Format 5.0" note: a header; grains in rising order, each behind a marker and
deflated; tables that name every grain. Decides what is a whole stream: one that is cut anywhere,
or whose parts contradict each other, is an error and never silently zeros. Refuses to know where
the bytes come from and who wants them. All input is hostile: every length is checked before use.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, NoReturn

from backpoint_agent.transport.grain_tables import (
    SECTOR,
    TABLE_ENTRIES,
    TABLE_SECTORS,
    GrainTables,
    TablesAhead,
    TablesBehind,
)
from backpoint_repo.errors import SourceError

Read = Callable[[int], bytes]
"""At most so many next bytes of the stream; none at its end. Raises SourceError."""

_HEADER: Final = struct.Struct("<4sIIQQQQIQQQ?4sH")
_MARKER: Final = struct.Struct("<QII")
"""Value, size, type. With a size it marks a grain: then there is data in the type's place."""
_GRAIN_MARKER_SIZE: Final = 12

_MAGIC: Final = b"KDMV"
_LINE_ENDS: Final = b"\n \r\n"
"""As they left: a transfer that took the stream for text has changed them."""
_COMPRESSED_MARKED: Final = 1 << 16 | 1 << 17
_DEFLATE: Final = 1
_AT_END: Final = (1 << 64) - 1
_END_OF_STREAM, _TABLE, _DIRECTORY, _FOOTER = range(4)

_READ_AT_ONCE: Final = 256 << 10
_HEAD_MAX: Final = 64 << 20
"""Header, descriptor, and tables where they come first: those of a disk of 500 GiB."""
_DISK_MAX: Final = 1 << 46
"""64 TiB; vSphere has 62."""
_PADDING_MAX: Final = 16 << 20
_GRAIN_SECTORS: Final = range(8, 4097)


class Grain(NamedTuple):
    """Bytes of the disk, from `offset`; those behind the disk's end are cut off."""

    offset: int
    data: bytes


class StreamOptimized:
    """One stream, for one thread."""

    def __init__(self, name: str, read: Read) -> None:
        """Read the header. name: of the disk, for messages. Raises SourceError."""
        self._name = name
        self._input = _Input(name, read)
        self._first = self._input.take(SECTOR)
        self._header = _Header.of(self._first, name)

    @property
    def size(self) -> int:
        """Of the disk, bytes, as the header announces it."""
        return self._header.capacity * SECTOR

    @property
    def grain_size(self) -> int:
        """Bytes."""
        return self._header.grain_sectors * SECTOR

    def grains(self) -> Iterator[Grain]:
        """All grains in rising order; what lies between them is zeros. To be called once.

        Only when this has come to its end is it certain that none was missing or misplaced.
        Raises SourceError.
        """
        tables = self._read_head()
        at_least = 0
        while True:
            sector = self._input.sector
            marker = self._input.sector_or_end()
            if marker is None:
                return tables.finish(by_marker=False)
            value, size, kind = _MARKER.unpack_from(marker)
            if size:
                number = self._number(value, at_least)
                data = self._inflated(number, size, marker)
                tables.grain(number, sector)
                at_least = number + 1
                yield Grain(number * self.grain_size, data)
            elif kind == _END_OF_STREAM:
                if value:
                    self._damaged("its end-of-stream marker has a value")
                if isinstance(tables, TablesAhead):
                    # No footer vouches for the marker, and qemu pads with zeros.
                    self._input.expect_padding()
                return tables.finish(by_marker=True)
            else:
                self._metadata(tables, kind, value)

    def _read_head(self) -> GrainTables:
        header = self._header
        grains = -(-header.capacity // header.grain_sectors)
        rest = self._input.take(header.head_sectors * SECTOR - SECTOR)
        if header.directory_sector == _AT_END:
            return TablesBehind(self._name, grains)
        return TablesAhead(self._name, self._first + rest, header.directory_sector, grains)

    def _number(self, start: int, at_least: int) -> int:
        number, odd = divmod(start, self._header.grain_sectors)
        if odd or start >= self._header.capacity:
            self._damaged(f"a grain says that it belongs at sector {start} of the disk")
        if number < at_least:
            self._damaged(f"grain {number} came after grain {at_least - 1}")
        return number

    def _inflated(self, number: int, size: int, marker: bytes) -> bytes:
        """size: of the deflated data, which begin behind the marker in its sector."""
        if size > 2 * self.grain_size:
            self._damaged(f"grain {number} has {size} deflated bytes")
        here = SECTOR - _GRAIN_MARKER_SIZE
        deflated = marker[_GRAIN_MARKER_SIZE : _GRAIN_MARKER_SIZE + size]
        if size > here:
            rest = size - here
            deflated += self._input.take(-(-rest // SECTOR) * SECTOR)[:rest]
        inflater = zlib.decompressobj()
        try:
            # One byte more than allowed is enough to know that it is too much.
            data = inflater.decompress(deflated, self.grain_size + 1)
        except zlib.error as error:
            self._damaged(f"grain {number} cannot be inflated: {error}")
        if not inflater.eof or inflater.unused_data:
            self._damaged(f"grain {number} is not one whole deflated piece")
        # The last grain of a disk of odd size is sent in full by some, cut by others.
        there = min(self.grain_size, self.size - number * self.grain_size)
        if len(data) not in (self.grain_size, there):
            self._damaged(f"grain {number} has {len(data)} bytes")
        return data[:there]

    def _metadata(self, tables: GrainTables, kind: int, sectors: int) -> None:
        header = self._header
        directory_sectors = -(-header.tables * 4 // SECTOR)
        wanted = {_TABLE: TABLE_SECTORS, _DIRECTORY: directory_sectors, _FOOTER: 1}.get(kind)
        if wanted is None:
            self._damaged(f"a marker of type {kind} is in it")
        if sectors != wanted:
            self._damaged(f"a marker of type {kind} has {sectors} sectors, not {wanted}")
        sector = self._input.sector
        body = self._input.take(sectors * SECTOR)
        if kind == _TABLE:
            tables.table(body, sector)
        elif kind == _DIRECTORY:
            tables.directory(body, sector)
        else:
            footer = _Header.of(body, self._name)
            if footer[:2] != header[:2]:
                self._damaged("its footer and its header differ")
            tables.footer(footer.directory_sector)

    def _damaged(self, why: str) -> NoReturn:
        raise _damaged(self._name, why)


class _Header(NamedTuple):
    """capacity: sectors of the disk. tables: grain tables the whole disk has."""

    capacity: int
    grain_sectors: int
    directory_sector: int
    head_sectors: int
    tables: int

    @classmethod
    def of(cls, sector: bytes, name: str) -> _Header:
        """Raises SourceError unless it is the header of a stream that can be read."""
        (magic, version, flags, capacity, grain, _descriptor, _length, entries, _redundant,
         directory, head, _unclean, ends, packing) = _HEADER.unpack_from(sector)  # fmt: skip
        if magic != _MAGIC:
            raise _damaged(name, "it does not begin as a VMDK does")
        if version not in (1, 2, 3) or flags & _COMPRESSED_MARKED != _COMPRESSED_MARKED:
            raise _damaged(name, f"it is no streamOptimized VMDK (version {version})")
        if packing != _DEFLATE or entries != TABLE_ENTRIES or ends != _LINE_ENDS:
            raise _damaged(name, "its header has values that no streamOptimized VMDK has")
        if grain not in _GRAIN_SECTORS or grain & (grain - 1):
            raise _damaged(name, f"its grains have {grain} sectors")
        if not 0 < capacity * SECTOR <= _DISK_MAX:
            raise _damaged(name, f"its disk has {capacity} sectors")
        if not 1 <= head * SECTOR <= _HEAD_MAX:
            raise _damaged(name, f"its head has {head} sectors")
        return cls(capacity, grain, directory, head, -(-capacity // (grain * TABLE_ENTRIES)))


class _Input:
    """The stream in exact pieces; knows how far it is."""

    def __init__(self, name: str, read: Read) -> None:
        self._name = name
        self._read = read
        self._buffer = b""
        self._used = 0
        self._position = 0

    @property
    def sector(self) -> int:
        """Of the next byte; everything is taken in whole sectors."""
        return self._position // SECTOR

    def take(self, count: int) -> bytes:
        """Exactly so many bytes. Raises SourceError where the stream ends before."""
        taken = self._some(count)
        if len(taken) < count:
            raise _damaged(self._name, f"it ended at byte {self._position}")
        return taken

    def sector_or_end(self) -> bytes | None:
        """The next sector, or None at the stream's end."""
        taken = self._some(SECTOR)
        if taken and len(taken) < SECTOR:
            raise _damaged(self._name, f"it ended at byte {self._position}")
        return taken or None

    def expect_padding(self) -> None:
        """Take the rest of the stream. Raises SourceError unless it is a little and all zeros."""
        end = self._position + _PADDING_MAX
        while piece := self._some(_READ_AT_ONCE):
            if piece.count(0) < len(piece) or self._position > end:
                raise _damaged(self._name, "it goes on behind its end-of-stream marker")

    def _some(self, count: int) -> bytes:
        """Fewer only at the end."""
        pieces = []
        wanted = count
        while wanted:
            if self._used == len(self._buffer):
                self._buffer, self._used = self._read(max(_READ_AT_ONCE, wanted)), 0
                if not self._buffer:
                    break
            piece = self._buffer[self._used : self._used + wanted]
            self._used += len(piece)
            wanted -= len(piece)
            pieces.append(piece)
        self._position += count - wanted
        return b"".join(pieces)


def _damaged(name: str, why: str) -> SourceError:
    return SourceError(f"the exported VMDK of {name} is damaged or cut short: {why}")
