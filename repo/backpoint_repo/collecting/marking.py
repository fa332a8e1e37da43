"""What points and pins need: walks their maps and marks all that is found as live.

Every node is walked once, whoever shares it, many of them at a time. What cannot be read is needed
by somebody and nobody knows what it leads to: then nothing may be deleted (`ContentUnknown`). Knows
no packs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.catalog import read_point
from backpoint_repo.collecting.live_content import LiveContent
from backpoint_repo.disk_map import Geometry
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UnknownFormat
from backpoint_repo.format import FANOUT, HOLE, ID_SIZE, LEAF_BLOCKS, NODE_HEADER, Kind, object_key
from backpoint_repo.index import Index, ids_of
from backpoint_repo.index_segment import Location
from backpoint_repo.lease_book import HeldLease
from backpoint_repo.map_node import Ids
from backpoint_repo.node_reader import NodeReader
from backpoint_repo.point import Point
from backpoint_repo.sealed_store import SealedStore

T = TypeVar("T")
R = TypeVar("R")

_POINT_NAME: Final = re.compile(r"[0-9a-f]{32}")
_NODES_AT_ONCE: Final = 256
"""Map nodes in memory together: 5 MB of usual leaves, and 65,536 children at most wait."""
_BROUGHT: Final = 64
"""Map nodes fetched together where requests wait for a network."""
_POINTS_AT_ONCE: Final = 128
"""So often somebody is told how far it is."""
_INLINE: Final = 8
"""So few are read faster without handing them to threads."""


class ContentUnknown(RepositoryError):
    """Something that a point or a pin needs cannot be read, so what it leads to is not known.

    owner: the key of the point, or the session of the lease."""

    def __init__(self, owner: str | bytes, message: str) -> None:
        super().__init__(message)
        self.owner = owner


@dataclass(frozen=True)
class _Root:
    """A disk's map. owner: as in `ContentUnknown`; title, remedy: who needs it and what to do where
    it cannot be read, for the user."""

    size: int
    node_id: bytes
    owner: str | bytes
    title: str
    remedy: str


class Marking:
    """For one thread, which hands reading to others. A context manager."""

    def __init__(self, sealed: SealedStore, index: Index, nodes: NodeReader) -> None:
        self._sealed = sealed
        self._index = index
        self._nodes = nodes
        self._bring = nodes.bringing
        threads = max(os.cpu_count() or 1, sealed.store.lanes)
        self._workers = ThreadPoolExecutor(threads, "mark")
        self._seen: set[str] = set()
        self.live = LiveContent()

    def __enter__(self) -> Marking:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown(cancel_futures=True)

    def forget(self) -> None:
        """All that was marked. After `ContentUnknown` it must be: what was begun is not whole."""
        self._seen.clear()
        self.live.forget()

    def learn(self) -> None:
        """Know what is indexed by now. To be called after points were listed: what they need was
        indexed before."""
        self._index.refresh()
        self._index.learn_unlisted_packs()

    def mark_points(self, names: Sequence[str], advance: Callable[[int], None]) -> None:
        """What these points need, but for those marked earlier; one that is gone needs nothing.

        advance: called with points done. Raises ContentUnknown, StoreUnavailable.
        """
        fresh = [name for name in names if name not in self._seen]
        advance(len(names) - len(fresh))
        for batch in _batches(fresh, _POINTS_AT_ONCE):
            points = [point for point in self._each(self._read_point, batch) if point is not None]
            self._mark_all(points)
            # One that was gone may be put back by whoever removed it: it is not seen then.
            self._seen.update(point.point_id.hex() for point in points)
            advance(len(batch))

    def covers(self, lease: HeldLease) -> bool:
        """Whether all points that it pins were marked."""
        return all(pin.hex() in self._seen for pin in lease.pins)

    def mark_pins(self, lease: HeldLease) -> None:
        """What the lease's pins need, also of points that are removed.

        Raises ContentUnknown where that is not known, StoreUnavailable.
        """
        gone = [pin for pin in lease.pins if pin.hex() not in self._seen]
        if gone and not lease.roots and not lease.chunks:
            raise ContentUnknown(
                lease.session,
                f"{lease.title} uses {object_key(Kind.POINT, gone[0].hex())}, which is removed, "
                "and does not say what it needs of it: end it, then collect",
            )
        who = (lease.session, f"a point that {lease.title} uses", "heal it, or end that session")
        self._walk([_Root(size, root, *who) for size, root in lease.roots])
        self._mark_ids(lease.chunks)

    def _mark_all(self, points: Iterable[Point]) -> None:
        roots, chunks = list[_Root](), list[bytes]()
        for point in points:
            key = object_key(Kind.POINT, point.point_id.hex())
            who = (
                key,
                f"{key} (of {point.vm})",
                "heal that point, or remove it (prune, or delete that object)",
            )
            roots += [_Root(disk.size, disk.root, *who) for disk in point.disks]
            chunks += [chunk for file in point.files for chunk in file.chunks]
        self._walk(roots)
        self._mark_ids(chunks)

    def _mark_ids(self, ids: Sequence[bytes]) -> None:
        if ids:
            self.live.mark(ids_of(list(ids)))

    def _read_point(self, name: str) -> Point | None:
        """On a worker thread. None: removed, never published, or no point by its name."""
        if not _POINT_NAME.fullmatch(name):
            return None
        try:
            return read_point(self._sealed, bytes.fromhex(name))
        except ObjectMissing:
            return None
        except (ObjectDamaged, UnknownFormat) as error:
            key = object_key(Kind.POINT, name)
            raise ContentUnknown(
                key,
                f"{key} cannot be read, so what it needs is not known and nothing can be deleted "
                f"({error}): put that object back from a copy of the repository, or delete it",
            ) from error

    def _walk(self, roots: Sequence[_Root]) -> None:
        """Depth first, in batches, so that little waits at any time."""
        stack: list[_Frontier] = []
        for level, numbers in _by_height(roots).items():
            ids = ids_of([roots[number].node_id for number in numbers])
            stack.append(_Frontier(level, ids, np.array(numbers, np.int64)))
        while stack:
            frontier = stack.pop()
            if len(frontier.ids) > _NODES_AT_ONCE:
                stack.append(frontier.part(slice(_NODES_AT_ONCE, None)))
                frontier = frontier.part(slice(_NODES_AT_ONCE))
            below = self._expand(frontier, roots)
            if frontier.level == 0:
                self.live.mark(below.ids)
            elif len(below.ids):
                stack.append(below)

    def _expand(self, frontier: _Frontier, roots: Sequence[_Root]) -> _Frontier:
        """The children of those nodes that were not entered before."""
        fresh = frontier.part(self.live.enter(frontier.ids))
        places = self._index.locate(fresh.ids)
        jobs = list(zip(fresh.ids, fresh.owners.tolist(), places, strict=True))

        def children(job: tuple[NDArray[np.uint8], int, Location | None]) -> Ids:
            row, owner, place = job
            try:
                return _children(self._load(row.tobytes(), place), frontier.level)
            except (ObjectMissing, ObjectDamaged, UnknownFormat) as error:
                root = roots[owner]
                raise ContentUnknown(
                    root.owner,
                    f"{root.title} needs a map node that cannot be read, so what lies under it is "
                    f"not known and nothing can be deleted ({error}): {root.remedy}",
                ) from error

        found: list[Ids] = []
        for batch in _batches(jobs, _NODES_AT_ONCE if self._bring is None else _BROUGHT):
            if self._bring is not None:
                self._bring([row.tobytes() for row, _, _ in batch])
            found += self._each(children, batch)
        if not found:
            return fresh
        counts = np.array([len(ids) for ids in found], np.int64)
        return _Frontier(frontier.level - 1, np.concatenate(found), np.repeat(fresh.owners, counts))

    def _load(self, node_id: bytes, place: Location | None) -> bytes:
        """On a worker thread. What was brought; else the place that was looked up with many others;
        else any other."""
        if place is not None and self._bring is None:
            try:
                return self._nodes.load_from(node_id, place)
            except (ObjectMissing, ObjectDamaged, UnknownFormat):
                pass
        return self._nodes.load(node_id)

    def _each(self, job: Callable[[T], R], items: Sequence[T]) -> list[R]:
        run = map if len(items) <= _INLINE else self._workers.map
        return list(run(job, items))


@dataclass(frozen=True)
class _Frontier:
    """Nodes of one level that are to be looked at. owners: (n,) on whose behalf."""

    level: int
    ids: Ids
    owners: NDArray[np.int64]

    def part(self, which: slice | NDArray[np.int64]) -> _Frontier:
        return _Frontier(self.level, self.ids[which], self.owners[which])


def _by_height(roots: Sequence[_Root]) -> dict[int, list[int]]:
    """Numbers of the roots by the level they are of; disks of zeros have none."""
    found: dict[int, list[int]] = {}
    for number, root in enumerate(roots):
        if root.node_id != HOLE and root.size:
            found.setdefault(Geometry(root.size).height, []).append(number)
    return found


def _children(data: bytes, level: int) -> Ids:
    """Ids that a node lists: of chunks where it is a leaf. Holes among them. Raises ObjectDamaged.

    How many children there must be depends on the disk; whoever reads that checks it.
    """
    if len(data) < NODE_HEADER.size:
        raise ObjectDamaged("a map node is truncated")
    found, count, _ = NODE_HEADER.unpack_from(data)
    entry_size = 8 if level else 2
    at = NODE_HEADER.size + count * entry_size
    if found != level or not 0 < count <= (FANOUT if level else LEAF_BLOCKS):
        raise ObjectDamaged("a map node has the wrong level or size")
    if len(data) != at + count * ID_SIZE:
        raise ObjectDamaged("a map node has the wrong level or size")
    return np.frombuffer(data, np.uint8, count * ID_SIZE, at).reshape(-1, ID_SIZE)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]
