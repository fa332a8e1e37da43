"""A guest's volume for the event loop: its blocking calls run on a thread, one at a time.

A parser that hangs holds up this one thread and whoever wants something of the same volume.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import outcome
import trio

from backpoint_fusefs.guest.filesystem import GuestError
from backpoint_fusefs.guest.guest_volume import GuestVolume

T = TypeVar("T")


class Ahead(Generic[T]):
    """An answer that is being fetched before anybody needs it."""

    def __init__(self) -> None:
        self._there = trio.Event()
        self._answer: outcome.Outcome[T] | None = None

    async def fetch(self, ask: Callable[[], Awaitable[T]]) -> None:
        """For a task of its own; a failure is kept for whoever needs the answer."""
        self._answer = await outcome.acapture(ask)
        self._there.set()

    async def answer(self) -> T:
        """Raises what fetching it raised."""
        await self._there.wait()
        assert self._answer is not None
        return self._answer.unwrap()


class AskedVolume:
    """blocking: to be given to `run`, or called through it. label: for messages."""

    def __init__(self, blocking: GuestVolume, label: str) -> None:
        self.blocking = blocking
        self._label = label
        self._turn = trio.CapacityLimiter(1)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call it on a thread. Raises what it raises, a GuestError with the volume's label; on
        cancellation its result is dropped."""
        try:
            return await trio.to_thread.run_sync(
                function, *arguments, limiter=self._turn, abandon_on_cancel=True
            )
        except GuestError as error:
            raise type(error)(f"{self._label}: {error}") from error
