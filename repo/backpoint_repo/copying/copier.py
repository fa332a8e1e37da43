"""Points from one repository to another, one after the other: chooses how, survives what ails one.

Decides which way of copying suits the keys, which point each one stands on, which troubles are of
one point and which of a place, and that what is there already is never copied again. Which points
are wanted is decided in `plan.py`.
"""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass
from enum import Enum
from typing import Final

from backpoint_repo.catalog import PointSummary, summarize
from backpoint_repo.config import read_config
from backpoint_repo.copying.contract import Base, Copied, CopyPoint, Watch
from backpoint_repo.copying.origin import identity_of
from backpoint_repo.copying.plan import Stock, base_of
from backpoint_repo.copying.resealed import Resealing
from backpoint_repo.copying.verbatim import copy_point_verbatim
from backpoint_repo.copying.verify import verify_copy
from backpoint_repo.copying.verify_content import Pair
from backpoint_repo.errors import (
    NotARepository,
    ObjectDamaged,
    ObjectMissing,
    OwnerKeyNeeded,
    RepositoryError,
    SessionRevoked,
    SourceError,
    StoreDenied,
    StoreFull,
    StoreMisconfigured,
    StoreReadOnly,
    StoreUnavailable,
    UnknownFormat,
    UsageError,
)
from backpoint_repo.point import Point
from backpoint_repo.reading import reading
from backpoint_repo.replica import same_keys
from backpoint_repo.repository import Repository
from backpoint_repo.retention.removal import remove_points

_DAMAGE: Final = (ObjectDamaged, ObjectMissing, UnknownFormat)
_OF_THE_POINT: Final = (*_DAMAGE, SourceError, UsageError)
_OF_A_PLACE: Final = (StoreDenied, StoreFull, StoreMisconfigured, StoreReadOnly)
_LOOK_EVERY_S: Final = 60.0


class Fate(Enum):
    """What became of one point."""

    COPIED = "copied"
    THERE = "there already"
    GONE = "removed meanwhile"
    DAMAGED = "cannot be read"
    DIFFERS = "differs"
    UNREACHED = "not reached"


@dataclass(frozen=True)
class Outcome:
    """point: the original. why: a sentence each, where it is not well. copied: also of a copy that
    differs."""

    point: PointSummary
    fate: Fate
    copied: Copied | None = None
    why: tuple[str, ...] = ()


