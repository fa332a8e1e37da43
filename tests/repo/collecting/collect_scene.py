"""A small repository whose points come and go, and what a collector must have made of it.

Decides how disks are filled and how points are removed. Which interferences there are is the tests'
business.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectReport, CollectTerms
from backpoint_repo.format import BLOCK_SIZE, FOLDERS, Kind, object_key
from backpoint_repo.index import stored_packs
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease import MOUNT, Lease, LeaseTerms
from backpoint_repo.phase_progress import Silent
from backpoint_repo.pin import Pin
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Store
from faults.failing_store import FailingStore
from small_repository import as_agent, assert_clean, back_up, read_disk, reopened
from synthetic_disk import SyntheticDisk

SIZE = 1 << 20
CHUNK_MAX = 16 * BLOCK_SIZE


def filled_disk(seed: int, size: int = SIZE) -> SyntheticDisk:
    disk = SyntheticDisk(size)
    disk.write(0, random.Random(seed).randbytes(size))
    return disk


def lease_of(scene: Scene, epoch: int, *pins: Pin, session: bytes = b"m" * 16) -> Lease:
    terms = LeaseTerms(MOUNT, epoch, pins)
    return Lease(scene.sealed, session, terms, scene.repository.clock)


class Scene:
    """contents: what each point that still stands must read as."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.sealed = repository.sealed
        self.contents: dict[bytes, bytes] = {}
        self.waited = 0.0

    @property
    def store(self) -> Store:
        return self.sealed.store

    def point(self, vm: str, disk: SyntheticDisk) -> Point:
        made = back_up(self.repository, vm, disk)
        self.contents[made.point_id] = disk.content(0, disk.size)
        return made

    def history(self, vm: str, points: int, seed: int = 0) -> list[Point]:
        """Points of one VM; between two of them half of the disk changes."""
        disk, made = filled_disk(seed), []
        for number in range(points):
            half = SIZE // 2 * (number % 2)
            disk.write(half, random.Random(seed + 1000 * number + 1).randbytes(SIZE // 2))
            made.append(self.point(vm, disk))
        return made

    def remove(self, *points: Point) -> None:
        for point in points:
            self.sealed.delete(Kind.POINT, point.point_id.hex())
            self.contents.pop(point.point_id, None)

    def collect(
        self,
        repository: Repository | None = None,
        *,
        wait_s: float = 0.0,
        max_repack: int | None = None,
        dry_run: bool = False,
        pause: Callable[[float], None] | None = None,
    ) -> CollectReport:
        """As another process does it that has the agent credential."""

        def count(seconds: float) -> None:
            self.waited += seconds

        terms = CollectTerms(max_repack, wait_s, dry_run)
        collector = repository or as_agent(self.repository)
        return collect(collector, terms, Silent(), pause or count)

    def stored(self) -> int:
        """Bytes of all packs."""
        kinds = (Kind.DATA_PACK, Kind.NODE_PACK)
        return sum(item.size for kind in kinds for item in self.store.list(FOLDERS[kind] + "/"))

    def objects(self) -> dict[str, bytes]:
        return {item.key: self.store.get(item.key) for item in self.store.list("")}

    def packs(self, kind: Kind = Kind.DATA_PACK) -> set[PackRef]:
        return {pack for pack in stored_packs(self.sealed) if pack.kind is kind}

    def live_chunks(self) -> set[bytes]:
        """Ids of all that the disks of points consist of, which have one leaf each."""
        owner = reopened(self.repository)
        leaves = [
            owner.disk_map(disk).leaf(0)
            for point in map(owner.point, self.contents)
            for disk in point.disks
        ]
        return {row.tobytes() for leaf in leaves for row in leaf.ids}

    def assert_whole(self) -> None:
        """Every point that stands reads as it was, and `check` finds nothing."""
        owner = reopened(self.repository)
        assert {point.point_id for point in owner.catalog.refresh()} == self.contents.keys()
        for point_id, content in self.contents.items():
            assert read_disk(owner, owner.point(point_id).disks[0]) == content
        assert_clean(self.repository)

    def assert_tidy(self) -> None:
        """Nothing is left that no point needs: a further collection finds nothing to do."""
        again = self.collect()
        assert (again.epoch, again.freed_packs, again.copied, again.waiting) == (None, 0, 0, ())
        assert again.plan is not None
        assert not again.plan.dead
        assert not list(self.store.list("leases/"))

    def through(self, store: Store) -> Repository:
        """The repository as an agent's process sees it through this store."""
        collector = as_agent(self.repository)
        object.__setattr__(collector.sealed, "store", store)
        return collector

    def meddled(self, method: str, prefix: str, act: Callable[[], object]) -> Repository:
        """Likewise; something happens just before its first call of `method` on such a key."""
        return self.through(_Meddled(self.store, method, prefix, act))

    def meddled_call(self, at: int, act: Callable[[], object]) -> Repository:
        """Likewise; before its call number `at`."""
        return self.through(FailingStore(self.store, at, lambda: void(act())))

    def count_calls(self) -> int:
        """How many calls of the store a collection makes, which is carried out."""
        counted = FailingStore(self.store, 0, lambda: None)
        self.collect(self.through(counted))
        return len(counted.calls)


class _Meddled(FailingStore):
    def __init__(self, inner: Store, method: str, prefix: str, act: Callable[[], object]) -> None:
        super().__init__(inner, 0, lambda: None)
        self._method, self._prefix = method, prefix
        self._acts = [act]

    def _begin(self, method: str, key: str) -> bool:
        if method == self._method and key.startswith(self._prefix) and self._acts:
            self._acts.pop()()
        return False


def void(_: object) -> None:
    """For callers who want nothing back."""


def flip(store: Store, pack: PackRef, offset: int) -> None:
    """Rot: one bit of a pack is another."""
    key = object_key(pack.kind, pack.name.hex())
    data = bytearray(store.get(key))
    data[offset] ^= 1
    store.delete(key)
    store.put(key, [bytes(data)])
