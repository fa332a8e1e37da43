"""What a scrub has found so far, and how it is remembered: marks first, then readings.

Written now and then, so that a scrub that is killed reads little twice. In this order, because a
reading says of every copy in its pack that it was good, or is marked. What cannot be written now is
kept and tried again with the next; a store that cannot be written at all is no reason not to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from backpoint_repo.check_report import DamagedObject
from backpoint_repo.errors import BackpointError
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index_segment import IndexTable, PackRef
from backpoint_repo.repository import Repository
from backpoint_repo.scrubbing.pack_reader import PackVerdict
from backpoint_repo.scrubbing.reading_book import ReadingBook
from backpoint_repo.scrubbing.readings import row_of, rows_of
from backpoint_repo.scrubbing.scrub_report import ScrubTerms


class ScrubLog:
    """For one thread. packs, read_bytes: read in full. damaged: pack -> what is wrong with it.
    bad_copies: (content id, pack) -> reason. gone: packs that were removed meanwhile. flaky: what
    read wrong once and right the second time. marked: copies newly marked. trouble: why the last
    attempt to write failed, else empty."""

    def __init__(
        self,
        repository: Repository,
        book: ReadingBook,
        known: Iterable[tuple[bytes, PackRef]],
        terms: ScrubTerms,
        monotonic: Callable[[], float],
    ) -> None:
        """known: copies that are marked already."""
        self._repository = repository
        self._book = book
        self._on_record = set(known)
        self._terms = terms
        self._monotonic = monotonic
        self._pending: list[tuple[bytes, float, int]] = []
        self._pending_bytes = 0
        self._saved_at = monotonic()
        self.packs = 0
        self.read_bytes = 0
        self.damaged: dict[PackRef, DamagedObject] = {}
        self.bad_copies: dict[tuple[bytes, PackRef], str] = {}
        self.gone: set[PackRef] = set()
        self.flaky: list[str] = []
        self.marked = 0
        self.trouble = ""

    def note(self, verdict: PackVerdict, size: int, depth: int) -> None:
        """One pack was looked at. size: its bytes; depth: how closely it was read."""
        if verdict.gone:
            self.gone.add(verdict.pack)
            return
        self.flaky += verdict.flaky
        self._note_damage(verdict)
        if verdict.unreadable is None:
            self.packs += 1
            self.read_bytes += size
            self._pending_bytes += size
        # A spare has no copies that could be marked: a wrong one is due until it is replaced.
        if verdict.whole or (verdict.lost is not None and verdict.pack.kind is not Kind.PARITY):
            self._pending.append(row_of(verdict.pack, self._repository.clock(), depth))
        late = self._monotonic() - self._saved_at >= self._terms.save_s
        if late or self._pending_bytes >= self._terms.save_bytes:
            self.save()

    def save(self) -> None:
        """Write what was found since the last time."""
        self._pending_bytes, self._saved_at = 0, self._monotonic()
        fresh = self.bad_copies.keys() - self._on_record
        now = self._repository.clock()
        try:
            if fresh:
                mark_damaged(self._repository.sealed, fresh, now)
                self._on_record |= fresh
                self.marked += len(fresh)
            if self._pending:
                self._book.add(rows_of(self._pending), now)
                self._pending = []
            self._book.tidy()
        except BackpointError as error:
            self.trouble = str(error)
        else:
            self.trouble = ""

    def _note_damage(self, verdict: PackVerdict) -> None:
        if not verdict.problem:
            return
        pack, bad = verdict.pack, verdict.bad
        if verdict.lost is not None:
            tables = self._repository.index.tables()
            bad = dict.fromkeys(_indexed_in(pack, tables), verdict.lost)
        key = object_key(pack.kind, pack.name.hex())
        self.damaged[pack] = DamagedObject(key, verdict.problem)
        self.bad_copies.update({(content_id, pack): why for content_id, why in bad.items()})


def _indexed_in(pack: PackRef, tables: Iterable[IndexTable]) -> Iterator[bytes]:
    """Ids that the index places in a pack whose directory cannot be believed."""
    for table in tables:
        if pack in table.packs:
            rows = np.flatnonzero(table.pack_numbers == table.packs.index(pack))
            yield from (row.tobytes() for row in table.ids(rows))
