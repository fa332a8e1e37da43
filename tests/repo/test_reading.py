"""Reading a point under a lease that pins it."""

from __future__ import annotations

import pytest

from backpoint_repo.errors import ObjectMissing, StoreReadOnly
from backpoint_repo.format import Kind
from backpoint_repo.lease import READ, SEEN_ALL
from backpoint_repo.lease_book import read_leases
from backpoint_repo.pin import pin_of
from backpoint_repo.reading import reading
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.contract import Piece
from backpoint_repo.store.memory import MemoryStore
from small_repository import PASSPHRASE, assert_clean, back_up, new_repository, read_disk
from synthetic_disk import random_disk

DISK = random_disk(1 << 20, 1)


def no_trouble(message: str) -> None:
    raise AssertionError(message)


def test_the_point_is_pinned_as_long_as_it_is_read(repository: Repository) -> None:
    point = back_up(repository, "vm", DISK)
    with reading(repository, point, no_trouble):
        (lease,) = read_leases(repository.sealed)
        assert (lease.purpose, lease.epoch) == (READ, SEEN_ALL)
        assert lease.pins == (point.point_id,)
        assert lease.roots == pin_of(point).roots
    assert read_leases(repository.sealed) == []
    assert_clean(repository)


def test_a_point_that_is_gone_is_not_read(repository: Repository) -> None:
    point = back_up(repository, "vm", DISK)
    repository.sealed.delete(Kind.POINT, point.point_id.hex())
    with pytest.raises(ObjectMissing), reading(repository, point, no_trouble):
        pass
    assert read_leases(repository.sealed) == []


class ReadOnlyStore(MemoryStore):
    """Until it is told, it lets others write."""

    closed = False

    def put(self, key: str, pieces: list[Piece]) -> None:
        if self.closed:
            raise StoreReadOnly("read-only")
        super().put(key, pieces)


def test_a_store_that_cannot_be_written_is_read_without_protection() -> None:
    store = ReadOnlyStore()
    point = back_up(new_repository(store), "vm", DISK)
    store.closed = True
    repository = open_repository(store, PASSPHRASE)
    told: list[str] = []
    with reading(repository, point, told.append):
        assert read_disk(repository, point.disks[0]) == DISK.content(0, DISK.size)
    (message,) = told
    assert "pruned while it is read" in message
    assert_clean(repository)
