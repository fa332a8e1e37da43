"""The whole index made anew from pack directories, beside backups and collectors.

Segments that were there at the beginning are deleted when new ones, written after that, hold all
that the packs say; so it is a merger of its own kind (`segment_merge.py`), and safe as one. What
old segments say of packs whose directory cannot be read is taken over: it may be all that is left
to find those blobs by. So is what they say of packs that are gone without having been in trash:
only so the next backups learn that it is lost, and store it again. Memory is that of one segment.
Other caches that are spoiled go, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from backpoint_repo.directory_tables import PackTable, batches, table_of_directory
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    RepositoryError,
    StoreReadOnly,
    StoreUnavailable,
    UnknownFormat,
)
from backpoint_repo.features import refuse_unknown_features
from backpoint_repo.format import HEADER, Kind, object_key, parse_header
from backpoint_repo.in_threads import THREADS, in_threads
from backpoint_repo.index import SEGMENT_ENTRIES_MAX, stored_packs
from backpoint_repo.index_segment import PackRef, merge_tables
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.repository import Repository
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.segment_shelf import put_segment, segment_sizes
from backpoint_repo.spoiled_caches import find_spoiled
from backpoint_repo.store_rights import may_delete
from backpoint_repo.trash import read_trash

_NO_RIGHT: Final = (
    "this credential or store does not allow deleting, and rebuilding the index replaces segments"
)
_LOST: Final = (
    "{} packs are gone that no collector has put into trash; what they held stays listed, so that "
    "the next backups store it again: run `backpoint check`, and `backpoint heal` where it finds "
    "damage"
)


@dataclass(frozen=True)
class RebuildReport:
    """What became of the index; with `dry_run`, what would.

    packs, entries: what is indexed now. written, replaced: segments. damaged: packs whose directory
    is wrong, unreadable: packs that could not be read now, a sentence each; lost: packs that are
    gone and were not in trash, as far as old segments name them; taken_over: entries of all these
    that old segments had. cleared: other caches, (what, why). advice: what is to be done.
    """

    packs: int
    entries: int
    written: int
    replaced: int
    damaged: tuple[str, ...]
    unreadable: tuple[str, ...]
    lost: int
    taken_over: int
    cleared: tuple[tuple[str, str], ...]
    advice: tuple[str, ...]
    dry_run: bool


def rebuild_index(
    repository: Repository, progress: PhaseProgress, *, dry_run: bool = False
) -> RebuildReport:
    """Raises StoreReadOnly where nothing may be deleted, UnknownFormat where only a newer program
    may write, StoreUnavailable; the index is then at least what it was."""
    sealed = repository.sealed
    if not dry_run:
        refuse_unknown_features(sealed.store)
        if not may_delete(sealed):
            raise StoreReadOnly(_NO_RIGHT)
    # Before packs are listed: what a segment of these says lies in packs that were there by then.
    old, foreign = _replaceable(sealed)
    work = _Rebuild(repository, progress, dry_run)
    trashed = _trashed(sealed)
    work.index_packs(sorted(stored_packs(sealed)))
    work.take_over(old, trashed | _trashed(sealed))
    cleared, advice = _clear(repository, dry_run)
    if not dry_run:
        for name in old:
            sealed.delete(Kind.INDEX, name)
    return RebuildReport(
        packs=work.packs,
        entries=work.entries,
        written=work.written,
        replaced=len(old),
        damaged=tuple(work.damaged),
        unreadable=tuple(work.unreadable),
        lost=len(work.lost),
        taken_over=work.taken_over,
        cleared=cleared,
        advice=(*foreign, *((_LOST.format(len(work.lost)),) if work.lost else ()), *advice),
        dry_run=dry_run,
    )


class _Rebuild:
    """One pass over all packs. Counts."""

    def __init__(self, repository: Repository, progress: PhaseProgress, dry_run: bool) -> None:
        self._sealed = repository.sealed
        self._shelf = repository.index.shelf
        self._progress = progress
        self._dry_run = dry_run
        self._not_read: set[PackRef] = set()
        self._read: set[PackRef] = set()
        self.lost: set[PackRef] = set()
        self.packs = self.entries = self.written = self.taken_over = 0
        self.damaged: list[str] = []
        self.unreadable: list[str] = []

    def index_packs(self, packs: list[PackRef]) -> None:
        """Put segments of what directories say."""
        self._progress.phase("packs", len(packs))
        for batch in batches(self._tables(packs), SEGMENT_ENTRIES_MAX):
            self._put(batch)

    def take_over(self, old: list[str], trashed: Collection[PackRef]) -> None:
        """Put segments of what old ones say of packs that were not read, but for those that a
        collector has deleted."""
        self._progress.phase("old segments", len(old))
        before = self.entries
        for batch in batches(self._old_tables(old, trashed), SEGMENT_ENTRIES_MAX):
            self._put(batch)
        self.taken_over = self.entries - before

    def _put(self, batch: list[PackTable]) -> None:
        union = merge_tables([table for _, table in batch])
        if len(union) and not self._dry_run:
            put_segment(self._sealed, union)
        self.written += bool(len(union))
        self.entries += len(union)

    def _tables(self, packs: list[PackRef]) -> Iterator[PackTable]:
        jobs = (partial(_read, self._sealed, pack) for pack in packs)
        for pack, found in in_threads(jobs, threads=max(THREADS, self._sealed.store.lanes)):
            self._progress.advance(1)
            if isinstance(found, PackTable):
                self.packs += 1
                self._read.add(pack)
                yield found
            elif not isinstance(found, ObjectMissing):  # which a collector has deleted meanwhile
                self._not_read.add(pack)
                told = self.unreadable if isinstance(found, StoreUnavailable) else self.damaged
                told.append(_told(pack, found))

    def _old_tables(self, old: list[str], trashed: Collection[PackRef]) -> Iterator[PackTable]:
        for name in old:
            self._progress.advance(1)
            try:
                table = self._shelf.read(name)
            except (ObjectMissing, ObjectDamaged, UnknownFormat):
                continue
            named = frozenset(table.packs) - self._read
            lost = named - self._not_read - frozenset(trashed)
            self.lost |= lost
            left = table.without(frozenset(table.packs) - self._not_read - lost)
            if len(left):
                yield PackTable(left.packs[0], left)


def _read(sealed: SealedStore, pack: PackRef) -> tuple[PackRef, PackTable | RepositoryError]:
    """On a worker thread."""
    try:
        directory = sealed.directory(pack.kind, pack.name)
    except (ObjectMissing, ObjectDamaged, UnknownFormat, StoreUnavailable) as error:
        return pack, error
    return pack, PackTable(pack, table_of_directory(pack, directory))


def _trashed(sealed: SealedStore) -> frozenset[PackRef]:
    """Packs that may go. What is not known to be in trash is listed rather than forgotten."""
    try:
        return read_trash(sealed).packs
    except (ObjectDamaged, UnknownFormat):
        return frozenset()


def _told(pack: PackRef, error: RepositoryError) -> str:
    key, text = object_key(pack.kind, pack.name.hex()), str(error)
    return text if key in text else f"{key}: {text}"


def _replaceable(sealed: SealedStore) -> tuple[list[str], list[str]]:
    """Names of the segments that may go, and sentences on those that a newer program wrote."""
    names, foreign = [], []
    for name in sorted(segment_sizes(sealed)):
        key = object_key(Kind.INDEX, name)
        try:
            parse_header(sealed.store.get_range(key, 0, HEADER.size), key)
        except ObjectMissing:
            continue
        except ObjectDamaged:
            pass  # it is replaced, whatever it was
        except UnknownFormat as error:
            foreign.append(f"left as it is: {error}")
            continue
        names.append(name)
    return names, foreign


def _clear(
    repository: Repository, dry_run: bool
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """(what, why) of each spoiled cache that was deleted, and what the user should know of it."""
    sealed = repository.sealed
    cleared, advice = [], dict[str, None]()
    found = find_spoiled(sealed, lambda: set(stored_packs(sealed)), repository.clock())
    for spoiled in found:
        if not dry_run:
            spoiled.delete()
        cleared.append((spoiled.what, spoiled.why))
        if spoiled.advice:
            advice[spoiled.advice] = None
    return tuple(cleared), tuple(advice)
