"""Blocks of objects on their way from a store to its readers and into a cache.

Decides which requests are made for them, that readers who want the same block share one, and when a
block is believed to be in the cache. Writing waits for nobody and nobody for it. Knows blocks, not
what is asked of a store.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Final, NamedTuple

from backpoint_repo.errors import RepositoryError
from backpoint_repo.in_threads import in_threads
from backpoint_repo.store.block_cache import BlockCache
from backpoint_repo.store.block_file import BLOCK, Block
from backpoint_repo.store.contract import Store
from backpoint_repo.store.write_behind import WriteBehind

_RUN_MAX: Final = 8
"""Blocks fetched with one ranged get at most."""
_BEHIND_MAX: Final = 32 << 20
"""Bytes fetched that wait for the disk."""

Blocks = dict[int, Block]
Promises = dict[int, Future[Block]]
Runs = list[range]


class _Claim(NamedTuple):
    """What one reader has promised to fetch of an object. kept_later: runs whose promises are not
    to be forgotten before they are on the disk."""

    key: str
    lasting: bool
    promises: Promises
    kept_later: Runs


class BlockFetch:
    """Thread-safe."""

    def __init__(self, inner: Store, cache: BlockCache) -> None:
        self._inner = inner
        self._cache = cache
        self._lock = threading.Lock()
        self._in_flight: dict[tuple[str, int], Future[Block]] = {}
        self._behind = WriteBehind(_BEHIND_MAX)

    def fetch(self, key: str, missing: Sequence[int], *, lasting: bool) -> Blocks:
        """Those blocks, each fetched by one of those who want it now; of those behind the object's
        end empty ones. lasting: they are kept with metadata. Raises what a store raises."""
        claim, others = self._claim(key, missing, lasting=lasting)
        mine = claim.promises
        blocks: Blocks = {}
        try:
            self._fetch_claim(claim)
            blocks.update((number, promise.result()) for number, promise in mine.items())
        finally:
            later = {number for run in claim.kept_later for number in run}
            self._forget(key, {at: promise for at, promise in mine.items() if at not in later})
        for number, promise in others.items():
            try:
                blocks[number] = promise.result()
            except _Abandoned:
                blocks.update(self.fetch(key, [number], lasting=lasting))
        return blocks

    def lose(self, key: str) -> bool:
        """Forget whatever is or comes here of an object. False where there was nothing."""
        with self._lock:
            coming = [at for at, block in self._in_flight.items() if at[0] == key and block.done()]
            for at in coming:
                del self._in_flight[at]
        return self._cache.lose(key) or bool(coming)

    def settle(self) -> None:
        """Wait until all that was fetched is kept, or given up."""
        self._behind.settle()

    def _claim(self, key: str, missing: Sequence[int], *, lasting: bool) -> tuple[_Claim, Promises]:
        """Promises of ours, and those of others."""
        mine: Promises = {}
        others: Promises = {}
        with self._lock:
            for number in missing:
                promise = self._in_flight.get((key, number))
                if promise is None:
                    mine[number] = self._in_flight[key, number] = Future()
                else:
                    others[number] = promise
        return _Claim(key, lasting, mine, []), others

    def _fetch_claim(self, claim: _Claim) -> None:
        """Keeps each promise, or raises."""
        for number, promise in claim.promises.items():
            # Somebody may have kept it between our looking for it and our promise.
            part = self._cache.find(claim.key, number, 0, BLOCK, lasting=claim.lasting)
            if part is not None:
                promise.set_result(Block(part.data, part.last))
        left = [number for number, promise in claim.promises.items() if not promise.done()]
        jobs = [partial(self._fetch_run, claim, run) for run in plan_runs(left)]
        if len(jobs) == 1 or self._inner.lanes == 1:
            for job in jobs:
                job()
        elif jobs:
            with closing(in_threads(jobs, threads=min(len(jobs), self._inner.lanes))) as done:
                for _ in done:
                    pass

    def _fetch_run(self, claim: _Claim, run: range) -> None:
        promises = {number: claim.promises[number] for number in run}
        wanted = len(run) * BLOCK
        try:
            data = self._inner.get_range(claim.key, run.start * BLOCK, wanted)[:wanted]
        except RepositoryError as error:
            for promise in promises.values():
                promise.set_exception(error)
            raise
        blocks = cut_blocks(data, to_end=len(data) < wanted and bool(data or not run.start))
        for at, promise in enumerate(promises.values()):
            promise.set_result(blocks[at] if at < len(blocks) else Block(b"", last=True))
        keeping = partial(self._keep, claim.key, claim.lasting, blocks, promises)
        if self._behind.add(len(data), keeping):
            claim.kept_later.append(run)

    def _keep(self, key: str, lasting: bool, blocks: list[Block], promises: Promises) -> None:
        """Until a block is on the disk its promise is where others find it."""
        with self._lock:
            trusted = all(self._in_flight.get((key, at)) is promises[at] for at in promises)
        if trusted:
            self._cache.keep(key, min(promises), blocks, lasting=lasting)
        self._forget(key, promises)

    def _forget(self, key: str, promises: Promises) -> None:
        with self._lock:
            for number, promise in promises.items():
                if self._in_flight.get((key, number)) is promise:
                    del self._in_flight[key, number]
                if not promise.done():
                    promise.set_exception(_Abandoned())


class _Abandoned(Exception):
    """Who promised a block was stopped; it says nothing about the block."""


def plan_runs(numbers: Sequence[int]) -> list[range]:
    """Ascending numbers of blocks, as runs of neighbours of at most 8."""
    runs: list[range] = []
    for number in numbers:
        if runs and runs[-1].stop == number and len(runs[-1]) < _RUN_MAX:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


def cut_blocks(data: bytes, *, to_end: bool) -> list[Block]:
    """Bytes from the start of a block on, as blocks. to_end: the object ends with them."""
    view = memoryview(data)
    blocks = [Block(view[at : at + BLOCK], last=False) for at in range(0, len(data), BLOCK)]
    if not to_end:
        return blocks
    if blocks and len(blocks[-1].data) < BLOCK:
        return [*blocks[:-1], Block(blocks[-1].data, last=True)]
    return [*blocks, Block(b"", last=True)]
