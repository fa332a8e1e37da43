"""Which restore points exist: a listing of point objects, with a summary of each.

The point objects are the truth. Catalogue objects are compacted summaries that save reading a
hundred thousand points one by one; they may be stale or lost, and a point whose object is gone is
gone whatever they say. Names that users type are for `point_selector.py`.
"""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Collection, Iterable, Set
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final, NamedTuple

from backpoint_repo.catalog_merge import COMPACT_AFTER, ROWS_MAX, plan_merges
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UnknownFormat
from backpoint_repo.format import FOLDERS, Kind
from backpoint_repo.point import ORIGIN_SIZE, POINT_ID_SIZE, Point, decode_point, is_calendar_time
from backpoint_repo.record import encode_record
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.store.cached_store import beneath
from backpoint_repo.store_rights import may_delete

_VOID_MAX: Final = 128
"""Bytes of a stored VOID, which has 96, and of no point: the names of its fields alone are more."""
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
        self._present: set[str] | None = None
        self._tiny: set[str] = set()
        self._objects: dict[str, frozenset[str]] = {}
        self.broken: dict[str, str] = {}

    def refresh(self) -> list[PointSummary]:
        """All points, by VM and time. A point object that cannot be read is listed in `broken`."""
        with self._lock:
            folder = f"{FOLDERS[Kind.POINT]}/"
            sizes = {
                key.removeprefix(folder): size for key, size in self._sealed.store.list(folder)
            }
            self._present = present = set(sizes)
            self._tiny = {name for name, size in sizes.items() if size <= _VOID_MAX}
            for gone in self._known.keys() - present:
                del self._known[gone]
            self.broken = {name: why for name, why in self.broken.items() if name in present}
            if len(present - self._known.keys()) > COMPACT_AFTER:
                self._load_objects()
            for name in self._tiny:
                if self._known.get(name) is not None:
                    del self._known[name]  # it was a point, and a VOID was put in its place
            self._read(present - self._known.keys())
            points = [point for name in present if (point := self._known.get(name)) is not None]
        return sorted(points, key=_ORDER)

    def add(self, point: Point) -> None:
        """Know a point that was just published, without listing all others once more."""
        with self._lock:
            name = point.point_id.hex()
            self._known[name] = summarize(point)
            if self._present is not None:
                self._present.add(name)

    def gone(self) -> list[str]:
        """Names that a catalogue object lists and that are no longer there: removed, or lost."""
        with self._lock:
            self._load_objects()
            return sorted(self._covered() - set(self._sealed.names(Kind.POINT)))

    def lies(self, points: Iterable[Point]) -> list[str]:
        """Names of those of these points that a catalogue object lists otherwise than they are."""
        fresh = Catalog(self._sealed)
        fresh._load_objects()
        found = []
        for point in points:
            claim = fresh._known.get(point.point_id.hex(), true := summarize(point))
            if claim is None or not _is_so(claim, true):
                found.append(point.point_id.hex())
        return sorted(found)

    def compact(self) -> None:
        """Add a catalogue object where many points have none, of those that the last `refresh` saw
        or that were added; then merge objects of similar size, where they are many and this
        credential may delete."""
        with self._lock:
            self._load_objects()
            if len(self._readable() - self._covered()) > COMPACT_AFTER:
                self._look_again()
                bare = self._readable() - self._covered()
                if len(bare) > COMPACT_AFTER:
                    self._write(bare)
            groups = plan_merges({name: len(listed) for name, listed in self._objects.items()})
            if groups and may_delete(self._sealed):
                self._look_again()
                for group in groups:
                    self._replace(group, self._readable())

    def complete(self) -> None:
        """Add catalogue objects for all points that have none, of those that the last `refresh`
        saw, however few they are: for who writes last to a place."""
        with self._lock:
            self._load_objects()
            self._write(self._readable() - self._covered())

    def forget(self, removed: Collection[str]) -> None:
        """Write anew what lists points that have been removed, so that `gone` tells of lost ones
        only. Where others are gone, too, nothing is done: nobody has noticed them yet."""
        with self._lock:
            self._load_objects()
            there = set(self._sealed.names(Kind.POINT))
            covered = self._covered()
            gone = covered - there
            if not gone or not gone <= set(removed):
                return
            readable = (self._known.keys() & there) - self.broken.keys()
            stale = [name for name, listed in self._objects.items() if listed & gone]
            self._replace(stale, readable, bare=readable - covered)

    def _look_again(self) -> None:
        """Before anything is written: a backup lists points when it begins, hours ago. A row of one
        that was removed since would tell of a lost point, and what came since would be left out."""
        self._present = set(self._sealed.names(Kind.POINT))

    def _readable(self) -> Set[str]:
        """Of the points that were seen last, or added, those that are known."""
        if self._present is None:
            self._look_again()
        assert self._present is not None
        return (self._known.keys() & self._present) - self.broken.keys()

    def _replace(
        self, group: Iterable[str], readable: Set[str], bare: Set[str] = frozenset()
    ) -> None:
        """One object, or few large ones, for a group, with `bare` points. What is not readable is
        left out."""
        old = list(group)
        listed = frozenset[str]().union(*map(self._objects.__getitem__, old))
        self._write((listed & readable) | bare)
        for name in old:
            self._sealed.delete(Kind.CATALOG, name)
            del self._objects[name]

    def _write(self, names: Collection[str]) -> None:
        ordered = sorted(names)
        for start in range(0, len(ordered), ROWS_MAX):
            chosen = ordered[start : start + ROWS_MAX]
            rows: list[list[Any]] = []
            for name in chosen:
                summary = self._known[name]
                rows.append([bytes.fromhex(name)] if summary is None else list(summary))
            own_name = secrets.token_hex(16)
            self._sealed.put(Kind.CATALOG, own_name, encode_record({"points": rows}))
            self._objects[own_name] = frozenset(chosen)

    def _covered(self) -> frozenset[str]:
        """Names of points that some catalogue object lists."""
        return frozenset[str]().union(*self._objects.values())

    def _load_objects(self) -> None:
        there = set(self._sealed.names(Kind.CATALOG))
        for gone in self._objects.keys() - there:
            del self._objects[gone]  # what it said is in another
        for name, rows in self._sealed.each(there - self._objects.keys(), self._rows):
            if isinstance(rows, (ObjectMissing, ObjectDamaged, UnknownFormat)):
                continue  # only a cache: the points themselves are read instead
            if isinstance(rows, RepositoryError):
                raise rows
            for point_name, summary in rows:
                self._known.setdefault(point_name, summary)
            self._objects[name] = frozenset(point_name for point_name, _ in rows)

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
        # A cache may still have the point that a VOID has followed.
        read = standing_point if name in self._tiny else read_point
        point = read(self._sealed, point_id)
        return None if point is None else summarize(point)


def read_point(sealed: SealedStore, point_id: bytes) -> Point | None:
    """The point, or None where a collector revoked the session before it published.

    Raises ObjectMissing, ObjectDamaged, UnknownFormat.
    """
    if len(point_id) != POINT_ID_SIZE:
        raise ObjectDamaged(f"points/{point_id.hex()}: not a point's name")
    kind, payload = sealed.get_either(point_id.hex(), Kind.POINT, Kind.VOID)
    return None if kind is Kind.VOID else decode_point(point_id, payload)


def standing_point(sealed: SealedStore, point_id: bytes) -> Point | None:
    """`read_point`, of what is in the store itself at this moment: for who has just pinned or held
    it, and must know whether it was removed before. A cache would still have it."""
    return read_point(replace(sealed, store=beneath(sealed.store)), point_id)


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


def _is_so(claim: PointSummary, true: PointSummary) -> bool:
    """Programs that knew fewer columns have not lied."""
    told = len(_COLUMNS) - len(_LATER_COLUMNS)
    later = zip(claim[told:], true[told:], _LATER_COLUMNS, strict=True)
    return claim[:told] == true[:told] and all(mine in rest for mine, *rest in later)


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
