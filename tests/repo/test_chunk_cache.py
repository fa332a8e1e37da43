"""The cache under many threads: one fetch a chunk, bounded, and a failure hurts only its own."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import ObjectDamaged

IDS = [bytes([number]) * 32 for number in range(64)]
WAIT_S = 20


def content(content_id: bytes) -> bytes:
    return content_id * 3


def fetcher(ids: list[bytes], log: list[bytes]) -> Callable[[list[int]], list[bytes]]:
    def fetch(missing: list[int]) -> list[bytes]:
        log.extend(ids[at] for at in missing)
        return [content(ids[at]) for at in missing]

    return fetch


def test_hits_are_not_fetched_again() -> None:
    cache, log = ChunkCache(1 << 20), list[bytes]()
    for _ in range(3):
        assert cache.get_all(IDS, fetcher(IDS, log)) == [content(one) for one in IDS]
    assert log == IDS
    assert cache.get(IDS[5]) == content(IDS[5])
    assert cache.get(b"unknown") is None


def test_one_chunk_asked_twice_in_a_call() -> None:
    cache, log = ChunkCache(0), list[bytes]()
    ids = [IDS[0], IDS[1], IDS[0]]
    assert cache.get_all(ids, fetcher(ids, log)) == [content(one) for one in ids]
    assert log == IDS[:2]


def test_bounded_and_least_recently_used_goes_first() -> None:
    cache, log = ChunkCache(3 * 96), list[bytes]()
    for one in IDS[:3]:
        cache.get_all([one], fetcher([one], log))
    assert cache.get(IDS[0]) is not None
    cache.get_all([IDS[3]], fetcher([IDS[3]], log))
    assert [cache.get(one) is not None for one in IDS[:4]] == [True, False, True, True]
    cache.get_all(IDS, fetcher(IDS, log))
    assert sum(cache.get(one) is not None for one in IDS) == 3


def test_a_chunk_larger_than_the_cache_is_served() -> None:
    cache, log = ChunkCache(10), list[bytes]()
    assert cache.get_all(IDS[:2], fetcher(IDS[:2], log)) == [content(one) for one in IDS[:2]]
    assert cache.get(IDS[0]) is None


def test_overlapping_readers_fetch_each_chunk_once() -> None:
    cache, counts, lock = ChunkCache(1 << 20), Counter[bytes](), threading.Lock()
    start = threading.Barrier(8)

    def read(seed: int) -> bool:
        rng = random.Random(seed)
        start.wait(WAIT_S)
        for _ in range(200):
            ids = rng.sample(IDS, rng.randint(1, 20))

            def fetch(missing: list[int], ids: list[bytes] = ids) -> list[bytes]:
                with lock:
                    counts.update(ids[at] for at in missing)
                return [content(ids[at]) for at in missing]

            if cache.get_all(ids, fetch) != [content(one) for one in ids]:
                return False
        return True

    with ThreadPoolExecutor(8) as readers:
        assert all(readers.map(read, range(8)))
    assert counts == Counter(IDS)


class TwoReaders:
    """The second asks while the first is inside its fetch."""

    def __init__(self, first: list[bytes], bad: bytes | None) -> None:
        self.cache = ChunkCache(1 << 20)
        self.first = first
        self.bad = bad
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.fetched_by_second: list[bytes] = []

    def read_first(self) -> list[bytes]:
        def fetch(missing: list[int]) -> list[bytes]:
            self.inside.set()
            assert self.go_on.wait(WAIT_S)
            if self.bad is not None:
                raise ObjectDamaged("one of them is bad")
            return [content(self.first[at]) for at in missing]

        return self.cache.get_all(self.first, fetch)

    def read_second(self, ids: list[bytes]) -> list[bytes]:
        def fetch(missing: list[int]) -> list[bytes]:
            self.go_on.set()
            self.fetched_by_second += [ids[at] for at in missing]
            if self.bad in [ids[at] for at in missing]:
                raise ObjectDamaged("this one is bad")
            return [content(ids[at]) for at in missing]

        return self.cache.get_all(ids, fetch)


def test_two_readers_who_want_each_others_chunks_do_not_lock_up() -> None:
    """Each fetches its own before it waits for the other's."""
    readers = TwoReaders([IDS[0], IDS[1]], None)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(readers.read_first)
        assert readers.inside.wait(WAIT_S)
        ids = [IDS[2], IDS[1], IDS[0]]
        second = threads.submit(readers.read_second, ids)
        assert second.result(WAIT_S) == [content(one) for one in ids]
        assert first.result(WAIT_S) == [content(IDS[0]), content(IDS[1])]
    assert readers.fetched_by_second == [IDS[2]]


def test_a_failure_hurts_only_those_who_want_the_bad_chunk() -> None:
    bad, good = IDS[0], IDS[1]
    for wanted, fails in [(good, False), (bad, True)]:
        readers = TwoReaders([good, bad], bad)
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(readers.read_first)
            assert readers.inside.wait(WAIT_S)
            second = threads.submit(readers.read_second, [IDS[2], wanted])
            with pytest.raises(ObjectDamaged, match="one of them"):
                first.result(WAIT_S)
            if fails:
                with pytest.raises(ObjectDamaged, match="this one"):
                    second.result(WAIT_S)
            else:
                assert second.result(WAIT_S) == [content(IDS[2]), content(wanted)]
        assert readers.cache.get_all([bad], lambda _: [content(bad)]) == [content(bad)]


def test_whatever_ends_a_fetch_poisons_nothing() -> None:
    cache = ChunkCache(1 << 20)

    def interrupted(_: list[int]) -> list[bytes]:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            cache.get_all(IDS[:3], interrupted)
    log: list[bytes] = []
    assert cache.get_all(IDS[:3], fetcher(IDS[:3], log)) == [content(one) for one in IDS[:3]]


def test_sizes_stay_true_through_failures_and_races() -> None:
    """After all that, the cache still holds as much as it may, and no more."""
    cache = ChunkCache(10 * 96)

    def read(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(300):
            ids = rng.sample(IDS, rng.randint(1, 6))

            def fetch(missing: list[int], ids: list[bytes] = ids) -> list[bytes]:
                if rng.random() < 0.2:
                    raise ObjectDamaged("now and then")
                return [content(ids[at]) for at in missing]

            try:
                assert cache.get_all(ids, fetch) == [content(one) for one in ids]
            except ObjectDamaged:
                continue

    with ThreadPoolExecutor(8) as readers:
        list(readers.map(read, range(8)))
    cache.get_all(IDS, fetcher(IDS, []))
    assert sum(cache.get(one) is not None for one in IDS) == 10
