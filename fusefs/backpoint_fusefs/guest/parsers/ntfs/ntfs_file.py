"""One file of NTFS: all its attributes, put together from all its records.

Knows what a file consists of, not what it means to a reader.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.ntfs.attribute import (
    ATTRIBUTE_LIST,
    DATA,
    FILE_NAME,
    Attribute,
    attributes,
)
from backpoint_fusefs.guest.parsers.ntfs.mft import FileRecord, MasterFileTable

_RECORDS_MAX: Final = 16384
_DOS_NAME: Final = b"\x02"
_NAMESPACE_AT: Final = 65


class NtfsFile(NamedTuple):
    """attributes: also the later parts of those that are split over records."""

    number: int
    sequence: int
    directory: bool
    attributes: list[Attribute]

    def first(self, kind: int, name: bytes = b"") -> Attribute | None:
        """The beginning of this attribute, which has its sizes."""
        for each in self.attributes:
            if each.kind == kind and each.name == name and each.vcn == 0:
                return each
        return None

    def segments(self, first: Attribute) -> list[Attribute]:
        """All parts of an attribute, in order."""
        same = [a for a in self.attributes if a.kind == first.kind and a.name == first.name]
        return sorted(same, key=lambda each: each.vcn)

    def names(self) -> int:
        """How many names it has, without those that only DOS sees."""
        return sum(
            1
            for each in self.attributes
            if each.kind == FILE_NAME
            and each.value is not None
            and each.value[_NAMESPACE_AT : _NAMESPACE_AT + 1] != _DOS_NAME
        )

    def streams(self) -> list[Attribute]:
        """Its alternate streams by name; their number is their place here, from 1 on."""
        named = [each for each in self.attributes if each.kind == DATA and each.name]
        return sorted((each for each in named if each.vcn == 0), key=lambda each: each.name)


def open_file(table: MasterFileTable, record: FileRecord) -> NtfsFile:
    """The file of which this is the base record."""
    if record.base:
        raise GuestDamaged(f"record {record.number} is only a part of file {record.base}")
    found = list(attributes(record.record))
    for each in found:
        if each.kind == ATTRIBUTE_LIST:
            found = _listed(table, record, found, each)
            break
    return NtfsFile(record.number, record.sequence, record.directory, found)


def _listed(
    table: MasterFileTable, record: FileRecord, own: list[Attribute], listed: Attribute
) -> list[Attribute]:
    """The attributes that the list names, wherever they are."""
    entries = table.attribute_list(listed)
    others = {entry.record for entry in entries} - {record.number}
    if len(others) > _RECORDS_MAX:
        raise GuestDamaged(f"file {record.number} is spread over {len(others)} records")
    found = {record.number: own}
    for other in table.records(others):
        if other.base == record.number:
            found[other.number] = list(attributes(other.record))
    by_place = {
        (number, each.kind, each.number): each
        for number, several in found.items()
        for each in several
    }
    try:
        return [by_place[entry.record, entry.kind, entry.number] for entry in entries]
    except KeyError as missing:
        raise GuestDamaged(f"a part of file {record.number} is missing") from missing
