"""A volume as the confined process sees it: blocks asked of the parent, recent ones kept.

Decides the size of requests and how much is kept. Knows no filesystem.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged

BLOCK: Final = 64 << 10
_KEPT: Final = 512
"""Blocks: 32 MiB. A directory of 100,000 files has its inodes in 25 MB of an ext4 table."""
_AHEAD: Final = 15
"""Blocks fetched along with what directly follows the last ones: one request and not 16."""
REQUEST_MAX: Final = 4 << 20
"""Bytes asked for at once."""

_AT_ONCE: Final = REQUEST_MAX // BLOCK - _AHEAD

Fetch = Callable[[int, int], bytes]
"""(offset, length) -> exactly these bytes."""


class ChannelImage:
    """See `VolumeImage`. size: bytes."""

    def __init__(self, size: int, fetch: Fetch) -> None:
        self.size = size
        self._fetch = fetch
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._expected = -1

    def read(self, offset: int, length: int) -> bytes:
        """Raises GuestDamaged for a place before the volume; what the parent's fault says."""
        if offset < 0:
            raise GuestDamaged("something points to a place before the volume")
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        if first == last:
            block = self._block(first)
            start = offset - first * BLOCK
            return block[start : start + length]
        if length > _KEPT * BLOCK // 4:
            return self._straight(offset, length)
        joined = b"".join(self._run(first, last))
        start = offset - first * BLOCK
        return joined[start : start + length]

    def _block(self, number: int) -> bytes:
        found = self._blocks.get(number)
        if found is None:
            found = self._fetched(number, number)[0]
        else:
            self._blocks.move_to_end(number)
        return found

    def _run(self, first: int, last: int) -> list[bytes]:
        """Blocks first to last, the missing ones fetched in as few requests as possible."""
        found: list[bytes] = []
        number = first
        while number <= last:
            block = self._blocks.get(number)
            if block is not None:
                self._blocks.move_to_end(number)
                found.append(block)
                number += 1
                continue
            stop = number
            while stop < last and stop + 1 not in self._blocks:
                stop += 1
            stop = min(stop, number + _AT_ONCE - 1)
            found += self._fetched(number, stop)
            number = stop + 1
        return found

    def _fetched(self, first: int, last: int) -> list[bytes]:
        """Blocks first to last, and some behind them for who reads on and on."""
        wanted = last + 1 - first
        if first == self._expected:
            last = min(last + _AHEAD, (self.size - 1) // BLOCK)
        self._expected = last + 1
        start, end = first * BLOCK, min((last + 1) * BLOCK, self.size)
        content = self._fetch(start, end - start)
        blocks = [content[at : at + BLOCK] for at in range(0, end - start, BLOCK)]
        for number, block in enumerate(blocks, first):
            self._blocks[number] = block
        while len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)
        return blocks[:wanted]

    def _straight(self, offset: int, length: int) -> bytes:
        """A read larger than is worth keeping."""
        pieces = []
        while length:
            step = min(length, REQUEST_MAX)
            pieces.append(self._fetch(offset, step))
            offset, length = offset + step, length - step
        return b"".join(pieces)
