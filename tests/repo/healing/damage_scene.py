"""A repository with something to lose, ways to spoil it, and the proof that it is whole again.

Decides what is stored: two points of `web`, whose disk has two leaves (so an inner map node), a
configuration file, and one point of `db`. What heals it is the test's business.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from copy import copy, deepcopy

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.check import check_repository
from backpoint_repo.format import LEAF_SIZE, PACK_TRAILER, Kind
from backpoint_repo.healing.heal import heal
from backpoint_repo.healing.heal_report import HealReport
from backpoint_repo.healing.live_source import LiveSource
from backpoint_repo.healing.point_disk import FileContent
from backpoint_repo.healing.way import Way
from backpoint_repo.phase_progress import Silent
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.source.contract import ImageSource
from backpoint_repo.store.contract import Store
from small_repository import (
    PASSPHRASE,
    StandingClock,
    assert_clean,
    keys_of,
    new_repository,
    read_disk,
    reopened,
)
from synthetic_disk import SyntheticDisk

VMX = random.Random(11).randbytes(70_000)
SIZE = LEAF_SIZE + (1 << 20) + 512
BEHIND = LEAF_SIZE + 5 * 4096 + 100


class DamageScene:
    """disk: as `web` is now; old_disk: as it was at its first point. other: `db`'s."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.repository = new_repository(store)
        rng = random.Random(3)
        self.disk = SyntheticDisk(SIZE, name="web.img")
        self.disk.write(8192, rng.randbytes(300_000))
        self.disk.write(BEHIND, rng.randbytes(150_000))
        self.disk.write(SIZE - 1000, rng.randbytes(1000))
        self.old_disk = deepcopy(self.disk)
        self.other = SyntheticDisk(1 << 20, name="db.img")
        self.other.write(0, rng.randbytes(200_000))
        self._stored: list[tuple[Point, bytes]] = []
        self.back_up("web", self.disk)
        self.disk.write(100_000, rng.randbytes(40_000))
        self.back_up("web", self.disk)
        self.back_up("db", self.other)

    def on(self, store: Store) -> DamageScene:
        """The same in another, empty store: cheaper than making it again."""
        for found in self.store.list(""):
            store.put(found.key, [self.store.get(found.key)])
        scene = copy(self)
        scene.store, scene._stored = store, list(self._stored)
        scene.repository = open_repository(store, PASSPHRASE, StandingClock())
        return scene

    def back_up(self, vm: str, disk: SyntheticDisk) -> Point:
        """As a new process does."""
        with reopened(self.repository).begin_backup(vm) as session:
            session.store_disk(DiskJob("disk0", disk), lambda _: None)
            if vm == "web":
                session.store_file("web.vmx", VMX)
            point = session.publish(time=None, label="")
        self._stored.append((point, disk.content(0, disk.size)))
        return point

    def remove(self, vm: str) -> None:
        """All points of a VM."""
        for point in [point for point, _ in self._stored if point.vm == vm]:
            self.repository.sealed.delete(Kind.POINT, point.point_id.hex())
        self._stored = [stored for stored in self._stored if stored[0].vm != vm]

    def live(self, *disks: SyntheticDisk, quick: bool = False) -> list[Way]:
        """These disks as live sources; by default all that points were made of, and the file."""
        sources: list[ImageSource] = list(disks) or [self.disk, self.old_disk, self.other]
        if not disks:
            sources.append(FileContent("web.vmx", VMX))
        return [LiveSource(self.repository, source, quick=quick) for source in sources]

    @property
    def web(self) -> list[Point]:
        """Points of `web`, the older first."""
        return [point for point, _ in self._stored if point.vm == "web"]

    def keys(self, *kinds: Kind) -> list[str]:
        """Of all objects of these kinds."""
        return [key for kind in kinds for key in keys_of(self.store, kind)]

    def check(self) -> None:
        """Find what is spoilt, and mark it; there must be some."""
        assert not check_repository(reopened(self.repository), read_share=1.0).clean

    def heal(self, *ways: Way, repository: Repository | None = None) -> HealReport:
        """As a new process does, as the owner by default."""
        return heal(repository or reopened(self.repository), ways, Silent())

    def assert_whole(self) -> None:
        """Check is clean, and every point reads back as it was stored."""
        assert_clean(self.repository)
        fresh = reopened(self.repository)
        for point, content in self._stored:
            assert read_disk(fresh, fresh.point(point.point_id).disks[0]) == content
            assert [fresh.read_file(file) for file in point.files] == [VMX] * len(point.files)


def replaced(store: Store, key: str, data: bytes | bytearray) -> None:
    """Another object in the place of one."""
    store.delete(key)
    store.put(key, [data])


def flip_bits(store: Store, key: str, offsets: Sequence[int]) -> None:
    """One bit of each of these bytes."""
    data = bytearray(store.get(key))
    for offset in offsets:
        data[offset] ^= 0x10
    replaced(store, key, data)


def rot_all(store: Store, key: str, every: int = 3000) -> None:
    """A flipped bit in about every blob of a pack; its directory stays whole."""
    size = store.size(key)
    tail = store.get_range(key, size - PACK_TRAILER.size, PACK_TRAILER.size)
    blobs_end = size - PACK_TRAILER.size - PACK_TRAILER.unpack(tail)[0]
    flip_bits(store, key, range(60, blobs_end, every))


def delete(store: Store, key: str) -> None:
    """The pack is gone."""
    store.delete(key)


def truncate(store: Store, key: str) -> None:
    """Its second half is gone, and with it its directory."""
    replaced(store, key, store.get(key)[: store.size(key) // 2])


def spoil_directory(store: Store, key: str) -> None:
    """All blobs are good, and nobody can tell what they are."""
    flip_bits(store, key, [store.size(key) - 40])


DAMAGES: tuple[Callable[[Store, str], None], ...] = (delete, truncate, spoil_directory, rot_all)


def counts(report: HealReport) -> dict[str, tuple[int, int]]:
    """Chunks and nodes that each way healed, without those that had nothing."""
    return {
        item.way: (item.chunks, item.nodes) for item in report.healed if item.chunks or item.nodes
    }
