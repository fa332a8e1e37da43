"""Which restore points exist: a listing of point objects, with a summary of each.

The point objects are the truth. Catalogue objects are compacted summaries that save reading a
hundred thousand points one by one; they may be stale or lost, and a point whose object is gone is
gone whatever they say. Names that users type are for `point_selector.py`.
"""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import Any, Final, NamedTuple

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UnknownFormat
from backpoint_repo.format import Kind
from backpoint_repo.point import ORIGIN_SIZE, POINT_ID_SIZE, Point, decode_point, is_calendar_time
from backpoint_repo.record import encode_record
from backpoint_repo.sealed_store import SealedStore

COMPACT_AFTER: Final = 64
"""Points without a catalogue entry after which a writer adds a catalogue object: reading that many
one by one costs about 10 ms."""
MERGE_AFTER: Final = 16
"""Catalogue objects after which a writer merges them all."""


_COLUMNS: Final = (bytes, str, float, float, int, str, int, int, int, int, int, bool, bytes)
"""Types of a catalogue row, which is a PointSummary."""
_LATER_COLUMNS: Final = (False, b"")
"""The last ones, for rows of programs that did not know them."""


class PointSummary(NamedTuple):
    """What a listing needs of a point; sizes in bytes, times in seconds since 1970. branch,
    origin: see `Point`."""

    point_id: bytes
    vm: str
    time: float
    created: float
    generation: int
    label: str
    disks: int
    size: int
    allocated: int
    stored: int
    warnings: int
    branch: bool = False
    origin: bytes = b""


_ORDER: Final = attrgetter("vm", "time", "generation", "created", "point_id")


class Catalog:
    """Thread-safe."""

    def __init__(self, sealed: SealedStore) -> None:
        self._sealed = sealed
        self._lock = threading.Lock()
        self._known: dict[str, PointSummary | None] = {}
        self._covered: set[str] = set()
        self._objects: set[str] = set()
        self.broken: dict[str, str] = {}

    def refresh(self) -> list[PointSummary]:
        """All points, by VM and time. A point object that cannot be read is listed in `broken`."""
        with self._lock:
            present = set(self._sealed.names(Kind.POINT))
            for gone in self._known.keys() - present:
                del self._known[gone]
            self.broken = {name: why for name, why in self.broken.items() if name in present}
            if len(present - self._known.keys()) > COMPACT_AFTER:
                self._load_objects()
            self._read(present - self._known.keys())
            points = [point for name in present if (point := self._known.get(name)) is not None]
        return sorted(points, key=_ORDER)

    def gone(self) -> list[str]:
        """Names that a catalogue object lists and that are no longer there: removed, or lost."""
        with self._lock:
            self._load_objects()
            return sorted(self._covered - set(self._sealed.names(Kind.POINT)))

    def lies(self, points: Iterable[Point]) -> list[str]:
        """Names of those of these points that a catalogue object lists otherwise than they are."""
        fresh = Catalog(self._sealed)
        fresh._load_objects()
        # Programs that knew fewer columns have not lied.
        told = len(_COLUMNS) - len(_LATER_COLUMNS)
        found = []
        for point in points:
            claim = fresh._known.get(point.point_id.hex(), true := summarize(point))
            if claim is None or claim[:told] != true[:told]:
                found.append(point.point_id.hex())
        return sorted(found)

    def compact(self) -> None:
        """Add a catalogue object where many points have none; merge where there are many."""
        with self._lock:
            self._load_objects()
            there = set(self._sealed.names(Kind.POINT))
            present = {name for name in self._known.keys() & there if name not in self.broken}
            bare = present - self._covered
            old = set(self._objects)
            if len(old) >= MERGE_AFTER:
                self._write(present)
                for name in old:
                    self._sealed.delete(Kind.CATALOG, name)
                self._objects -= old
            elif len(bare) > COMPACT_AFTER:
                self._write(bare)

    def forget(self, removed: Collection[str]) -> None:
        """Write the catalogue anew without points that have been removed, so that `gone` tells of
        lost ones only. Where others are gone, too, nothing is done: nobody has noticed them yet."""
        with self._lock:
            self._load_objects()
            there = set(self._sealed.names(Kind.POINT))
            gone = self._covered - there
            if not gone or not gone <= set(removed):
                return
            present = {name for name in self._known.keys() & there if name not in self.broken}
            old = set(self._objects)
            self._covered = set()
            self._write(present)
            for name in old:
                self._sealed.delete(Kind.CATALOG, name)
            self._objects -= old

    def _write(self, names: set[str]) -> None:
        rows: list[list[Any]] = []
        for name in sorted(names):
            summary = self._known[name]
            rows.append([bytes.fromhex(name)] if summary is None else list(summary))
        own_name = secrets.token_hex(16)
        self._sealed.put(Kind.CATALOG, own_name, encode_record({"points": rows}))
        self._objects.add(own_name)
        self._covered |= names

    def _load_objects(self) -> None:
        fresh = set(self._sealed.names(Kind.CATALOG)) - self._objects
        for name, rows in self._sealed.each(fresh, self._rows):
            if isinstance(rows, (ObjectMissing, ObjectDamaged, UnknownFormat)):
                continue  # only a cache: the points themselves are read instead
            if isinstance(rows, RepositoryError):
                raise rows
            self._objects.add(name)
            for point_name, summary in rows:
                self._covered.add(point_name)
                self._known.setdefault(point_name, summary)

    def _rows(self, name: str) -> list[tuple[str, PointSummary | None]]:
        record = self._sealed.get_record(Kind.CATALOG, name)
        return [_summary_of(row) for row in record.items("points", list)]

    def _read(self, names: Iterable[str]) -> None:
        for name, found in self._sealed.each(names, self._summary):
            if isinstance(found, ObjectMissing):
                continue  # removed between listing and reading
            if isinstance(found, (ObjectDamaged, UnknownFormat)):
                self.broken[name] = str(found)
            elif isinstance(found, RepositoryError):
                raise found
            else:
                self._known[name] = found

    def _summary(self, name: str) -> PointSummary | None:
        try:
            point_id = bytes.fromhex(name)
        except ValueError as error:
            raise ObjectDamaged(f"points/{name}: {error}") from None
        point = read_point(self._sealed, point_id)
        return None if point is None else summarize(point)


