"""A file that a program has open: reads answered from memory where possible, else on a worker.

Decides when to wait for a prefetch that is under way rather than fetch the same again. Errors pass
through untouched; naming them is for `operations.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import outcome
import trio

from backpoint_fusefs.content import Content, Prefetchable
from backpoint_fusefs.decode_workers import DecodeWorkers, Job
from backpoint_fusefs.readahead import NEAR, Depth, SequentialDetector, Window


@dataclass
class PrefetchBudget:
    """Shared by all open files of a mount. limit: bytes that prefetching may fill of the cache.

    in_flight_max: windows that may be under way at once. depth: of the store they come from.
    """

    limit: int
    in_flight_max: int
    depth: Depth = NEAR
    readers: int = 0
    in_flight: int = 0

    @property
    def ahead(self) -> int:
        """Bytes that each sequential reader may have decoded in advance."""
        return min(self.depth.ahead, self.limit // max(1, self.readers))


@dataclass(eq=False)
class OpenFile:
    """For the event loop only. label: `vm time file`, for messages. closed: called at the end."""

    content: Content
    workers: DecodeWorkers
    budget: PrefetchBudget
    label: str
    closed: Callable[[], None] = lambda: None
    _detector: SequentialDetector = field(init=False)
    _waiting: list[Window] = field(init=False, default_factory=list)
    _under_way: dict[Window, tuple[trio.Event, Job]] = field(init=False, default_factory=dict)
    _counted: bool = field(init=False, default=False)

    _prefetchable: Prefetchable | None = field(init=False)

    def __post_init__(self) -> None:
        self._prefetchable = self.content if isinstance(self.content, Prefetchable) else None
        self._detector = SequentialDetector(self.content.size, self.budget.depth.window)

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """Raises as `ImageReader.read`."""
        if self._prefetchable is not None:
            self._prefetch(offset, length, self._prefetchable)
        data = self.content.read_cached(offset, length)
        if data is None and self._under_way:
            await self._settle(offset, length)
            data = self.content.read_cached(offset, length)
        if data is None:
            data = await self.workers.run(self.content.read, offset, length)
        return data

    def close(self) -> None:
        """The program closed it; what is under way ends by itself."""
        self._waiting.clear()
        if self._counted:
            self._counted = False
            self.budget.readers -= 1
        self.closed()

    async def _settle(self, offset: int, length: int) -> None:
        """Wait for the prefetches that bring part of this range."""
        wanted = [
            under_way
            for window, under_way in self._under_way.items()
            if window.offset < offset + length and offset < window.offset + window.length
        ]
        for _, job in wanted:
            # Or the reads of other files would go before it, again and again.
            self.workers.hurry(job)
        for event, _ in wanted:
            await event.wait()

    def _prefetch(self, offset: int, length: int, reader: Prefetchable) -> None:
        self._waiting += self._detector.saw(offset, length, self.budget.ahead)
        if self._detector.sequential != self._counted:
            self._counted = not self._counted
            self.budget.readers += 1 if self._counted else -1
        if not self._counted:
            self._waiting.clear()
        while self._waiting and self.budget.in_flight < self.budget.in_flight_max:
            self._start(self._waiting.pop(0), reader)

    def _start(self, window: Window, reader: Prefetchable) -> None:
        event = trio.Event()

        def deliver(_: outcome.Outcome[Any]) -> None:
            # A failure is left for the read that needs these bytes: it may never come.
            self.budget.in_flight -= 1
            self._under_way.pop(window, None)
            event.set()
            if self._waiting:
                self._start(self._waiting.pop(0), reader)

        self.budget.in_flight += 1
        job = self.workers.start(reader.prefetch, *window, deliver=deliver)
        self._under_way[window] = event, job
