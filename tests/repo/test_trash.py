"""Trash epochs: published once, read whole, however a listing behaves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backpoint_repo.errors import ObjectDamaged, UnknownFormat
from backpoint_repo.format import HEADER, MAGIC, Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import StoredObject
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.trash import STUCK, drop_trash, newest_epoch, put_trash, read_trash
from small_repository import NOON, new_repository

BY = b"c" * 16
DATA = PackRef(Kind.DATA_PACK, b"d" * 16)
NODES = PackRef(Kind.NODE_PACK, b"n" * 16)


def test_epochs_are_published_once(repository: Repository) -> None:
    assert read_trash(repository.sealed).newest == 0
    assert put_trash(repository.sealed, 1, {DATA}, 0, BY, NOON)
    assert not put_trash(repository.sealed, 1, {NODES}, 0, BY, NOON)
    assert put_trash(repository.sealed, 2, {NODES}, 0, BY, NOON)
    trash = read_trash(repository.sealed)
    assert trash.newest == 2
    assert dict(trash.epochs) == {1: {DATA}, 2: {NODES}}
    assert trash.packs == {DATA, NODES}
    drop_trash(repository.sealed, 1)
    assert dict(read_trash(repository.sealed).epochs) == {2: {NODES}}


@pytest.mark.parametrize("row", [b"", b"\x03short", b"\x01" + b"d" * 16, b"\x03" + b"d" * 17])
def test_rows_that_name_no_pack(repository: Repository, row: bytes) -> None:
    payload = encode_record({"epoch": 1, "packs": [row]})
    repository.sealed.put(Kind.TRASH, f"{1:016x}", payload)
    with pytest.raises(ObjectDamaged, match="no pack"):
        read_trash(repository.sealed)


def test_an_epoch_under_another_name(repository: Repository) -> None:
    repository.sealed.put(Kind.TRASH, f"{2:016x}", encode_record({"epoch": 1, "packs": []}))
    with pytest.raises(ObjectDamaged, match="another epoch"):
        read_trash(repository.sealed)


class PublishedUnderTheList(MemoryStore):
    """While trash is listed for the first time, two epochs are published; the listing shows only
    the later one: it had passed the other's place already."""

    due = False

    def list(self, prefix: str) -> Iterator[StoredObject]:
        if self.due and prefix.startswith("trash"):
            self.due = False
            assert self.repository is not None
            put_trash(self.repository.sealed, 1, {DATA}, 0, BY, NOON)
            put_trash(self.repository.sealed, 2, {NODES}, 0, BY, NOON)
            yield from (found for found in super().list(prefix) if found.key.endswith("2"))
        else:
            yield from super().list(prefix)

    repository: Repository | None = None


def test_whoever_has_seen_an_epoch_has_seen_those_before_it() -> None:
    store = PublishedUnderTheList()
    store.repository = new_repository(store)
    store.due = True
    trash = read_trash(store.repository.sealed)
    assert trash.newest == 2
    assert trash.packs == {DATA, NODES}


def test_the_newest_says_what_is_over(repository: Repository) -> None:
    """Who was slow can take the number of an epoch that came and went; it means nothing then."""
    for epoch, swept in ((1, 0), (2, 0), (3, 2)):
        assert put_trash(repository.sealed, epoch, {DATA}, swept, BY, NOON)
    trash = read_trash(repository.sealed)
    assert (trash.waiting, trash.over) == ([3], [1, 2])
    for epoch in trash.over:
        drop_trash(repository.sealed, epoch)
    assert put_trash(repository.sealed, 2, {NODES}, 0, BY, NOON)
    trash = read_trash(repository.sealed)
    assert (trash.newest, trash.waiting, trash.over) == (3, [3], [2])


def test_an_epoch_so_high_that_none_could_follow(repository: Repository) -> None:
    put_trash(repository.sealed, (1 << 63) - 1, {DATA}, 0, BY, NOON)
    with pytest.raises(ObjectDamaged, match="impossible"):
        read_trash(repository.sealed)


def test_an_epoch_that_says_it_is_over_itself(repository: Repository) -> None:
    put_trash(repository.sealed, 1, {DATA}, 1, BY, NOON)
    with pytest.raises(ObjectDamaged, match="over itself"):
        read_trash(repository.sealed)