def read_point(sealed: SealedStore, point_id: bytes) -> Point | None:
    """The point, or None where a collector revoked the session before it published.

    Raises ObjectMissing, ObjectDamaged, UnknownFormat.
    """
    if len(point_id) != POINT_ID_SIZE:
        raise ObjectDamaged(f"points/{point_id.hex()}: not a point's name")
    kind, payload = sealed.get_either(point_id.hex(), Kind.POINT, Kind.VOID)
    return None if kind is Kind.VOID else decode_point(point_id, payload)


def summarize(point: Point) -> PointSummary:
    """What a listing shows of a point."""
    return PointSummary(
        point.point_id,
        sys.intern(point.vm),
        point.time,
        point.created,
        point.generation,
        point.label,
        len(point.disks),
        point.size,
        point.allocated,
        point.traffic.stored,
        len(point.warnings),
        point.branch,
        point.origin,
    )


def _summary_of(row: list[Any]) -> tuple[str, PointSummary | None]:
    if len(row) == 1 and isinstance(row[0], bytes):
        return row[0].hex(), None
    # A later minor version may append columns; what this one knows comes first.
    known = [*row, *_LATER_COLUMNS[len(row) - len(_COLUMNS) :]][: len(_COLUMNS)]
    if tuple(map(type, known)) != _COLUMNS:
        raise ObjectDamaged("a catalogue row has the wrong shape")
    known[1] = sys.intern(known[1])
    summary = PointSummary(*known)
    if not is_calendar_time(summary.time) or not is_calendar_time(summary.created):
        raise ObjectDamaged("a catalogue row is of no time that a calendar knows")
    if len(summary.origin) not in (0, ORIGIN_SIZE):
        raise ObjectDamaged("a catalogue row names an impossible origin")
    return summary.point_id.hex(), summary
