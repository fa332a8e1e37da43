"""A store behind a cache: it says what the store says, and asks it for each byte once."""

from __future__ import annotations

import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from backpoint_repo.errors import ObjectMissing, StoreUnavailable
from backpoint_repo.store.block_cache import BlockCache
from backpoint_repo.store.block_fetch import plan_runs
from backpoint_repo.store.block_file import BLOCK
from backpoint_repo.store.cached_store import CachedStore
from backpoint_repo.store.contract import StoredObject, Tail
from counting_store import CountingStore

KEY = bytes(32)
PACK, NODES = "packs/ab/abcd", "nodes/ab/abcd"


def cache_in(folder: Path, limit: int = 64 << 20) -> BlockCache:
    cache = BlockCache(folder / "cache" / "id" / "blocks", KEY, limit)
    cache.make()
    return cache


@pytest.fixture
def inner() -> CountingStore:
    return CountingStore()


@pytest.fixture
def store(inner: CountingStore, tmp_path: Path) -> CachedStore:
    return CachedStore(inner, cache_in(tmp_path))


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("key", [PACK, NODES])
def test_neighbours_come_with_one_request_and_once(
    inner: CountingStore, store: CachedStore, key: str
) -> None:
    pack = content(12 * BLOCK + 77)
    inner.put(key, [pack])
    assert store.get_range(key, BLOCK + 5, 3 * BLOCK) == pack[BLOCK + 5 : 4 * BLOCK + 5]
    assert inner.asked == [(key, BLOCK, 4 * BLOCK)]
    assert store.get_range(key, 4 * BLOCK, BLOCK + 9) == pack[4 * BLOCK : 5 * BLOCK + 9]
    assert inner.asked[1:] == [(key, 5 * BLOCK, BLOCK)]
    assert store.get_range(key, 0, 20 * BLOCK) == pack
    assert sorted(inner.asked[2:]) == [
        (key, 0, BLOCK),
        (key, 6 * BLOCK, 8 * BLOCK),
        (key, 14 * BLOCK, 6 * BLOCK),
    ]
    store.settle()
    again = CachedStore(inner, store._cache)
    inner.asked.clear()
    assert again.get_range(key, 0, 20 * BLOCK) == pack
    assert again.get_range(key, 12 * BLOCK + 70, 100) == pack[12 * BLOCK + 70 :]
    assert again.get_range(key, 13 * BLOCK, 1) == b""
    assert again.get_tail(key, 2 * BLOCK) == Tail(len(pack), pack[-2 * BLOCK :])
    assert again.size(key) == len(pack)
    assert (inner.asked, inner.looks) == ([], [])


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_the_end_of_an_object_is_known_from_its_tail(
    inner: CountingStore, store: CachedStore, size: int
) -> None:
    inner.put(PACK, [data := content(size)])
    for _ in range(2):
        assert store.get_tail(PACK, 100) == Tail(size, data[max(0, size - 100) :])
        assert store.size(PACK) == size
        assert store.get_tail(PACK, 0) == Tail(size, b"")
        assert store.get_range(PACK, max(0, size - 9), 100) == data[max(0, size - 9) :]
        assert len(inner.asked) == (2 if size == BLOCK + 1 else 1)
    assert inner.looks == []
    assert store.get_range(PACK, 0, size + 100) == data
    assert store.get_tail(PACK, size + 5) == Tail(size, data)


def test_what_may_change_is_asked_of_the_store_itself(
    inner: CountingStore, store: CachedStore
) -> None:
    for key in ("config", "slots/a", "leases/a", "trash/a", "damage/a", "notes/a", "policy/a"):
        inner.put(key, [b"old"])
        assert store.get(key) == store.get_range(key, 0, 9) == store.get_tail(key, 9).data == b"old"
        inner.delete(key)
        for ask in (store.get, store.size):
            with pytest.raises(ObjectMissing):
                ask(key)
        inner.put(key, [b"other"])
        assert store.get(key) == b"other"
        assert store.size(key) == 5


@pytest.mark.parametrize("folder", ["points", "catalog", "index"])
def test_small_objects_are_read_once_and_their_being_there_is_not_cached(
    inner: CountingStore, store: CachedStore, folder: str
) -> None:
    key = f"{folder}/a"
    with pytest.raises(ObjectMissing):
        store.get(key)
    store.put(key, [b"content"])
    assert [store.get(key) for _ in range(3)] == [b"content"] * 3
    assert len(inner.asked) == 1
    assert list(store.list("")) == [StoredObject(key, 7)]
    inner.delete(key)
    assert list(store.list("")) == []
    with pytest.raises(ObjectMissing):
        store.size(key)


