"""Grains between a stream that only goes forward and readers that are not quite in order.

Decides what is kept and what is known: below `position` every byte is held, or was given away, or
is zero. Bounded: what is held by `room`, what is remembered of grains that are gone by a count.
Knows no threads and no stream.
"""

from __future__ import annotations

from typing import Final

_GONE_MAX: Final = 8192
"""Grains remembered as gone (512 MiB of disk); what lies below all of them is out of reach."""


class Request:
    """A read that waits for the stream: a part of the disk and where its bytes go."""

    def __init__(self, offset: int, target: memoryview) -> None:
        """target: bytes, all zero; only grains are copied into it."""
        self.offset = offset
        self._target = target
        self.end = offset + len(target)

    def wants(self, offset: int, length: int) -> int:
        """How many bytes of a grain lie in it."""
        return max(0, min(offset + length, self.end) - max(offset, self.offset))

    def deliver(self, offset: int, data: bytes) -> int:
        """Take what is wanted of a grain; how many bytes that were."""
        count = self.wants(offset, len(data))
        if count:
            start = max(offset, self.offset)
            here = start - self.offset
            self._target[here : here + count] = memoryview(data)[start - offset :][:count]
        return count


class GrainWindow:
    """For one thread at a time. A byte is given once; who asks again is refused."""

    def __init__(self, room: int) -> None:
        """room: bytes that may be held."""
        self._room = room
        self._held: dict[int, bytes] = {}
        self._wanted: dict[int, int] = {}
        self._held_bytes = 0
        self._gone: dict[int, int] = {}
        self._out_of_reach = 0
        self.position = 0
        """Below it, the disk is known."""

    def has_room(self, count: int) -> bool:
        """Whether so many bytes can be held without dropping others."""
        return self._held_bytes + count <= self._room

    def add(self, offset: int, data: bytes, given: int) -> None:
        """The next grain of the stream, of which so many bytes were given to readers already.

        The oldest grains are dropped where there is no room.
        """
        self.position = offset + len(data)
        if given >= len(data):
            self._forget(offset, len(data))
            return
        while self._held and not self.has_room(len(data)):
            self._drop(next(iter(self._held)))
        self._held[offset] = data
        self._wanted[offset] = len(data) - given
        self._held_bytes += len(data)

    def serve(self, request: Request) -> bool:
        """Give what is held of it; False where a part is not to be had any more."""
        if request.offset < self._out_of_reach:
            return False
        if any(request.wants(offset, length) for offset, length in self._gone.items()):
            return False
        for offset, data in list(self._held.items()):
            self._wanted[offset] -= request.deliver(offset, data)
            if self._wanted[offset] <= 0:
                self._drop(offset)
        return True

    def drop_all(self) -> None:
        """Nobody will read any more."""
        for offset in list(self._held):
            self._drop(offset)

    def _drop(self, offset: int) -> None:
        data = self._held.pop(offset)
        self._held_bytes -= len(data)
        del self._wanted[offset]
        self._forget(offset, len(data))

    def _forget(self, offset: int, length: int) -> None:
        self._gone[offset] = length
        if len(self._gone) > _GONE_MAX:
            oldest = next(iter(self._gone))
            self._out_of_reach = max(self._out_of_reach, oldest + self._gone.pop(oldest))
