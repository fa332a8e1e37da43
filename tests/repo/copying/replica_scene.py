"""A repository, a replica of it, and copies that are read back; what is copied is the test's
business."""

from __future__ import annotations

from dataclasses import dataclass, field

from backpoint_repo.copying.contract import Base, Copied, Watch
from backpoint_repo.copying.verbatim import copy_point_verbatim
from backpoint_repo.credential import AgentCredential
from backpoint_repo.point import Point
from backpoint_repo.reading import reading
from backpoint_repo.replica import replicate
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.contract import Store
from backpoint_repo.store.memory import MemoryStore
from small_repository import (
    PASSPHRASE,
    StandingClock,
    as_agent,
    assert_clean,
    new_repository,
    read_disk,
    reopened,
)
from synthetic_disk import SyntheticDisk


class NamedStore(MemoryStore):
    """One of several in a test."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    @property
    def address(self) -> str:
        return self.name


@dataclass
class Scene:
    """source: opened as the owner. target: the replica, through the agent credential."""

    source: Repository = field(init=False)
    target: Repository = field(init=False)
    clock: StandingClock = field(default_factory=StandingClock)

    def __post_init__(self) -> None:
        self.source = new_repository(NamedStore("here"), self.clock)
        there = NamedStore("there")
        replicate(as_agent(self.source), there)
        self.target = self.through(there)

    def through(self, store: Store) -> Repository:
        """The replica as another process sees it, with the agent credential."""
        credential = AgentCredential.of(self.source.config, self.source.sealed.keyring.secret)
        return open_repository(store, credential, self.clock)

    def copy(
        self, point: Point, base: Base | None = None, target: Repository | None = None
    ) -> Copied:
        """With the agent credential at both ends."""
        source = as_agent(self.source)
        with reading(source, point, fail):
            return copy_point_verbatim(source, target or self.target, point, base, Watch())

    def owned(self) -> Repository:
        """The replica, as its owner sees it."""
        return open_repository(self.target.sealed.store, PASSPHRASE, self.clock)

    def assert_same(self, point: Point, *disks: SyntheticDisk) -> None:
        """The copy shows these disks, bit for bit, and the replica is clean."""
        owned = self.owned()
        for disk, expected in zip(point.disks, disks, strict=True):
            assert read_disk(owned, disk) == expected.content(0, expected.size)
        assert_clean(owned)


def fail(message: str) -> None:
    raise AssertionError(message)


def stored(repository: Repository) -> dict[str, bytes]:
    """Every object, by key."""
    store = reopened(repository).sealed.store
    return {found.key: store.get(found.key) for found in store.list("")}
