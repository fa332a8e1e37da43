"""Stored disks for sessions to lie over: bytes in memory, each block telling where it is from."""

from __future__ import annotations

import threading

from backpoint_fusefs.live.overlay.block_set import BLOCK


class BytesBase:
    """A `BaseContent`. reads: how often anything was asked of it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)
        self.reads = 0

    def read_cached(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return self.content[offset : offset + length]

    read = read_cached


class HugeBase:
    """Of any size, and takes no room; its bytes are all 0xB5."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read_cached(self, offset: int, length: int) -> bytes:
        return b"\xb5" * max(0, min(length, self.size - offset))

    read = read_cached


class SlowBase(BytesBase):
    """Answers when `answer` is set, and sets `asked` before it waits."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.asked = threading.Event()
        self.answer = threading.Event()

    def read(self, offset: int, length: int) -> bytes:
        self.asked.set()
        assert self.answer.wait(timeout=30)
        return super().read(offset, length)


def numbered(size: int, mark: int = 0) -> bytes:
    """Each block says its number and `mark`, so that none passes for another."""
    count = -(-size // BLOCK)
    blocks = (f"base {mark} {number:8d} ".encode().ljust(BLOCK, b".") for number in range(count))
    return b"".join(blocks)[:size]
