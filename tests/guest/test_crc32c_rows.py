"""CRC-32C of many rows at once, against a loop over bytes."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from dissect.util.hash import crc32c

from backpoint_fusefs.guest.parsers.crc32c_rows import crc32c_of_rows, rows_are_sealed


@pytest.mark.parametrize(
    ("count", "length"), [(1, 512), (37, 512), (5, 1024), (2, 4096), (1, 65536)]
)
def test_each_row_has_the_checksum_of_its_bytes(count: int, length: int) -> None:
    """One row and several, of one unit and of many."""
    data = random.Random(length).randbytes(count * length)
    rows = np.frombuffer(data, np.uint8).reshape(count, length).copy()
    expected = [crc32c.crc32c(data[at : at + length]) for at in range(0, len(data), length)]
    assert crc32c_of_rows(rows).tolist() == expected


def test_a_row_is_sealed_by_its_own_checksum_only() -> None:
    """One good row between a changed one and one without."""
    blank = random.Random(1).randbytes(100) + bytes(412)
    good = blank[:104] + struct.pack("<I", crc32c.crc32c(blank)) + blank[108:]
    changed = bytes([good[0] ^ 1]) + good[1:]
    assert rows_are_sealed(changed + good + blank, 512, 104).tolist() == [False, True, False]
