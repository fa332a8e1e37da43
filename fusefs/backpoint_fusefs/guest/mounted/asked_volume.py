"""A guest's volume for the event loop: its blocking calls run on a thread, one at a time.

A parser that hangs holds up this one thread and whoever wants something of the same volume.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import outcome
import trio

from backpoint_fusefs.guest.filesystem import GuestError
from backpoint_fusefs.guest.guest_volume import GuestVolume

T = TypeVar("T")


class AskedVolume:
    """blocking: to be given to `run`, or called through it. label: for messages."""

    def __init__(self, blocking: GuestVolume, label: str) -> None:
        self.blocking = blocking
        self._label = label
        self._turn = trio.CapacityLimiter(1)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call it on a thread. Raises what it raises, a GuestError with the volume's label; on
        cancellation its result is dropped."""
        with self._labelled():
            return await trio.to_thread.run_sync(
                function, *arguments, limiter=self._turn, abandon_on_cancel=True
            )

    def start(self, function: Callable[[], T]) -> Callable[[], Awaitable[T]]:
        """Call it on a thread at once; what is returned waits for the result, as `run` does."""
        token, there = trio.lowlevel.current_trio_token(), trio.Event()
        results: list[outcome.Outcome[T]] = []

        def deliver(result: outcome.Outcome[T]) -> None:
            results.append(result)
            with contextlib.suppress(trio.RunFinishedError):  # the mount is gone
                token.run_sync_soon(there.set)

        # Not a task: that would begin when this one waits, which is when it needs the result.
        trio.lowlevel.start_thread_soon(function, deliver)

        async def result() -> T:
            await there.wait()
            with self._labelled():
                return results[0].unwrap()

        return result

    @contextlib.contextmanager
    def _labelled(self) -> Iterator[None]:
        try:
            yield
        except GuestError as error:
            raise type(error)(f"{self._label}: {error}") from error
