"""A point into another place of the same repository as it is sealed: no data key, no plaintext.

The agent credential suffices at both ends. Decides what is copied: all that the destination's index
does not know, but for subtrees that its earlier point of the VM shares; that one is pinned for as
long as it takes. Publishes as a backup does (`publication.py`). How blobs are fetched and which
points are copied is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final

import numpy as np

from backpoint_repo import version
from backpoint_repo.capture import refusal
from backpoint_repo.catalog import read_point
from backpoint_repo.copying.contract import Base, Copied, Watch
from backpoint_repo.copying.origin import capture_of_copy, identity_of
from backpoint_repo.copying.verbatim_fetch import Fetched, VerbatimFetch, Wanted
from backpoint_repo.copying.verbatim_walk import MapWalk
from backpoint_repo.disk_ingest import Advance
from backpoint_repo.disk_map import DiskMap, Geometry
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    UnknownFormat,
    UsageError,
)
from backpoint_repo.features import refuse_unknown_features
from backpoint_repo.format import HOLE, Kind
from backpoint_repo.index import Index, ids_of
from backpoint_repo.map_node import Ids
from backpoint_repo.pack_stream import uploads_at_once
from backpoint_repo.parent_point import given_point, newest_point
from backpoint_repo.point import ConfigFile, Disk, Point, Traffic
from backpoint_repo.publication import Publication, PublicationParts
from backpoint_repo.replica import same_keys
from backpoint_repo.repository import Repository
from backpoint_repo.verbatim_copy import VerbatimCopies

_FLUSH_AFTER: Final = 1 << 17
"""Blobs after which all is made durable and indexed: bounds the memory of what is not indexed."""


def copy_point_verbatim(
    source: Repository, target: Repository, point: Point, base: Base | None, watch: Watch
) -> Copied:
    """A `CopyPoint`, for a target with the same keys; UsageError where it has others.

    Stands on the base's copy, and without one on the VM's newest point in the target.
    """
    if not same_keys(source, target):
        raise UsageError(
            f"{target.sealed.store.address} has other keys than {source.sealed.store.address}: "
            "sealed blobs of one cannot be read in the other"
        )
    source.index.refresh()
    with (
        VerbatimFetch(source) as fetch,
        VerbatimSession(target, _parent(target, point.vm, base), fetch) as session,
    ):
        for disk in point.disks:
            session.copy_disk(disk, watch.advance)
        for file in point.files:
            session.copy_file(file)
        identity = identity_of(source.sealed.repository_id, point)
        return Copied(point, session.publish(point, identity), verbatim=True)


class VerbatimSession:
    """One point in the making. A context manager for one thread; without `publish` no point."""

    def __init__(self, target: Repository, parent: Point | None, fetch: VerbatimFetch) -> None:
        """Put the lease, which pins the parent, of the target. Raises what a store raises."""
        sealed = target.sealed
        refuse_unknown_features(sealed.store)
        target.index.refresh()
        index = target.index.fork()
        self._target = target
        self._fetch = fetch
        self._parent = parent
        parts = PublicationParts(sealed, index, target.catalog, target.clock)
        self._publication = Publication(parts, parent)
        self._uploads = ThreadPoolExecutor(uploads_at_once(sealed.store), "upload")
        copies = VerbatimCopies(sealed, index, self._publication.point_id, self._uploads)
        self._store = _NewBlobs(index, copies, fetch)
        self._index = index

    def __enter__(self) -> VerbatimSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._publication.close()
        self._uploads.shutdown(cancel_futures=True)

    def copy_disk(self, disk: Disk, advance: Advance) -> None:
        """Raises ObjectMissing, ObjectDamaged, UnknownFormat where something of it is lost."""
        self._do(partial(self._disk, disk, advance), partial(self._disk, disk, lambda _: None))

    def copy_file(self, file: ConfigFile) -> None:
        """As `copy_disk`."""
        self._do(partial(self._file, file), partial(self._file, file))

    def publish(self, original: Point, identity: bytes) -> Point:
        """Make the copy exist. identity: whose copy it says it is. Raises UsageError where that
        cannot be recorded, and as `Publication.settle` and `Publication.put`."""
        publication, store = self._publication, self._store
        capture = capture_of_copy(original.capture, identity)
        if why := refusal(capture):
            raise UsageError(f"where the copy is from cannot be recorded: what is to be {why}")
        with publication.all_or_nothing():
            publication.settle(store.flush)
        now = float(self._target.clock())
        parent = self._parent
        copy = Point(
            publication.point_id,
            original.vm,
            original.time,
            now,
            original.label,
            original.disks,
            original.files,
            parent.point_id if parent else None,
            original.generation,
            Traffic(self._fetch.read, store.plain, store.stored),
            max(0.0, now - publication.started),
            original.consistency,
            (*original.warnings, *publication.warnings),
            f"backpoint {version.VERSION}",
            capture,
        )
        return publication.put(copy)

    def _do(self, step: Callable[[], None], again: Callable[[], None]) -> None:
        with self._publication.all_or_nothing():
            self._publication.refuse_lost_lease()
            step()
        self._publication.redo.append(again)

    def _disk(self, disk: Disk, advance: Advance) -> None:
        nodes = partial(self._fetch.fetch, Kind.NODE_PACK)
        walk = MapWalk(Geometry(disk.size), self._base(disk), nodes, self._store, advance)
        with _told_of(f"disk {disk.key}"):
            self._store.copy(walk.wanted(disk.root))

    def _file(self, file: ConfigFile) -> None:
        ids = ids_of(list(file.chunks))
        wanted = (Wanted(file.chunks[at], file.stored_length(at)) for at in self._store.lacks(ids))
        with _told_of(f"file {file.name}"):
            self._store.copy(wanted)

    def _base(self, disk: Disk) -> DiskMap | None:
        """What may be passed over; nothing where the destination has lost anything at all."""
        if self._parent is None or not self._parent_stands() or self._index.has_losses():
            return None
        for other in sorted(self._parent.disks, key=lambda one: one.root != disk.root):
            if other.size == disk.size and (other.key == disk.key or other.root == disk.root):
                return DiskMap(other.size, other.root, self._target.nodes.load)
        return None

    def _parent_stands(self) -> bool:
        """Asked under the lease that pins it: from now on no collector takes its chunks."""
        assert self._parent is not None
        try:
            return read_point(self._target.sealed, self._parent.point_id) is not None
        except ObjectMissing:
            return False


class _NewBlobs:
    """What goes into the destination's packs: a `Keeper` that stores what is not known there."""

    def __init__(self, index: Index, copies: VerbatimCopies, fetch: VerbatimFetch) -> None:
        self._index = index
        self._copies = copies
        self._fetch = fetch
        self._pending: set[bytes] = set()
        self._added: list[bytes] = []
        """Of those pending, what waits for `flush`; the others are still to be fetched."""
        self.plain = 0

    @property
    def stored(self) -> int:
        """Sealed bytes."""
        return self._copies.stored

    def lacks(self, ids: Ids) -> list[int]:
        """Rows that are stored nowhere yet; from now on they count as stored."""
        fresh = []
        for at in np.flatnonzero(~self._index.known(ids)).tolist():
            content_id = ids[at].tobytes()
            if content_id != HOLE and content_id not in self._pending:
                self._pending.add(content_id)
                fresh.append(at)
        return fresh

    def keep_node(self, node: Fetched) -> None:
        """Store it unless it is known."""
        if self.lacks(ids_of([node.content_id])):
            self._add(Kind.NODE_PACK, node)

    def copy(self, wanted: Iterable[Wanted]) -> None:
        """Fetch and store chunks that are lacking."""
        for found in self._fetch.fetch(Kind.DATA_PACK, wanted):
            self._add(Kind.DATA_PACK, found)
            self.plain += found.copy.plain_length

    def flush(self) -> None:
        """Return when all is durable and indexed."""
        self._copies.flush()
        self._pending.difference_update(self._added)
        self._added.clear()

    def _add(self, kind: Kind, found: Fetched) -> None:
        copy = found.copy
        self._copies.add(kind, found.content_id, copy.blob, copy.plain_length, copy.data_key)
        self._added.append(found.content_id)
        if len(self._added) >= _FLUSH_AFTER:
            self.flush()


def _parent(target: Repository, vm: str, base: Base | None) -> Point | None:
    if base is not None:
        try:
            return given_point(target.sealed, base.copy)
        except (ObjectMissing, ObjectDamaged, UnknownFormat):
            pass  # gone, or rotten: then another will do
    return newest_point(target.sealed, target.catalog, vm)


@contextmanager
def _told_of(what: str) -> Iterator[None]:
    try:
        yield
    except (ObjectMissing, ObjectDamaged, UnknownFormat) as error:
        raise type(error)(f"{what}: {error}") from error
