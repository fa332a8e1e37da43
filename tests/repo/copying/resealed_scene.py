"""Two repositories with keys and chunks of their own, and points that go from one to the other.

Decides what a copy must be like in every test: bit for bit what the original shows, and both
repositories clean. What is copied, and what happens meanwhile, is the test's business.
"""

from __future__ import annotations

from collections.abc import Callable

from backpoint_repo.catalog import PointSummary
from backpoint_repo.check import check_repository
from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.copying.contract import Watch
from backpoint_repo.copying.copier import Copier, Fate, Outcome
from backpoint_repo.copying.plan import plan_missing
from backpoint_repo.errors import StoreReadOnly
from backpoint_repo.format import FOLDERS, Kind
from backpoint_repo.point import Point
from backpoint_repo.repository import Passphrase, Repository, create_repository, open_repository
from backpoint_repo.store.contract import Store, StoredObject, Tail
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.store.object_faults import temporary
from small_repository import (
    CHEAP,
    PASSPHRASE,
    StandingClock,
    assert_clean,
    back_up,
    new_repository,
    read_disk,
    reopened,
)
from synthetic_disk import SyntheticDisk

THERE = Passphrase("battery staple")
OTHER_CHUNKS = ChunkParameters(avg_blocks=2, min_blocks=1, max_blocks=8, hole_blocks=2)


class WatchedStore(MemoryStore):
    """One of several in a test. reads: keys that bytes were read of. many: whether it says that
    many requests at once pay off. read_only: nothing can be put. rots: data packs lose a bit on
    the way. away: keys whose bytes cannot be read for now, as object stores say it."""

    def __init__(self, name: str, *, many: bool = False) -> None:
        super().__init__()
        self.name = name
        self.many = many
        self.read_only = False
        self.rots = False
        self.away: set[str] = set()
        self.reads: list[str] = []

    @property
    def address(self) -> str:
        return self.name

    @property
    def lanes(self) -> int:
        return 16 if self.many else 1

    def get(self, key: str) -> bytes:
        self._read(key)
        return super().get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self._read(key)
        return super().get_range(key, offset, length)

    def get_tail(self, key: str, length: int) -> Tail:
        self._read(key)
        return super().get_tail(key, length)

    def put(self, key: str, pieces: list[bytes | bytearray | memoryview]) -> None:
        if self.read_only:
            raise StoreReadOnly(f"cannot write {key}")
        if self.rots and key.startswith(FOLDERS[Kind.DATA_PACK]):
            spoiled = bytearray(b"".join(pieces))
            spoiled[300] ^= 1
            pieces = [spoiled]
        super().put(key, pieces)

    def _read(self, key: str) -> None:
        self.reads.append(key)
        if key in self.away:
            raise temporary("read", key, self.name, "its disk is sick")

    def objects(self) -> set[StoredObject]:
        """All there are."""
        return set(self.list(""))


class CopyScene:
    """source, target: opened as their owners. contents: of each point of the source, its disks."""

    def __init__(self, *, many: bool = False) -> None:
        self.clock = StandingClock()
        self.here, self.there = WatchedStore("here", many=many), WatchedStore("there", many=many)
        self.source = new_repository(self.here, self.clock)
        self.target = owned_by_another(self.there, self.clock)
        self.contents: dict[bytes, tuple[bytes, ...]] = {}

    def point(self, vm: str, *disks: SyntheticDisk, label: str = "") -> Point:
        """A backup at the source, an hour later than the one before."""
        self.clock.now += 3600
        made = back_up(reopened(self.source), vm, *disks, label=label)
        self.contents[made.point_id] = tuple(disk.content(0, disk.size) for disk in disks)
        return made

    def remove(self, repository: Repository, *points: Point) -> None:
        """As a careless prune."""
        for point in points:
            repository.sealed.delete(Kind.POINT, point.point_id.hex())

    def copier(self, *, verify: bool = False) -> Copier:
        """As a new process has it."""
        copier = Copier(self.opened_source(), self.opened_target(), verify=verify)
        copier.look()
        return copier

    def opened_source(self, store: Store | None = None) -> Repository:
        return reopened(self.source) if store is None else open_here(store, self.clock)

    def opened_target(self) -> Repository:
        return open_repository(self.there, THERE, self.clock)

    def copy(self, *, verify: bool = False) -> list[Outcome]:
        """All that is missing; it must be well."""
        outcomes = copy_all(self.copier(verify=verify))
        assert {outcome.fate for outcome in outcomes} <= {Fate.COPIED}, outcomes
        return outcomes

    def assert_copied(self, *originals: Point) -> None:
        """The target has one copy of each of these, and they are as whole as both repositories."""
        target = self.opened_target()
        found = {}
        for summary in target.catalog.refresh():
            point = target.point(summary.point_id)
            assert summary.origin == point.origin
            assert point.origin not in found
            found[point.origin[16:]] = point
        assert set(found) >= {point.point_id for point in originals}
        for original in originals:
            self._assert_same(original, found[original.point_id], target)
        self.assert_clean()

    def assert_clean(self) -> None:
        assert_clean(self.source)
        assert_all_clean(self.there, THERE, self.clock)

    def _assert_same(self, original: Point, copy: Point, target: Repository) -> None:
        for field in ("vm", "time", "label", "consistency", "generation", "branch"):
            assert getattr(copy, field) == getattr(original, field)
        assert copy.warnings[: len(original.warnings)] == original.warnings
        assert copy.origin == self.source.config.repository_id + original.point_id
        recorded = {key: value for key, value in copy.capture.items() if key != "copy"}
        assert recorded == {k: v for k, v in original.capture.items() if k != "copy"}
        about = [(disk.key, disk.size, disk.source) for disk in original.disks]
        assert [(disk.key, disk.size, disk.source) for disk in copy.disks] == about
        contents = tuple(read_disk(target, disk) for disk in copy.disks)
        assert contents == self.contents[original.point_id]
        source = reopened(self.source)
        files = {file.name: source.read_file(file) for file in original.files}
        assert {file.name: target.read_file(file) for file in copy.files} == files


def owned_by_another(
    store: Store, clock: StandingClock, chunks: ChunkParameters = OTHER_CHUNKS
) -> Repository:
    """A new repository whose keys and chunks are its own."""
    return create_repository(store, THERE, chunks, cost=CHEAP, clock=clock)


def open_here(store: Store, clock: StandingClock) -> Repository:
    """The source, through another store."""
    return open_repository(store, PASSPHRASE, clock)


def assert_all_clean(store: Store, passphrase: Passphrase, clock: StandingClock) -> None:
    report = check_repository(open_repository(store, passphrase, clock), read_share=1.0)
    assert report.clean, report


def copy_all(copier: Copier, watch: Watch | None = None) -> list[Outcome]:
    """What is missing, as the command does it."""
    vms = {point.vm for point in copier.source.points}
    plan = plan_missing(copier.source, copier.target, vms)
    return [copier.copy(point, watch or Watch(tell=fail)) for point in plan]


def fail(message: str) -> None:
    raise AssertionError(message)


def once(action: Callable[[], None]) -> Callable[[int], None]:
    """For `Watch.advance`: do it when the first bytes have been dealt with."""
    left = [action]

    def advance(_: int) -> None:
        while left:
            left.pop()()

    return advance


def named(points: list[PointSummary], vm: str) -> list[bytes]:
    """Ids of a VM's points, in the order given."""
    return [point.point_id for point in points if point.vm == vm]
