"""One point into a repository with other keys: read as a mount reads it, stored as a backup is.

Chunks are cut, named and sealed as the destination does it, so they are found again there wherever
they came from. Where the destination has an earlier point already, only what differs from that one
is read. Needs the source's owner key; of the destination either credential will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final

from backpoint_repo.backup_session import BackupSession, DiskJob
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.copying.contract import Base, Copied, Watch
from backpoint_repo.copying.origin import capture_of_copy, identity_of
from backpoint_repo.copying.stored_source import AHEAD_BYTES, CACHE_BYTES, StoredSource
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, SourceError, UnknownFormat
from backpoint_repo.map_difference import differing_ranges
from backpoint_repo.point import Point
from backpoint_repo.reading import reading
from backpoint_repo.repository import Repository

_Damage: Final = (ObjectDamaged, ObjectMissing, UnknownFormat)
_Changed = dict[str, Sequence[tuple[int, int]]]
"""By a disk's key what differs from the base's disk of that key, (offset, length) in bytes."""


class Resealing:
    """A `CopyPoint`, for many points: chunks that were read for one are at hand for the next."""

    def __init__(self, source: Repository) -> None:
        """source: what all of them are in."""
        ahead = 0 if source.sealed.store.lanes == 1 else AHEAD_BYTES
        self._cache = ChunkCache(CACHE_BYTES + ahead)

    def __call__(
        self, source: Repository, target: Repository, point: Point, base: Base | None, watch: Watch
    ) -> Copied:
        """As `CopyPoint` says; OwnerKeyNeeded, too."""
        with ExitStack() as held:
            changed, session = _begin(source, target, point, base, watch, held)
            fetchers = held.enter_context(_fetchers(source))
            for disk in point.disks:
                reader = source.open_disk(disk, self._cache)
                stored = StoredSource(disk.source, disk.key, reader, fetchers)
                held.callback(stored.close)
                found = changed.get(disk.key)
                session.store_disk(DiskJob(disk.key, stored, found, resizable=True), watch.advance)
            for file in point.files:
                with _damage_told(file.name):
                    data = source.read_file(file)
                session.store_file(file.name, data)
            session.warnings[:0] = point.warnings
            identity = identity_of(source.config.repository_id, point)
            copy = session.publish(
                time=point.time,
                label=point.label,
                consistency=point.consistency,
                capture=capture_of_copy(point.capture, identity),
                generation=point.generation,
            )
        return Copied(point, copy, verbatim=False)


def _begin(
    source: Repository,
    target: Repository,
    point: Point,
    base: Base | None,
    watch: Watch,
    held: ExitStack,
) -> tuple[_Changed, BackupSession]:
    """A session that stands on the base's copy, if the base is of any use, and what to read."""
    if base is not None:
        try:
            with reading(source, found := source.point(base.original), watch.tell):
                changed = _changed(source, found, point)
            return changed, held.enter_context(target.begin_backup(point.vm, base.copy))
        except _Damage:
            pass  # gone or rotten, here or there: then the point is read whole
    return {}, held.enter_context(target.begin_backup(point.vm))


def _changed(source: Repository, base: Point, point: Point) -> _Changed:
    """Nothing of disks that the base has not: they are read whole."""
    earlier = {disk.key: source.disk_map(disk) for disk in base.disks}
    return {
        disk.key: list(differing_ranges(earlier[disk.key], source.disk_map(disk)))
        for disk in point.disks
        if disk.key in earlier
    }


@contextmanager
def _fetchers(source: Repository) -> Iterator[Executor | None]:
    """Threads to fetch ahead with, where requests at once pay off."""
    lanes = source.sealed.store.lanes
    if lanes == 1:
        yield None
        return
    pool = ThreadPoolExecutor(lanes, "fetch")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _damage_told(name: str) -> Iterator[None]:
    try:
        yield
    except _Damage as error:
        raise SourceError(f"{name} cannot be read: {error}") from error
