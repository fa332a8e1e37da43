"""A small repository in a bucket, reached over a line that does harm, and directly.

Decides what the repository holds and which works are done on it. Which harm is done, and what must
come of it, is the tests' business.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectTerms
from backpoint_repo.lease import MOUNT, Lease, LeaseTerms
from backpoint_repo.phase_progress import Silent
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.retention.removal import remove_points
from backpoint_repo.store.address import open_store
from backpoint_repo.store.bucket import open_bucket
from backpoint_repo.store.contract import Store
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.store.object_store import ObjectStore
from backpoint_repo.store.place import BucketPlace, parse_place
from backpoint_repo.store.probe import GuardedStore
from faults.other_process import disk_of
from object_server import ObjectServer
from paced_proxy import PacedProxy
from small_repository import (
    PASSPHRASE,
    StandingClock,
    assert_clean,
    back_up,
    new_repository,
    read_disk,
)

_SEEDS: Final = (1, 2)
_REMOVED: Final = 3
_WRITERS: Final = 8
NEW_SEED: Final = 4


@dataclass(frozen=True)
class Template:
    """Objects of a repository with two points of `web`, and what a third, removed one left."""

    objects: dict[str, bytes]
    contents: dict[bytes, bytes]


def make_template() -> Template:
    store = MemoryStore()
    repository = new_repository(store)
    contents = {}
    for seed in _SEEDS:
        point = back_up(repository, "web", disk_of(seed))
        contents[point.point_id] = content_of(seed)
    old = back_up(repository, "old", disk_of(_REMOVED))
    remove_points(repository.sealed, [old.point_id], repository.clock)
    return Template({found.key: store.get(found.key) for found in store.list("")}, contents)


@dataclass
class BucketScene:
    """contents: what each point that stands must read as."""

    server: ObjectServer
    line: PacedProxy
    template: Template
    address: str = field(default_factory=lambda: f"s3://tests/{secrets.token_hex(8)}")
    contents: dict[bytes, bytes] = field(default_factory=dict)
    _seed: int = NEW_SEED - 1

    def __post_init__(self) -> None:
        # Each makes clients of its own, which costs 0.1 s.
        store = self._near = open_store(self.address, self.server.environment())
        self._far: Store | None = None
        self._pause: Callable[[float], None] = _no_pause
        with ThreadPoolExecutor(_WRITERS) as writers:
            puts = (
                writers.submit(store.put, key, [data])
                for key, data in self.template.objects.items()
            )
            for one in list(puts):
                one.result()
        self.contents = dict(self.template.contents)

    def environment(self) -> dict[str, str]:
        """For commands that go over the line."""
        return self.server.environment() | {"AWS_ENDPOINT": self.line.endpoint}

    def near(self) -> Repository:
        """Directly, as the owner."""
        return open_repository(self._near, PASSPHRASE, StandingClock())

    def far(self, pause: Callable[[float], None]) -> Repository:
        """Likewise, over the line."""
        return open_repository(self.far_store(pause), PASSPHRASE, StandingClock())

    def far_store(self, pause: Callable[[float], None]) -> Store:
        """pause: is called where a request is to be tried again later."""
        self._pause = pause
        if self._far is None:
            place = parse_place(self.address)
            assert isinstance(place, BucketPlace)
            bucket = open_bucket(place, None, self.environment())
            store = ObjectStore(bucket, self.address, lambda seconds: self._pause(seconds))
            self._far = GuardedStore(store)
        return self._far

    def assert_listed(self) -> None:
        """Just the points that there must be."""
        found = {point.point_id for point in self.near().catalog.refresh()}
        assert found == self.contents.keys()

    def assert_sound(self) -> None:
        """Just those, each with its bytes, and `check` finds nothing."""
        self.assert_listed()
        repository = self.near()
        for point_id, content in self.contents.items():
            assert read_disk(repository, repository.point(point_id).disks[0]) == content
        assert_clean(repository)

    def back_up(self, repository: Repository) -> None:
        """One point more, of a disk that shares nothing with others."""
        self._seed += 1
        point = back_up(repository, "web", disk_of(self._seed))
        self.contents[point.point_id] = content_of(self._seed)

    def read(self, repository: Repository) -> None:
        """Every byte of every point, or an error, but no other byte."""
        for point_id, content in self.contents.items():
            assert read_disk(repository, repository.point(point_id).disks[0]) == content

    def list_points(self, repository: Repository) -> None:
        found = {point.point_id for point in repository.catalog.refresh()}
        assert found == self.contents.keys()
        assert not repository.catalog.broken

    def refresh_lease(self, repository: Repository) -> None:
        lease = Lease(repository.sealed, secrets.token_bytes(16), LeaseTerms(MOUNT, 0), lambda: 0.0)
        try:
            lease.refresh()
            assert not lease.lost
        finally:
            lease.release()

    def collect(self, repository: Repository) -> None:
        """What the removed point left is put into trash, and goes."""
        collect(repository, CollectTerms(wait_s=0.0), Silent(), lambda _: None)


def content_of(seed: int) -> bytes:
    """Of the disk that has this seed."""
    disk = disk_of(seed)
    return disk.content(0, disk.size)


def _no_pause(_seconds: float) -> None:
    pass
