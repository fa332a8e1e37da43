"""The checksum at the start of every superblock and node, in its first 32 bytes.

Decides whether a block agrees with it; of xxhash, which nothing that we have computes, nothing can
be said, and it passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Final

import numpy as np
from dissect.util.hash import crc32c

from backpoint_fusefs.guest.filesystem import GuestUnsupported
from backpoint_fusefs.guest.parsers.crc32c_rows import crc32c_of_rows

_FIELD: Final = 32
# crc32c of 16 KiB: 150 us by dissect's loop; by array 45 us if there are many, 500 us if one.
_ROWS_MIN: Final = 6


@dataclass(frozen=True)
class Checksum:
    """digest: of a block without its checksum field. rows: the blocks may be looked at together."""

    digest: Callable[[bytes], bytes] | None
    rows: bool = False

    def holds(self, block: bytes) -> bool:
        """Whether the block is as it was written."""
        if self.digest is None:
            return True
        expected = self.digest(block[_FIELD:])
        return block[: len(expected)] == expected

    def hold(self, blocks: Sequence[bytes]) -> list[bool]:
        """The same of several blocks of one size."""
        if not self.rows or len(blocks) < _ROWS_MIN:
            return [self.holds(block) for block in blocks]
        rows = np.frombuffer(b"".join(blocks), np.uint8).reshape(len(blocks), -1).copy()
        stored = rows[:, :4].copy().view("<u4")[:, 0]
        # Rows begin from the state of all ones. Zeros from a state of zero leave it so, up to where
        # the covered bytes begin, from all ones again.
        rows[:, :4] = 0xFF
        rows[:, 4:_FIELD] = 0
        rows[:, _FIELD : _FIELD + 4] ^= 0xFF
        holding: list[bool] = (crc32c_of_rows(rows) == stored).tolist()
        return holding


def checksum_of(kind: int) -> Checksum:
    """By the superblock's csum_type."""
    if kind == 0:
        return Checksum(_crc32c, rows=True)
    if kind == 1:
        return Checksum(None)
    if kind == 2:
        return Checksum(lambda data: sha256(data).digest())
    if kind == 3:
        return Checksum(lambda data: blake2b(data, digest_size=_FIELD).digest())
    raise GuestUnsupported(f"its checksum type {kind} is unknown")


def _crc32c(data: bytes) -> bytes:
    value: int = crc32c.crc32c(data)
    return value.to_bytes(4, "little")