def test_large_catalogues_are_kept_and_large_segments_are_not(
    inner: CountingStore, store: CachedStore
) -> None:
    """Those are kept decoded, by others."""
    large = content(2 * BLOCK)
    for folder, times in (("catalog", 1), ("index", 2)):
        inner.put(f"{folder}/a", [large])
        inner.asked.clear()
        assert store.get(f"{folder}/a") == store.get(f"{folder}/a") == large
        assert len(inner.asked) == times


def test_what_is_deleted_is_gone(inner: CountingStore, store: CachedStore) -> None:
    inner.put(PACK, [content(BLOCK + 5)])
    store.get_range(PACK, 0, 2 * BLOCK)
    store.delete(PACK)
    with pytest.raises(ObjectMissing):
        store.get_range(PACK, 0, 2 * BLOCK)
    with pytest.raises(ObjectMissing):
        store.get_tail(PACK, 5)
    with pytest.raises(ObjectMissing):
        store.size(PACK)


def test_readers_of_one_block_share_its_fetch(inner: CountingStore, store: CachedStore) -> None:
    """Also those that come between its arrival and its being kept; each run is asked for once."""
    pack = content(6 * BLOCK)
    inner.put(PACK, [pack])
    start = threading.Barrier(12)

    def read(me: int) -> bool:
        start.wait()
        at = me * BLOCK // 3
        return store.get_range(PACK, at, 2 * BLOCK) == pack[at : at + 2 * BLOCK]

    with ThreadPoolExecutor(12) as readers:
        assert all(readers.map(read, range(12)))
    blocks = [
        at for _, offset, length in inner.asked for at in range(offset, offset + length, BLOCK)
    ]
    assert sorted(blocks) == [number * BLOCK for number in range(6)]
    store.settle()
    assert store._fetch._in_flight == {}


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), ObjectMissing("gone")])
def test_a_failure_of_the_store_is_told_and_not_remembered(
    inner: CountingStore, store: CachedStore, fault: Exception
) -> None:
    inner.put(PACK, [pack := content(BLOCK)])
    inner.fault = fault
    for _ in range(2):
        with pytest.raises(type(fault)):
            store.get_range(PACK, 0, 20 * BLOCK)
        with pytest.raises(type(fault)):
            store.get_tail(PACK, 5)
    inner.fault = None
    assert store.get_range(PACK, 0, 20 * BLOCK) == pack
    inner.fault = fault
    assert store.get_range(PACK, 0, 20 * BLOCK) == pack


def test_who_waits_for_a_reader_that_is_stopped_reads_itself(
    inner: CountingStore, store: CachedStore
) -> None:
    """A signal that ends one reader says nothing about the block."""
    inner.put(PACK, [pack := content(2 * BLOCK)])
    ask, others = inner.get_range, ThreadPoolExecutor(4)
    waiting: list[Future[bytes]] = []

    def stopped(key: str, offset: int, length: int) -> bytes:
        inner.get_range = ask  # type: ignore[method-assign]
        waiting.extend(others.submit(store.get_range, PACK, at, BLOCK) for at in (0, 9, 99, BLOCK))
        raise SystemExit

    inner.get_range = stopped  # type: ignore[method-assign]
    with others:
        with pytest.raises(SystemExit):
            store.get_range(PACK, 0, 2 * BLOCK)
        for at, found in zip((0, 9, 99, BLOCK), waiting, strict=True):
            assert found.result() == pack[at : at + BLOCK]
    store.settle()
    assert store._fetch._in_flight == {}


def test_who_reads_data_once_uses_the_cache_and_does_not_fill_it(
    inner: CountingStore, store: CachedStore
) -> None:
    once = CachedStore(inner, store._cache, keeps_data=False)
    pack = content(9 * BLOCK)
    for key in (PACK, NODES):
        inner.put(key, [pack])
    for _ in range(2):
        assert once.get_range(PACK, 5, 99) == pack[5:104]
    assert inner.asked == [(PACK, 5, 99)] * 2
    store.get_range(PACK, 0, BLOCK)
    store.settle()
    inner.asked.clear()
    assert once.get_range(PACK, 5, 99) == pack[5:104]
    assert inner.asked == []
    assert once.get_range(PACK, BLOCK - 5, 10) == pack[BLOCK - 5 : BLOCK + 5]
    assert once.get_range(NODES, 0, 5) == pack[:5]
    assert len(inner.asked) == 2


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [
        ([], []),
        ([3], [range(3, 4)]),
        ([0, 1, 3, 4, 9], [range(2), range(3, 5), range(9, 10)]),
        (list(range(18)), [range(8), range(8, 16), range(16, 18)]),
    ],
)
def test_runs_of_neighbours(numbers: list[int], runs: list[range]) -> None:
    assert plan_runs(numbers) == runs
