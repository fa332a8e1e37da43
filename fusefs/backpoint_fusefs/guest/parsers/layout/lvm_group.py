"""A volume group as its metadata describe it, checked: names, extents, segments, areas.

As written by LVM2's lib/format_text/export.c. Decides what is a possible description; where
the bytes are, `lvm_mapping` works out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.layout.lvm_text import Section, Value

_SECTOR = 512
_NAME = re.compile(r"(?!-)(?!\.{1,2}\Z)[A-Za-z0-9+_.-]{1,127}\Z")
_TYPE = re.compile(r"[a-z0-9_+-]{1,64}\Z")
_UUID = re.compile(r"[A-Za-z0-9!#-]{1,64}\Z")
_MAX_BYTES = 1 << 60
_AREA_KEYS = ("stripes", "mirrors", "raid0_lvs", "raids")


class Area(NamedTuple):
    """name: of a physical volume, or of another logical one. extent: where on it."""

    name: str
    extent: int


@dataclass(frozen=True, slots=True)
class Segment:
    """start, count: extents of its logical volume. stripe: bytes of a stripe unit, or 0.

    type: without flags that only concern writing. areas: empty for types that have none.
    """

    start: int
    count: int
    type: str
    stripe: int
    areas: tuple[Area, ...]


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """extents: how many. flags: its status words. problem: why its own bytes are not what the
    guest sees in it, where a classic snapshot has to do with it."""

    name: str
    segments: tuple[Segment, ...]
    extents: int
    flags: frozenset[str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PvEntry:
    """start: of its first extent, in bytes. missing: LVM2 itself gave it up."""

    uuid: str
    start: int
    extents: int
    missing: bool


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    """extent: bytes of one."""

    name: str
    uuid: str
    sequence: int
    extent: int
    physical: Mapping[str, PvEntry]
    logical: Mapping[str, LogicalVolume]


def read_group(metadata: Section) -> VolumeGroup:
    """Raises GuestDamaged where the description is impossible."""
    groups = [(name, part) for name, part in metadata.items() if isinstance(part, dict)]
    if len(groups) != 1:
        raise GuestDamaged("LVM2 metadata do not describe one volume group")
    name, group = groups[0]
    logical = {
        _named(key): _logical(key, part) for key, part in _sections(group, "logical_volumes")
    }
    return VolumeGroup(
        _named(name),
        _uuid(group),
        _number(group, "seqno"),
        _number(group, "extent_size", at_least=1) * _SECTOR,
        {_named(key): _physical(part) for key, part in _sections(group, "physical_volumes")},
        _mark_snapshots(logical, _sections(group, "logical_volumes")),
    )


def _physical(part: Section) -> PvEntry:
    return PvEntry(
        _uuid(part),
        _number(part, "pe_start") * _SECTOR,
        _number(part, "pe_count"),
        "MISSING" in _words(part, "status") | _words(part, "flags"),
    )


def _logical(name: str, part: Section) -> LogicalVolume:
    segments = sorted(
        (_segment(inner) for inner in part.values() if isinstance(inner, dict)),
        key=lambda segment: segment.start,
    )
    end = 0
    for segment in segments:
        if segment.start != end:
            raise GuestDamaged(f"LVM2 metadata have a gap in {name}")
        end += segment.count
    flags = _words(part, "status") | _words(part, "flags")
    return LogicalVolume(name, tuple(segments), end, flags)


def _segment(part: Section) -> Segment:
    kind = part.get("type")
    if not isinstance(kind, str) or not _TYPE.match(kind):
        raise GuestDamaged("LVM2 metadata have a segment without a type")
    areas: list[Area] = []
    for key in _AREA_KEYS:
        values = part.get(key, [])
        if not isinstance(values, list):
            raise GuestDamaged(f"LVM2 metadata have no list of {key}")
        areas += _areas(values, with_extents=key in ("stripes", "mirrors"))
    return Segment(
        _number(part, "start_extent"),
        _number(part, "extent_count", at_least=1),
        kind.split("+", 1)[0],
        _number(part, "stripe_size") * _SECTOR if "stripe_size" in part else 0,
        tuple(areas),
    )


def _areas(values: list[int | float | str], *, with_extents: bool) -> list[Area]:
    """Names, each with its extent; the parts of a RAID are logical volumes from their beginning."""
    found: list[Area] = []
    waiting: str | None = None
    for value in values:
        if isinstance(value, str) and waiting is None:
            waiting = _named(value)
            if with_extents:
                continue
            value = 0
        if not isinstance(value, int) or waiting is None or not 0 <= value < _MAX_BYTES:
            # A RAID that has lost a part has the number 0 in the place of its name.
            if not with_extents and value == 0:
                found.append(Area("", 0))
                continue
            raise GuestDamaged("LVM2 metadata have an impossible list of areas")
        found.append(Area(waiting, value))
        waiting = None
    return found


def _mark_snapshots(
    logical: dict[str, LogicalVolume], parts: list[tuple[str, Section]]
) -> dict[str, LogicalVolume]:
    """A snapshot is a hidden volume that names two others: its store has only the differences, and
    while it is merged, what it is merged into is changed only in part."""
    for _, part in parts:
        for inner in part.values():
            if not isinstance(inner, dict) or inner.get("type") != "snapshot":
                continue
            origin = inner.get("origin")
            store = inner.get("cow_store", inner.get("merging_store"))
            if not isinstance(origin, str) or not isinstance(store, str):
                raise GuestDamaged("LVM2 metadata have a snapshot of nothing")
            why = {store: f"a snapshot of {_named(origin)}, kept as its differences, is not read"}
            if "merging_store" in inner:
                why[origin] = "a snapshot is being merged into it, which is not read"
            for name in why.keys() & logical.keys():
                logical[name] = replace(logical[name], problem=why[name])
    return logical


def _sections(part: Section, key: str) -> list[tuple[str, Section]]:
    inner = part.get(key, {})
    if not isinstance(inner, dict):
        raise GuestDamaged(f"LVM2 metadata have no section {key}")
    return [(name, value) for name, value in inner.items() if isinstance(value, dict)]


def _number(part: Section, key: str, at_least: int = 0) -> int:
    value: Value | Section | None = part.get(key)
    if not isinstance(value, int) or not at_least <= value < _MAX_BYTES // _SECTOR:
        raise GuestDamaged(f"LVM2 metadata have an impossible {key}")
    return value


def _uuid(part: Section) -> str:
    value = part.get("id")
    if not isinstance(value, str) or not _UUID.match(value):
        raise GuestDamaged("LVM2 metadata have something without a UUID")
    return value


def _words(part: Section, key: str) -> frozenset[str]:
    values = part.get(key, [])
    return frozenset(str(value) for value in values) if isinstance(values, list) else frozenset()


def _named(name: str) -> str:
    if not _NAME.match(name):
        raise GuestDamaged(f"LVM2 metadata have the impossible name {name[:40]!r}")
    return name
