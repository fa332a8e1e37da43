"""Plain chunks kept in memory, bounded, least recently used first out; one fetch per chunk in
flight.

Shared by all disks of a mount. Decides what is kept and who fetches; how a chunk is fetched is the
caller's.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class ChunkCache:
    """Thread-safe. `limit` in bytes of plain content."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._in_flight: dict[bytes, Future[bytes]] = {}

    def get(self, content_id: bytes) -> bytes | None:
        """The chunk if it is here. Never waits."""
        with self._lock:
            plain = self._kept.get(content_id)
            if plain is not None:
                self._kept.move_to_end(content_id)
            return plain

    def get_all(
        self, ids: Sequence[bytes], fetch: Callable[[list[int]], list[bytes]]
    ) -> list[bytes]:
        """The chunks, in order. What is neither here nor on its way is fetched in one call.

        fetch: indices into `ids` -> their contents. Its error is raised here.
        """
        results: dict[int, bytes] = {}
        mine: list[int] = []
        others: list[tuple[int, Future[bytes]]] = []
        promises: dict[bytes, Future[bytes]] = {}
        with self._lock:
            for at, content_id in enumerate(ids):
                if (plain := self._kept.get(content_id)) is not None:
                    self._kept.move_to_end(content_id)
                    results[at] = plain
                elif (promise := self._in_flight.get(content_id)) is not None:
                    others.append((at, promise))
                else:
                    mine.append(at)
                    promises[content_id] = self._in_flight[content_id] = Future()
        if mine:
            results.update(zip(mine, self._fetch(ids, mine, promises, fetch), strict=True))
        for at, promise in others:
            results[at] = self._await(ids[at], promise, partial(fetch, [at]))
        return [results[at] for at in range(len(ids))]

    def _await(
        self, content_id: bytes, promise: Future[bytes], fetch: Callable[[], list[bytes]]
    ) -> bytes:
        """What another thread fetches. Its fetch may have failed over another chunk: try alone."""
        if promise.exception() is None:
            return promise.result()
        return self.get_all([content_id], lambda _: fetch())[0]

    def _fetch(
        self,
        ids: Sequence[bytes],
        mine: list[int],
        promises: dict[bytes, Future[bytes]],
        fetch: Callable[[list[int]], list[bytes]],
    ) -> list[bytes]:
        try:
            contents = fetch(mine)
        except BaseException as error:
            with self._lock:
                for content_id in promises:
                    del self._in_flight[content_id]
            for promise in promises.values():
                promise.set_exception(error)
            raise
        with self._lock:
            for at, plain in zip(mine, contents, strict=True):
                self._keep(ids[at], plain)
                del self._in_flight[ids[at]]
        for at, plain in zip(mine, contents, strict=True):
            promises[ids[at]].set_result(plain)
        return contents

    def _keep(self, content_id: bytes, plain: bytes) -> None:
        self._kept[content_id] = plain
        self._size += len(plain)
        while self._size > self._limit and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)
