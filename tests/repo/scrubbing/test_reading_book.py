"""READING objects: merged when many, by several at once, beside damaged ones, without deletes."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpoint_repo.check import check_repository
from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from backpoint_repo.scrubbing.reading_book import MERGE_AFTER, ReadingBook
from backpoint_repo.scrubbing.readings import OPENED, Rows, row_of, rows_of
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.memory import MemoryStore
from repo.scrubbing.scrub_scene import WatchedStore, over, scrubbed
from small_repository import NOON, assert_clean, keys_of, new_repository, reopened

PACKS = [PackRef(Kind.DATA_PACK, bytes([number]) * 16) for number in range(3 * MERGE_AFTER)]


@pytest.fixture
def watched() -> WatchedStore:
    return WatchedStore(MemoryStore())


@pytest.fixture
def repository(watched: WatchedStore) -> Repository:
    return new_repository(watched)


def reading(number: int) -> Rows:
    return rows_of([row_of(PACKS[number], NOON + number, OPENED)])


def known(repository: Repository, packs: list[PackRef] = PACKS) -> int:
    """How many packs have a reading, as a new scrub sees it."""
    found = ReadingBook(repository.sealed, packs, NOON).readings.last_good(OPENED)
    return int((found >= NOON).sum())


def test_many_become_one(repository: Repository) -> None:
    book = ReadingBook(repository.sealed, PACKS, NOON)
    for number in range(MERGE_AFTER):
        book.add(reading(number), NOON)
    assert len(keys_of(repository.sealed.store, Kind.READING)) == 1
    assert known(repository) == MERGE_AFTER
    assert_clean(repository)


def test_merging_drops_packs_that_are_gone(repository: Repository) -> None:
    book = ReadingBook(repository.sealed, PACKS, NOON)
    for number in range(MERGE_AFTER - 1):
        book.add(reading(number), NOON)
    book = ReadingBook(repository.sealed, PACKS[5:], NOON)
    book.add(reading(MERGE_AFTER - 1), NOON)
    assert len(keys_of(repository.sealed.store, Kind.READING)) == 1
    assert known(repository) == MERGE_AFTER - 5


def test_two_merge_at_once_and_a_third_only_looks(repository: Repository) -> None:
    """Each step of one between steps of the other; nothing is forgotten by whoever looks."""
    one, two = (ReadingBook(repository.sealed, PACKS, NOON) for _ in range(2))
    for number in range(2 * MERGE_AFTER):
        (one, two)[number % 2].add(reading(number), NOON)
        assert known(repository) == number + 1
    assert len(keys_of(repository.sealed.store, Kind.READING)) < MERGE_AFTER


def test_what_is_merged_while_we_read_it_is_not_missed(
    watched: WatchedStore, repository: Repository
) -> None:
    """The parts go after the list was read; their union came after it."""
    for number in range(MERGE_AFTER - 1):
        ReadingBook(repository.sealed, PACKS, NOON).add(reading(number), NOON)

    class MergedMeanwhile(WatchedStore):
        merged = False

        def get(self, key: str) -> bytes:
            if key.startswith("readings/") and not self.merged:
                self.merged = True
                other = ReadingBook(repository.sealed, PACKS, NOON)
                other.add(reading(MERGE_AFTER - 1), NOON)
            return super().get(key)

    assert known(over(MergedMeanwhile(watched))) == MERGE_AFTER


def test_a_damaged_one_costs_what_it_said_and_goes_with_the_next_scrub(
    watched: WatchedStore, repository: Repository
) -> None:
    for number in range(5):
        ReadingBook(repository.sealed, PACKS, NOON).add(reading(number), NOON)
    first, second = keys_of(watched, Kind.READING)[:2]
    data = watched.get(first)
    watched.delete(first)
    watched.put(first, [data[:-1]])
    watched.delete(second)
    name = second.rpartition("/")[2]
    repository.sealed.put(Kind.READING, name, encode_record({"rows": b"not a row"}))
    assert known(repository) == 3
    assert len(check_repository(repository).damaged) == 2
    scrubbed(reopened(repository))
    assert len(keys_of(watched, Kind.READING)) == 1
    assert_clean(repository)


def test_who_may_not_delete_merges_nothing(watched: WatchedStore, repository: Repository) -> None:
    watched.refuses_deletes = True
    book = ReadingBook(repository.sealed, PACKS, NOON)
    for number in range(2 * MERGE_AFTER):
        book.add(reading(number), NOON)
    assert known(repository) == 2 * MERGE_AFTER
    assert len(keys_of(watched, Kind.READING)) == 2 * MERGE_AFTER
    assert_clean(repository)


def test_readings_are_files(tmp_path: Path) -> None:
    repository = new_repository(LocalStore(tmp_path / "repo"))
    ReadingBook(repository.sealed, PACKS, NOON).add(reading(1), NOON)
    assert len(list((tmp_path / "repo" / "readings").iterdir())) == 1
    assert known(repository) == 1
