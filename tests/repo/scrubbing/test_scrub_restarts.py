"""A scrub that ends at any store call: the next goes on, and reads little twice.

Ends in two ways: a signal, after which the store still answers and what was read is noted; and a
dead machine, after which nothing is written any more.
"""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from backpoint_repo.exclusions import read_exclusions
from backpoint_repo.format import Kind
from backpoint_repo.in_threads import THREADS
from backpoint_repo.repository import Repository
from backpoint_repo.scrubbing.scrub import Scrub
from backpoint_repo.scrubbing.scrub_report import ScrubTerms
from backpoint_repo.store.memory import MemoryStore
from faults.failing_store import FailingStore
from repo.scrubbing.scrub_scene import (
    WatchedStore,
    altered,
    data_pack_of,
    disk_of,
    fill,
    over,
    scrubbed,
)
from small_repository import assert_clean, back_up, keys_of, new_repository, reopened

VMS = tuple(f"vm{number}" for number in range(5))
PACKS = 2 * len(VMS)
AHEAD = 2 * THREADS
"""Packs that are being read, or read and not noted yet, when a scrub ends."""


class Ended(Exception):
    """What the store raises in place of a signal or a power cut."""


def end() -> None:
    raise Ended


@pytest.fixture
def watched() -> WatchedStore:
    return WatchedStore(MemoryStore())


@pytest.fixture
def repository(watched: WatchedStore) -> Repository:
    filled = new_repository(watched)
    points = fill(filled, *VMS)
    altered(watched.inner, data_pack_of(filled, points[0]), 150_000)
    return filled


def copy_of(store: MemoryStore) -> MemoryStore:
    copy = MemoryStore()
    for key, _ in list(store.list("")):
        copy.put(key, [store.get(key)])
    return copy


def calls_of_a_scrub(store: MemoryStore, terms: ScrubTerms) -> int:
    counting = FailingStore(copy_of(store), 0, end)
    repository = over(counting)
    before = len(counting.calls)
    scrub = Scrub(repository, terms)
    scrub.read()
    assert scrub.report().packs == PACKS
    return len(counting.calls) - before


@pytest.mark.parametrize("dies", [False, True], ids=["signal", "power"])
@pytest.mark.parametrize("save_bytes", [1, 1 << 30], ids=["each pack saved", "saved at the end"])
def test_ended_at_any_store_call(repository: Repository, dies: bool, save_bytes: int) -> None:
    store = repository.sealed.store
    assert isinstance(store, WatchedStore)
    assert isinstance(store.inner, MemoryStore)
    terms = ScrubTerms(save_bytes=save_bytes)
    first_at = 1 + dies + 2 * (save_bytes == 1)  # together the four ways try every call
    for at in range(first_at, calls_of_a_scrub(store.inner, terms) + 1, 4):
        watched = WatchedStore(copy_of(store.inner))
        opened = over(watched)
        failing = FailingStore(watched, at, end, stays=dies)
        object.__setattr__(opened.sealed, "store", failing)
        ended = False
        try:
            scrub = Scrub(opened, terms)
            scrub.read()
            scrub.report()
        except Ended:
            ended = True
        first = watched.blob_reads()
        marked = len(read_exclusions(over(watched).sealed).damaged)
        report = scrubbed(over(watched))
        unsaved = save_bytes > 1 and (dies or (ended and failing.calls[at - 1][0] == "put"))
        assert_all_read_and_little_twice(first, watched.blob_reads(), PACKS if unsaved else AHEAD)
        assert report.due == 0
        assert report.marked == 1 - marked
        assert {item.vm for item in report.hurt} == {"vm0"}, "also what the first run found"
        assert ended or report.packs == 0
    assert threading.active_count() < 2 * THREADS + 5, "no reader is left over"


def assert_all_read_and_little_twice(
    first: Counter[str], both: Counter[str], twice_max: int
) -> None:
    assert len(both) == PACKS
    # Map nodes are also read to see whom the damage hurts.
    times = {key: both[key] for key in both if key.startswith("packs/")}
    again = [key for key in times if times[key] > 1 and key in first]
    assert len(again) <= twice_max
    assert max(times.values()) <= 2


def test_a_signal_in_the_middle_of_a_wait_ends_it(repository: Repository) -> None:
    """At a rate of one byte a second the threads sleep for days when the main thread is told."""
    scrub = Scrub(reopened(repository), ScrubTerms(rate=1))

    def interrupt(_: int) -> None:
        raise Ended

    with pytest.raises(Ended):
        scrub.read(interrupt)
    assert scrubbed(reopened(repository)).packs == PACKS


def test_after_all_that_a_backup_heals(repository: Repository) -> None:
    with pytest.raises(Ended):
        Scrub(over(FailingStore(repository.sealed.store, 60, end)), ScrubTerms()).read()
    scrubbed(reopened(repository))
    back_up(reopened(repository), "vm0", disk_of("vm0"))
    assert_clean(repository)
    assert keys_of(repository.sealed.store, Kind.READING)
