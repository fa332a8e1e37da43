"""Threads share fetches, but not the failures of chunks they did not ask for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import ObjectDamaged

GOOD, BAD = b"good", b"bad"


def test_failure_of_a_neighbour_is_not_ours() -> None:
    """One thread fetches a good and a damaged chunk; another waits for the good one only."""
    cache = ChunkCache(1 << 20)
    fetching, waiting = threading.Event(), threading.Event()

    def fetch_both(missing: list[int]) -> list[bytes]:
        fetching.set()
        assert waiting.wait(20)
        raise ObjectDamaged("bad")

    def fetch_good(missing: list[int]) -> list[bytes]:
        """Asked for the other good chunk at once, for the shared one after the failure."""
        waiting.set()
        return [b"content"] * len(missing)

    with ThreadPoolExecutor(1) as thread:
        failing = thread.submit(cache.get_all, [GOOD, BAD], fetch_both)
        assert fetching.wait(20)
        assert cache.get_all([b"other", GOOD], fetch_good) == [b"content"] * 2
        with pytest.raises(ObjectDamaged):
            failing.result()
    assert cache.get(GOOD) == b"content"
    assert cache.get(BAD) is None


def test_own_failure_is_told_to_every_waiter() -> None:
    cache = ChunkCache(1 << 20)
    fetching, waiting = threading.Event(), threading.Event()

    def fetch_first(missing: list[int]) -> list[bytes]:
        fetching.set()
        assert waiting.wait(20)
        raise ObjectDamaged("bad")

    def fetch_second(missing: list[int]) -> list[bytes]:
        waiting.set()
        if missing == [0]:
            return [b"content"]
        raise ObjectDamaged("bad again")

    with ThreadPoolExecutor(1) as thread:
        failing = thread.submit(cache.get_all, [BAD], fetch_first)
        assert fetching.wait(20)
        with pytest.raises(ObjectDamaged, match="bad again"):
            cache.get_all([GOOD, BAD], fetch_second)
        with pytest.raises(ObjectDamaged):
            failing.result()
