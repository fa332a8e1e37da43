"""The master file table: where it lies, and its records by number, many in few reads.

Knows of attributes only what leads to the table's own clusters. Format: "MFT", FILE record header
(Microsoft; ntfs-3g `layout.h`, `mft.c`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import (
    HOLE,
    Extent,
    GuestDamaged,
    GuestUnsupported,
    VolumeImage,
)
from backpoint_fusefs.guest.parsers.ntfs.attribute import (
    ATTRIBUTE_LIST,
    COMPRESSED,
    DATA,
    ENCRYPTED,
    Attribute,
    attributes,
)
from backpoint_fusefs.guest.parsers.ntfs.fixups import repaired
from backpoint_fusefs.guest.parsers.ntfs.geometry import Geometry
from backpoint_fusefs.guest.parsers.ntfs.run_list import SPARSE, decode_runs
from backpoint_fusefs.guest.parsers.run_bytes import RunBytes

_MAGIC: Final = b"FILE"
_HEADER: Final = struct.Struct("<4sHHQHHHHIIQH2xI")
_IN_USE: Final = 1
_DIRECTORY: Final = 2
_READ_MAX: Final = 1 << 20
# Records between two wanted ones that are read along with them rather than apart.
_GAP_MAX: Final = 64
_LIST_MAX: Final = 1 << 20
# Twice what Windows' own limit on a file's list of attributes leaves room for.
_EXTENTS_MAX: Final = 1 << 20
_LIST_ENTRY: Final = struct.Struct("<IHBBQQH")


class FileRecord(NamedTuple):
    """base: the number of the record that this one extends, or 0; of itself where it is one."""

    number: int
    sequence: int
    directory: bool
    base: int
    record: bytes


class ListEntry(NamedTuple):
    """One attribute of a file that does not fit in one record, and the record that has it."""

    kind: int
    vcn: int
    record: int
    number: int


class MasterFileTable:
    def __init__(self, image: VolumeImage, geometry: Geometry) -> None:
        self._image = image
        self._geometry = geometry
        size = geometry.record
        self._bytes = RunBytes(image, [Extent(0, size, geometry.mft_at)])
        self._map_table()
        self.count = self._bytes.size // size

    def record(self, number: int) -> FileRecord:
        """One that is in use."""
        for found in self.records([number]):
            return found
        raise GuestDamaged(f"file {number} has no valid record")

    def records(self, numbers: Iterable[int]) -> Iterator[FileRecord]:
        """Those that can be read and are in use, by number; few of them at a time in memory."""
        size = self._geometry.record
        limit = self._bytes.size // size
        wanted = sorted({number for number in numbers if 0 <= number < limit})
        for batch in _batches(wanted, _READ_MAX // size):
            first = batch[0]
            blocks = self._bytes.read(first * size, (batch[-1] + 1 - first) * size)
            whole = repaired(blocks, size, _MAGIC)
            for number in batch:
                if record := _checked(number, whole[number - first]):
                    yield record

    def attribute_list(self, listed: Attribute) -> list[ListEntry]:
        """What an $ATTRIBUTE_LIST says. Format: ntfs-3g `layout.h`, ATTR_LIST_ENTRY."""
        value = self.value([listed], _LIST_MAX)
        entries = []
        at = 0
        while at + 26 <= len(value):
            kind, length, _, _, vcn, record, number = _LIST_ENTRY.unpack_from(value, at)
            if length < 26:
                raise GuestDamaged("a file's list of attributes does not add up")
            entries.append(ListEntry(kind, vcn, record & (1 << 48) - 1, number))
            at += length
        return entries

    def value(self, segments: list[Attribute], most: int) -> bytes:
        """The whole value of an attribute that is neither compressed nor encrypted."""
        first = segments[0]
        if first.value is not None:
            return first.value
        if first.size > most or first.flags & (COMPRESSED | ENCRYPTED):
            raise GuestDamaged(f"an attribute of kind {first.kind:#x} has {first.size} bytes")
        valid = RunBytes(self._image, self.mapped(segments)).read(0, first.initialized)
        return valid + bytes(first.size - first.initialized)

    def mapped(self, segments: list[Attribute]) -> list[Extent]:
        """Where the clusters of a nonresident attribute are, from 0 on without gaps.

        segments: its parts, each from its own record, in order.
        """
        cluster = self._geometry.cluster
        extents = []
        vcn = 0
        for segment in segments:
            if segment.vcn != vcn or segment.value is not None:
                raise GuestDamaged("parts of a file's list of clusters are missing")
            for start, length, lcn in decode_runs(
                segment.pairs, vcn, segment.end, self._geometry.clusters
            ):
                at = HOLE if lcn == SPARSE else lcn * cluster
                extents.append(Extent(start * cluster, length * cluster, at))
            if len(extents) > _EXTENTS_MAX:
                raise GuestUnsupported(f"a file of more than {_EXTENTS_MAX} pieces")
            vcn = segment.end
        return extents

    def _map_table(self) -> None:
        """A table in many pieces is listed in records that lie in its own first pieces."""
        own = list(attributes(self.record(0).record))
        segments = [each for each in own if each.kind == DATA and not each.name]
        self._bytes = self._table(segments)
        for listed in own:
            if listed.kind != ATTRIBUTE_LIST:
                continue
            entries = self.attribute_list(listed)
            for entry in sorted(e for e in entries if e.kind == DATA and e.record):
                for each in attributes(self.record(entry.record).record):
                    if each.kind == DATA and not each.name and each.vcn == segments[-1].end:
                        segments.append(each)
                self._bytes = self._table(segments)

    def _table(self, segments: list[Attribute]) -> RunBytes:
        if not segments or segments[0].flags:
            raise GuestDamaged("the master file table has no plain content")
        extents = self.mapped(segments)
        if any(extent.at == HOLE for extent in extents):
            raise GuestDamaged("the master file table has holes")
        return RunBytes(self._image, extents)


def _batches(numbers: list[int], most: int) -> Iterator[list[int]]:
    """Sorted numbers that are near enough to be read at once."""
    batch: list[int] = []
    for number in numbers:
        if batch and (number - batch[-1] > _GAP_MAX or number - batch[0] >= most):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _checked(number: int, record: bytes | None) -> FileRecord | None:
    if record is None:
        return None
    _, marks, _, _, sequence, _, _, flags, _, _, base, _, own = _HEADER.unpack_from(record)
    # Records of NTFS 3.1 name themselves; in older ones the sector marks stand there.
    if not flags & _IN_USE or (marks >= 48 and own != number & 0xFFFFFFFF):
        return None
    return FileRecord(number, sequence, bool(flags & _DIRECTORY), base & (1 << 48) - 1, record)
