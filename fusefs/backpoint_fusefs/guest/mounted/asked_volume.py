"""A guest's volume for the event loop: its blocking calls run on a thread, one at a time.

A parser that hangs holds up this one thread and whoever wants something of the same volume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

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
        try:
            return await trio.to_thread.run_sync(
                function, *arguments, limiter=self._turn, abandon_on_cancel=True
            )
        except GuestError as error:
            raise type(error)(f"{self._label}: {error}") from error