class Copier:
    """For one thread. Both repositories are open; catalogues are read by `look`."""

    def __init__(self, source: Repository, target: Repository, *, verify: bool = False) -> None:
        """verify: read every copy back and compare. Raises UsageError where both are one place,
        OwnerKeyNeeded."""
        if _same_place(source, target):
            raise UsageError(f"{target.sealed.store.address} is the repository to be copied")
        self._source, self._target = source, target
        self._verify = verify
        self._way = _way(source, target, verify=verify)
        self.source = Stock(source.config.repository_id, ())
        self.target = Stock(target.config.repository_id, ())
        self._siblings: dict[str, list[PointSummary]] = {}
        self._there: dict[bytes, bytes] = {}
        self._read: dict[bytes, PointSummary] = {}
        self._looked = -math.inf
        self._verified: dict[str, Pair] = {}
        """Of each VM the last copy found good: what the next shares with it is not read again."""

    def look(self) -> None:
        """Learn which points there are in either. Raises what a store raises."""
        _make_sure(self._source)
        self.source = Stock(self.source.repository_id, self._source.catalog.refresh())
        self._siblings = self.source.by_vm()
        self._look_there()

    @property
    def unreadable(self) -> dict[str, str]:
        """Points of the source that cannot even be listed, and why."""
        return dict(self._source.catalog.broken)

    def copy(self, summary: PointSummary, watch: Watch) -> Outcome:
        """One point, and never a half one. The watch gets all bytes of its disks, and once more
        where they are verified.

        Raises StoreUnavailable where nothing more can be copied, KeyFault.
        """
        try:
            if self._source.clock() - self._looked > _LOOK_EVERY_S:
                self._look_there()  # somebody else may be copying, too
            point = self._source.point(summary.point_id)
            identity = identity_of(self.source.repository_id, point)
            if identity in self._there:
                return Outcome(summary, Fate.THERE)
            with reading(self._source, point, watch.tell):
                base = self._base(point)
                copied = self._way(self._source, self._target, point, base, watch)
                self._there[identity] = copied.point.point_id
                return self._judged(summary, copied, watch)
        except _OF_THE_POINT as error:
            if self._is_gone(summary):
                return Outcome(summary, Fate.GONE)
            return Outcome(summary, Fate.DAMAGED, why=(str(error),))
        except SessionRevoked as error:
            return Outcome(summary, Fate.UNREACHED, why=(str(error),))
        except StoreUnavailable as error:
            # One pack of a sick disk must not keep all other points from being copied.
            if isinstance(error, _OF_A_PLACE) or not self._both_answer():
                raise
            return Outcome(summary, Fate.UNREACHED, why=(str(error),))

    def _look_there(self) -> None:
        _make_sure(self._target)
        points = self._target.catalog.refresh()
        self.target = Stock(self.target.repository_id, points)
        self._there = self.target.by_identity()
        # Rows of programs that know no copies do not tell whose copy a point is.
        missing = (p for p in self.source.points if self.source.identity(p) not in self._there)
        alike = {(point.vm, point.time) for point in missing}
        unsure = [p for p in points if not p.origin and (p.vm, p.time) in alike]
        sure = {point.point_id: self._surely(point) for point in unsure}
        if any(point.origin for point in sure.values()):
            points = [sure.get(point.point_id, point) for point in points]
            self.target = Stock(self.target.repository_id, points)
            self._there = self.target.by_identity()
        self._looked = self._source.clock()

    def _surely(self, point: PointSummary) -> PointSummary:
        if point.point_id not in self._read:
            try:
                self._read[point.point_id] = summarize(self._target.point(point.point_id))
            except _DAMAGE:
                return point
        return self._read[point.point_id]

    def _base(self, point: Point) -> Base | None:
        siblings = self._siblings.get(point.vm, [])
        copies = {one.point_id: self._there.get(self.source.identity(one)) for one in siblings}
        if point.parent:  # which may be another VM's
            by_default = self._there.get(self.source.repository_id + point.parent)
            copies.setdefault(point.parent, by_default)
        there = {original: copy for original, copy in copies.items() if copy is not None}
        original = base_of(point.point_id, point.parent, siblings, there)
        return None if original is None else Base(original, there[original])

    def _judged(self, summary: PointSummary, copied: Copied, watch: Watch) -> Outcome:
        if not self._verify:
            return Outcome(summary, Fate.COPIED, copied)
        with reading(self._target, copied.point, watch.tell):
            shown = _ReadBack(watch)
            both = copied.original, copied.point
            beside = self._verified.get(copied.point.vm)
            why = verify_copy(self._source, self._target, *both, shown, watch.tell, beside)
        if not why:
            self._verified[copied.point.vm] = Pair(*both)
            return Outcome(summary, Fate.COPIED, copied)
        return Outcome(summary, Fate.DIFFERS, copied, (*why, self._taken_back(copied.point)))

    def _taken_back(self, copy: Point) -> str:
        """Nothing is to stand on it, and the next run is not to find it there."""
        self._there = {
            own: point_id for own, point_id in self._there.items() if point_id != copy.point_id
        }
        there = self._target.sealed.store.address
        advice = f"`backpoint -r {there} check --read-data` marks what is rotten; then copy again"
        try:
            removal = remove_points(self._target.sealed, [copy.point_id], self._target.clock)
        except RepositoryError as error:
            return f"the copy {copy.point_id.hex()} is wrong and stays, for {error}; {advice}"
        spared = removal.spared.get(copy.point_id)
        if spared:
            return f"the copy {copy.point_id.hex()} is wrong and stays: {spared}; {advice}"
        return f"the copy was removed again; {advice}"

    def _is_gone(self, summary: PointSummary) -> bool:
        """Whether it was removed while it was copied: then what it lacked is no damage."""
        try:
            self._source.point(summary.point_id)
        except ObjectMissing:
            return True
        except (ObjectDamaged, UnknownFormat):
            return False
        return False

    def _both_answer(self) -> bool:
        try:
            _make_sure(self._source)
            _make_sure(self._target)
        except StoreUnavailable:
            return False
        return True


@dataclass(frozen=True)
class _ReadBack:
    """Shows verifying as more of the same bytes. A `PhaseProgress`."""

    watch: Watch

    def phase(self, name: str, total: int) -> None:
        """Every disk is one."""

    def advance(self, steps: int) -> None:
        """Bytes of it."""
        self.watch.advance(steps)


def _way(source: Repository, target: Repository, *, verify: bool) -> CopyPoint:
    if same_keys(source, target):
        return copy_point_verbatim
    there = target.sealed.store.address
    if source.sealed.keyring.owner_private is None:
        raise OwnerKeyNeeded(
            f"{there} has other keys than {source.sealed.store.address}, so what is copied must be "
            "read and sealed anew: that needs the source owner's passphrase or recovery key, and "
            "an agent credential cannot do it"
        )
    if verify and target.sealed.keyring.owner_private is None:
        raise OwnerKeyNeeded(
            f"to verify copies they must be read: that needs the passphrase or recovery key of the "
            f"owner of {there}, and an agent credential cannot do it"
        )
    return Resealing(source)


def _make_sure(repository: Repository) -> None:
    """An empty folder where something was mounted is no empty repository: it is away.

    Raises StoreUnavailable.
    """
    address = repository.sealed.store.address
    try:
        found = read_config(repository.sealed.store).config.repository_id
    except (NotARepository, ObjectDamaged, UnknownFormat) as error:
        raise StoreUnavailable(f"the repository at {address} is away: {error}") from error
    if found != repository.config.repository_id:
        raise StoreUnavailable(f"another repository is at {address} now")


def _same_place(source: Repository, target: Repository) -> bool:
    if source.config.repository_id != target.config.repository_id:
        return False
    one, other = source.sealed.store.address, target.sealed.store.address
    if one == other:
        return True
    with contextlib.suppress(OSError):  # an address of an object store is no file's
        return os.path.samefile(one, other)
    return False
