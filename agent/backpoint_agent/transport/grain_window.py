"""Grains between a stream that only goes forward and readers that are not quite in order.

Decides what is kept and what is known: below `position` every byte is held, or was given away, or
is zero. Bounded: what is held by `room`, what is remembered of grains that are gone by a count.
Knows no threads and no stream.
"""

from __future__ import annotations

from typing import Final

_GONE_MAX: Final = 65_536
"""Grains remembered as gone (4 GiB of disk); what lies below all of them is out of reach."""


class Request:
    """A read that waits for the stream: a part of the disk and where its bytes go."""

    def __init__(self, offset: int, target: memoryview) -> None:
        """target: bytes, all zero; only grains are copied into it."""
        self._offset = offset
        self._target = target
        self.end = offset + len(target)

    def wants(self, offset: int, length: int) -> int:
        """How many bytes of a grain lie in it."""
        return max(0, min(offset + length, self.end) - max(offset, self._offset))

    def deliver(self, offset: int, data: bytes) -> int:
        """Take what is wanted of a grain; how many bytes that were."""
        count = self.wants(offset, len(data))
        if count:
            start = max(offset, self._offset)
            here = start - self._offset
            self._target[here : here + count] = memoryview(data)[start - offset :][:count]
        return count

    def grains(self, grain_size: int) -> range:
        """Numbers of the grains it touches."""
        return range(self._offset // grain_size, -(-self.end // grain_size))


class GrainWindow:
    """For one thread at a time. A byte is given once; who asks again is refused."""

    def __init__(self, grain_size: int, room: int) -> None:
        """room: bytes that may be held."""
        self._grain_size = grain_size
        self._room = room
        self._held: dict[int, bytes] = {}
        self._wanted: dict[int, int] = {}
        self._held_bytes = 0
        self._gone: dict[int, None] = {}
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
        number = offset // self._grain_size
        self.position = offset + len(data)
        if given >= len(data):
            self._forget(number)
            return
        while self._held and not self.has_room(len(data)):
            self._drop(next(iter(self._held)))
        self._held[number] = data
        self._wanted[number] = len(data) - given
        self._held_bytes += len(data)

    def serve(self, request: Request) -> bool:
        """Give what is held of it; False where a part is not to be had any more."""
        numbers = request.grains(self._grain_size)
        if numbers.start * self._grain_size < self._out_of_reach:
            return False
        if self._touches(numbers, self._gone):
            return False
        for number in [number for number in self._held if number in numbers]:
            given = request.deliver(number * self._grain_size, self._held[number])
            self._wanted[number] -= given
            if self._wanted[number] <= 0:
                self._drop(number)
        return True

    def drop_all(self) -> None:
        """Nobody will read any more."""
        for number in list(self._held):
            self._drop(number)

    def _touches(self, numbers: range, those: dict[int, None]) -> bool:
        if len(numbers) < len(those):
            return any(number in those for number in numbers)
        return any(number in numbers for number in those)

    def _drop(self, number: int) -> None:
        self._held_bytes -= len(self._held.pop(number))
        del self._wanted[number]
        self._forget(number)

    def _forget(self, number: int) -> None:
        self._gone[number] = None
        if len(self._gone) > _GONE_MAX:
            oldest = next(iter(self._gone))
            del self._gone[oldest]
            self._out_of_reach = max(self._out_of_reach, (oldest + 1) * self._grain_size)
