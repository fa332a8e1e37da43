"""Re-reads all data over time: what is due, or the oldest readings first; remembers where it was.

Decides what is read in which order, how fast and for how long, and what is told in the end. Holds
no lease and holds nobody up: a pack that a collector takes meanwhile is none of its business. What
cannot be read now is tried once more at the end, told, and never marked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import takewhile
from typing import Final

from backpoint_repo.check_report import DamagedObject
from backpoint_repo.errors import ObjectDamaged, RepositoryError, UnknownFormat
from backpoint_repo.exclusions import Exclusions, read_exclusions
from backpoint_repo.format import Kind, object_key
from backpoint_repo.in_threads import THREADS, in_threads
from backpoint_repo.index import pack_sizes
from backpoint_repo.index_segment import PackRef
from backpoint_repo.phase_progress import PhaseProgress, Silent
from backpoint_repo.repository import Repository
from backpoint_repo.scrubbing.harm import (
    BadCopies,
    Harm,
    StoredPoints,
    find_harm,
    good_view,
    load_points,
    packs_in_trash,
)
from backpoint_repo.scrubbing.pace import Pace
from backpoint_repo.scrubbing.pack_reader import (
    PackReader,
    PackVerdict,
    verdict_without_directory,
)
from backpoint_repo.scrubbing.plan import plan_scrub
from backpoint_repo.scrubbing.reading_book import ReadingBook, closest_depth
from backpoint_repo.scrubbing.readings import COMPARED, OPENED, PackAges, ages_of
from backpoint_repo.scrubbing.scrub_log import ScrubLog
from backpoint_repo.scrubbing.scrub_report import ScrubReport, ScrubTerms
from backpoint_repo.scrubbing.spare_reader import read_spare, spare_sizes

_GIVE_UP_AFTER: Final = 32
"""Packs in a row that cannot be read now: the store has gone, and each further one would only wait
for it."""


class Scrub:
    """One run: `read`, then `report`. For one thread, which hands packs to others."""

    def __init__(
        self,
        repository: Repository,
        terms: ScrubTerms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Find out what is to be read. monotonic: seconds. Raises what listing packs and loading
        the index raise."""
        self._repository = repository
        self._terms = terms
        self._monotonic = monotonic
        self._stop = threading.Event()
        self._advance: Callable[[int], None] = lambda _: None
        self._advancing = threading.Lock()
        sealed = repository.sealed
        self._pace = Pace(terms.rate, monotonic, self._stop.wait) if terms.rate else None
        self._reader = PackReader(sealed, repository.nodes, repository.chunks, self._take)
        repository.index.refresh()
        self._sizes = dict(pack_sizes(sealed)) | dict(spare_sizes(sealed))
        trashed, self._trouble = packs_in_trash(sealed)
        self._marks = _marks(repository)
        self._book = ReadingBook(sealed, self._sizes.keys() - trashed, repository.clock())
        self._log = ScrubLog(repository, self._book, self._marks.damaged, terms, monotonic)
        self._plan = self._due(oldest_first=terms.oldest_first)
        self._ends_at: float | None = None
        self._unread: dict[PackRef, str] = {}
        self._failed_in_a_row = 0
        self.planned_bytes = sum(self._sizes[pack] for pack in self._plan)
        """Of the packs that are to be read; not all of them are when time runs out."""

    def read(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """Read packs and note what is found, until all is done or time is over.

        advance: called with the bytes read since the last call. Whatever ends it, what was read is
        remembered.
        """
        self._advance = advance
        if self._terms.for_s is not None:
            self._ends_at = self._monotonic() + self._terms.for_s
        try:
            if self._read_packs(self._plan):
                self._read_packs(list(self._unread))
        finally:
            self._log.save()

    def report(self, progress: PhaseProgress | None = None) -> ScrubReport:
        """What was found, and whom it hurts; walks the trees of all points only where something is
        wrong. Raises what listing raises."""
        bad_copies = dict.fromkeys(self._marks.damaged, "it was marked as damaged before")
        bad_copies |= self._log.bad_copies
        stored, harm = self._find_harm(bad_copies, progress or Silent())
        return ScrubReport(
            packs=self._log.packs,
            read_bytes=self._log.read_bytes,
            damaged=(*stored.broken, *self._damaged(harm)),
            hurt=harm.hurt,
            unreadable=(*self._unread.values(), *stored.blocked, *harm.unreadable),
            marked=self._log.marked,
            due=sum(1 for pack in self._due(oldest_first=False) if pack not in self._log.gone),
            ages=self._ages(),
            notes=tuple(self._notes()),
        )

    def _due(self, *, oldest_first: bool) -> list[PackRef]:
        readings, every_s = self._book.readings, self._terms.every_s
        last_good = readings.last_good(closest_depth(self._repository.sealed))
        now = self._repository.clock()
        return plan_scrub(readings.packs, last_good, now, every_s, oldest_first)

    def _ages(self) -> PackAges:
        readings = self._book.readings
        last_good = readings.last_good(closest_depth(self._repository.sealed))
        there = [at for at, pack in enumerate(readings.packs) if pack not in self._log.gone]
        return ages_of(last_good[there])

    def _read_packs(self, packs: Sequence[PackRef]) -> bool:
        """Whether there is still a store to read from."""
        in_time = takewhile(lambda _: not self._is_over(), packs)
        jobs = (partial(self._read_pack, pack) for pack in in_time)
        threads = max(THREADS, self._repository.sealed.store.lanes)
        with closing(in_threads(jobs, self._stop.set, threads)) as verdicts:
            return all(self._goes_on(verdict) for verdict in verdicts)

    def _goes_on(self, verdict: PackVerdict | None) -> bool:
        """Note what became of a pack. None: time was over before it was begun."""
        if verdict is None:
            return True  # others are still being read
        pack = verdict.pack
        depth = OPENED if self._reader.opens(pack) else COMPARED
        self._log.note(verdict, self._sizes[pack], depth)
        self._unread.pop(pack, None)
        if verdict.unreadable is None:
            self._failed_in_a_row = 0
        else:
            self._unread[pack] = verdict.unreadable
            self._failed_in_a_row += 1
        return self._failed_in_a_row < _GIVE_UP_AFTER

    def _read_pack(self, pack: PackRef) -> PackVerdict | None:
        """On a worker thread. None: it was too late to begin."""
        if self._is_over():
            return None
        verdict = self._verdict(pack)
        if verdict.whole:
            self._take(self._sizes[pack] - verdict.read_bytes)  # the directory
        return verdict

    def _is_over(self) -> bool:
        ends_at = self._ends_at
        return self._stop.is_set() or (ends_at is not None and self._monotonic() >= ends_at)

    def _verdict(self, pack: PackRef) -> PackVerdict:
        if pack.kind is Kind.PARITY:
            return read_spare(self._repository.sealed, pack, self._take)
        try:
            directory = self._reader.directory(pack)
        except RepositoryError as error:
            return verdict_without_directory(pack, error)
        return self._reader.read(pack, directory)

    def _take(self, size: int) -> None:
        """On a worker thread, before so many bytes are read."""
        if self._pace is not None:
            self._pace.take(size)
        if self._stop.is_set():
            raise _Abandoned
        with self._advancing:
            self._advance(size)

    def _find_harm(
        self, bad_copies: BadCopies, progress: PhaseProgress
    ) -> tuple[StoredPoints, Harm]:
        if not good_view(self._repository, bad_copies).has_losses():
            return StoredPoints(), Harm()
        stored = load_points(self._repository.sealed)
        return stored, find_harm(self._repository, stored.points, bad_copies, progress)

    def _damaged(self, harm: Harm) -> Iterator[DamagedObject]:
        """Found now, and what was known to be damaged or is missing and hurts a point."""
        hurting = {pack: why for (_, pack), why in harm.hurting.items()}
        for pack, found in sorted(self._log.damaged.items()):
            harmless = "" if pack in hurting else "; no point depends on it"
            yield DamagedObject(found.key, found.problem + harmless)
        for pack in sorted(hurting.keys() - self._log.damaged.keys()):
            yield DamagedObject(object_key(pack.kind, pack.name.hex()), hurting[pack])

    def _notes(self) -> Iterator[str]:
        if self._trouble:
            yield self._trouble
        yield from self._marks.unreadable
        yield from self._log.flaky
        yield from self._repository.index.broken_segments
        if self._log.trouble:
            yield (
                f"what was read last could not be noted, so that it will be read again: "
                f"{self._log.trouble}"
            )


class _Abandoned(Exception):
    """A worker ends because the scrub does; nobody waits for what it read."""


def _marks(repository: Repository) -> Exclusions:
    """Copies that were marked before. Without them some are marked twice."""
    with suppress(ObjectDamaged, UnknownFormat):  # of trash, which is told elsewhere
        return read_exclusions(repository.sealed)
    return Exclusions()
