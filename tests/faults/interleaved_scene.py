"""One small repository, used by several actors by turns, and what must be true of it afterwards.

The oracle: every point that stands reads back whole, `check` finds nothing, none is gone that
nobody removed; and once all leases are ended and two collectors have run, no pack is left that
nothing needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from backpoint_repo.errors import ObjectMissing, RepositoryError, SessionRevoked
from backpoint_repo.format import BLOCK_SIZE, HOLE, Kind
from backpoint_repo.index import stored_packs
from backpoint_repo.lease_book import read_leases, revoke
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.retention.removal import Removal
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.store.memory import MemoryStore
from faults.actors import (
    Backup,
    Broken,
    collecting,
    copy,
    live,
    mount,
    prune,
    reap,
    restore,
    write,
)
from faults.interleaving import (
    PAUSE,
    Chooser,
    Decision,
    Listing,
    Turns,
    TurnStore,
    chosen_randomness,
    run_to_end,
)
from small_repository import StandingClock, assert_clean, back_up, new_repository, read_disk
from synthetic_disk import SyntheticDisk

PIECE = 8 * BLOCK_SIZE
SIZE = 3 * PIECE
_REASONS = (SessionRevoked, ObjectMissing)
"""What an actor may raise: it was ended by a reaper, or what it asked for was gone before."""


def disk_of(pieces: str) -> SyntheticDisk:
    """A piece for each letter; the same letter is the same content."""
    disk = SyntheticDisk(SIZE)
    for at, letter in enumerate(pieces):
        disk.write(at * PIECE, random.Random(letter).randbytes(PIECE))
    return disk


def content_of(pieces: str) -> bytes:
    return disk_of(pieces).content(0, SIZE)


class Scene:
    """The repository as it is before actors come: points `old` and `base` of one VM.

    They share two pieces; what only `old` needs is in packs of its own. orphaned: `old` is removed
    already, and a collector has something to take at once.
    """

    def __init__(self, *, orphaned: bool = False) -> None:
        with chosen_randomness(1):
            repository = new_repository(MemoryStore())
            self.contents = {"old": "abc", "base": "abd"}
            self.points = {
                name: back_up(repository, "web", disk_of(pieces), label=name)
                for name, pieces in self.contents.items()
            }
        if orphaned:
            old = self.points.pop("old")
            repository.sealed.delete(Kind.POINT, old.point_id.hex())
        self._sealed = repository.sealed
        self._config = repository.config

    def opened(self, store: object) -> Repository:
        sealed = self._sealed
        again = SealedStore(store, sealed.keyring, sealed.repository_id, sealed.packer)  # type: ignore[arg-type]
        return Repository(again, self._config, StandingClock())

    def fresh_store(self) -> MemoryStore:
        store = MemoryStore()
        for key, _ in self._sealed.store.list(""):
            store.put(key, [self._sealed.store.get(key)])
        return store


@dataclass
class Play:
    """A scene with a cast. thorough: every so many runs all is read, checked and collected; after
    the others it is only looked up whether packs hold all that points need. contents: label of each
    point that may come to be -> its pieces."""

    scene: Scene
    cast: Sequence[str]
    thorough: int = 1
    listing: Listing = Listing.WHOLE
    contents: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    runs: int = 0

    def run(self, choose: Chooser) -> list[Decision]:
        """Everybody to their end, then the oracle. Raises Broken."""
        self.contents = dict(self.scene.contents)
        store, turns = self.scene.fresh_store(), Turns(self.cast)
        self.calls = turns.calls
        with chosen_randomness(2):
            actors = {name: self._actor(name, store, turns) for name in self.cast}
            decisions = run_to_end(turns, actors, choose)
            self._judge(store, turns.results())
        return decisions

    def story(self) -> str:
        """The calls of the last run, for whoever has to find out what went wrong."""
        choices = [(name, call == "crash") for name, call in self.calls]
        head = f"cast {list(self.cast)}, listing {self.listing.value}, choices {choices}"
        return "\n".join([head, *(f"  {name}: {call}" for name, call in self.calls)])

    def _actor(self, name: str, store: MemoryStore, turns: Turns) -> Callable[[], object]:
        repository = self.scene.opened(TurnStore(store, turns, name, self.listing))
        points = self.scene.points
        role = name.rstrip("0123456789")

        def backup(pieces: str, **more: object) -> Backup:
            self.contents[name] = pieces
            return Backup(name, "web", disk_of(pieces), **more)  # type: ignore[arg-type]

        changed = ((2 * PIECE, PIECE),)
        match role:
            case "writer":
                job = backup("ecb")
                return lambda: write(repository, job)
            case "increment":
                job = backup("abc", changed=changed)
                return lambda: write(repository, job, points["base"].point_id)
            case "copier":
                self.contents[name] = "ecb"
                replica = self.scene.opened(MemoryStore())
                point = back_up(replica, "web", disk_of("ecb"), label=name)
                return lambda: copy(replica, repository, point)
            case "pruner":
                return lambda: prune(repository, points["old"])
            case "sweeper":
                return lambda: prune(repository, *points.values())
            case "mount":
                return lambda: mount(repository, points["old"], content_of("abc"))
            case "restore":
                return lambda: restore(repository, points["old"], content_of("abc"))
            case "live":
                job = backup("abe", changed=changed)
                return lambda: live(repository, points["base"], content_of("abd"), job)
            case "collector":
                return lambda: collecting(repository, lambda _: turns.take(name, PAUSE))
            case "reaper":
                purposes = frozenset({"backup", "mount", "read", "collect"})
                return lambda: reap(repository, purposes)
        raise ValueError(name)

    def _judge(self, store: MemoryStore, results: Mapping[str, object]) -> None:
        for name, result in results.items():
            if isinstance(result, Broken):
                raise Broken(f"{name}: {result}") from result
            if isinstance(result, Exception) and not isinstance(result, _REASONS):
                raise Broken(f"{name} failed: {result!r}") from result
        standing = self._whole(store)
        for point_id, why in self._expected(results).items():
            if point_id not in standing:
                raise Broken(f"{why} is gone")
        self.runs += 1
        if self.runs % self.thorough == 0:
            self._read_all(store)
            self._collect_all(store, standing)

    def _expected(self, results: Mapping[str, object]) -> dict[bytes, str]:
        """Points that were published and not removed."""
        made = {point.point_id: label for label, point in self.scene.points.items()}
        made |= {
            result.point_id: name for name, result in results.items() if isinstance(result, Point)
        }
        for name, result in results.items():
            if isinstance(result, Removal):
                for point_id in result.removed:
                    made.pop(point_id, None)
            elif name.startswith(("pruner", "sweeper")):
                for label, point in self.scene.points.items():
                    if label == "old" or name.startswith("sweeper"):
                        made.pop(point.point_id, None)
        return made

    def _whole(self, store: MemoryStore) -> set[bytes]:
        """All points; raises Broken where no pack holds what one needs."""
        repository = self.scene.opened(store)
        stored = frozenset[bytes]().union(*_held(repository).values())
        points = [repository.point(one.point_id) for one in repository.catalog.refresh()]
        for point in points:
            if lost := needs(repository, point) - stored:
                raise Broken(f"point {point.label} has lost {len(lost)} blobs")
        return {point.point_id for point in points}

    def _read_all(self, store: MemoryStore) -> None:
        repository = self.scene.opened(store)
        for one in repository.catalog.refresh():
            point = repository.point(one.point_id)
            if read_disk(repository, point.disks[0]) != content_of(self.contents[point.label]):
                raise Broken(f"point {point.label} reads as something else")
        try:
            assert_clean(repository)
        except AssertionError as error:
            raise Broken(f"check: {error}") from error

    def _collect_all(self, store: MemoryStore, standing: set[bytes]) -> None:
        repository = self.scene.opened(store)
        for lease in read_leases(repository.sealed):
            revoke(repository.sealed, lease.session, bytes(16), 0.0)
        for _ in range(2):
            collecting(self.scene.opened(store), lambda _: None)
        if self._whole(store) != standing:
            raise Broken("the last collections changed which points there are")
        repository = self.scene.opened(store)
        live = frozenset[bytes]().union(
            *(needs(repository, repository.point(point_id)) for point_id in standing)
        )
        for name, ids in _held(repository).items():
            if not live & ids:
                raise Broken(f"pack {name} is never collected")


def needs(repository: Repository, point: Point) -> frozenset[bytes]:
    """Ids of all nodes and chunks of a point's disk. Raises Broken where a node is lost."""
    found = set[bytes]()
    disk_map = repository.disk_map(point.disks[0])
    try:
        for node_id, level, number in disk_map.nodes():
            found.add(node_id)
            if level == 0:
                found.update(row.tobytes() for row in disk_map.leaf(number).ids)
    except RepositoryError as error:
        raise Broken(f"point {point.label} has lost its map: {error}") from error
    return frozenset(found - {HOLE})


def _held(repository: Repository) -> dict[str, frozenset[bytes]]:
    """The ids in each pack, by its name."""
    sealed = repository.sealed
    return {
        pack.name.hex(): frozenset(
            row.tobytes() for row in sealed.directory(pack.kind, pack.name).ids
        )
        for pack in stored_packs(sealed)
    }