def test_the_newest_epoch_is_the_highest_that_is_there(repository: Repository) -> None:
    assert newest_epoch(repository.sealed) == 0
    for epoch in (9, 10, 0x1F):
        put_trash(repository.sealed, epoch, {DATA}, epoch - 1, BY, NOON)
    assert newest_epoch(repository.sealed) == read_trash(repository.sealed).newest == 0x1F


def test_an_epoch_whose_predecessors_are_missing_was_not_seen(repository: Repository) -> None:
    """It is forged: one may yet be put below it, which nobody has seen. What it names is excluded
    all the same, and what it says of others does not count until they are all there."""
    put_trash(repository.sealed, 1, {DATA}, 0, BY, NOON)
    put_trash(repository.sealed, 3, {NODES}, 1, BY, NOON)
    trash = read_trash(repository.sealed)
    assert (trash.newest, trash.swept, trash.waiting) == (1, 0, [1, 3])
    assert trash.packs == {DATA, NODES}
    assert put_trash(repository.sealed, 2, {NODES}, 0, BY, NOON)
    trash = read_trash(repository.sealed)
    assert (trash.newest, trash.swept) == (3, 1)


def test_what_has_no_name_of_an_epoch_is_passed_over(repository: Repository) -> None:
    """A file manager's, or a copying program's: it is no trash."""
    put_trash(repository.sealed, 1, {DATA}, 0, BY, NOON)
    for name in ("00000000000000ff.part", "index.html", "ff", f"{3:016X}0"):
        repository.sealed.store.put(f"trash/{name}", [b"whatever"])
    assert newest_epoch(repository.sealed) == 1
    assert dict(read_trash(repository.sealed).epochs) == {1: {DATA}}


class DroppedUnderTheList(MemoryStore):
    """Another collector drops an epoch that is over when it has just been listed for the last
    time."""

    listed = 0

    def list(self, prefix: str) -> Iterator[StoredObject]:
        found = list(super().list(prefix))
        self.listed += prefix.startswith("trash")
        if self.listed == 2:
            self.delete(f"trash/{1:016x}")
        yield from found


def test_an_epoch_that_goes_while_trash_is_read() -> None:
    store = DroppedUnderTheList()
    sealed = new_repository(store).sealed
    put_trash(sealed, 1, {DATA}, 0, BY, NOON)
    put_trash(sealed, 2, {NODES}, 1, BY, NOON)
    store.listed = 0
    trash = read_trash(sealed)
    assert dict(trash.epochs) == {2: {NODES}}
    assert (trash.newest, trash.swept) == (2, 1)


class SweptUnderTheReading(MemoryStore):
    """When the first epoch is read, another collector has just put the third, which says that those
    before are over, and dropped the first."""

    repository: Repository | None = None

    def get(self, key: str) -> bytes:
        if key.startswith("trash") and self.repository is not None:
            repository, self.repository = self.repository, None
            put_trash(repository.sealed, 3, {PackRef(Kind.DATA_PACK, b"3" * 16)}, 2, BY, NOON)
            drop_trash(repository.sealed, 1)
        return super().get(key)


def test_epochs_that_come_and_go_while_trash_is_read() -> None:
    """What is left of the first look would say less than is known."""
    store = SweptUnderTheReading()
    repository = new_repository(store)
    put_trash(repository.sealed, 1, {DATA}, 0, BY, NOON)
    put_trash(repository.sealed, 2, {NODES}, 0, BY, NOON)
    store.repository = repository
    trash = read_trash(repository.sealed)
    assert (trash.newest, trash.waiting, trash.over) == (3, [3], [2])


@pytest.mark.parametrize("version", [1, 99])
def test_trash_that_cannot_be_read_says_what_to_do(repository: Repository, version: int) -> None:
    """Nothing goes on before somebody has seen to it, so they must be told how."""
    header = HEADER.pack(MAGIC, Kind.TRASH, version)
    repository.sealed.store.put(f"trash/{1:016x}", [header + b"whatever"])
    with pytest.raises((ObjectDamaged, UnknownFormat)) as raised:
        read_trash(repository.sealed)
    assert STUCK in str(raised.value)
