"""Reed-Solomon over equally long columns: from k of them spare ones, and from any k all others.

The code itself is zfec's: a byte of column i is the value at x_i of a polynomial over GF(2^8), the
spare columns are its values at further points (FORMAT.md 8.2). Knows no packs and no digests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import zfec

from backpoint_repo.store.contract import Piece


def spare_columns(columns: Sequence[Piece], spare: int, wanted: Sequence[int]) -> list[bytes]:
    """Some of the `spare` spare columns of these, by their numbers from 0."""
    encoder: Any = zfec.Encoder(len(columns), len(columns) + spare)
    numbers = tuple(len(columns) + number for number in wanted)
    encoded: list[bytes] = encoder.encode(tuple(columns), numbers)
    return encoded


def restored_columns(known: Mapping[int, Piece], data: int, spare: int) -> list[bytes]:
    """All `data` columns from exactly as many known ones: number -> column, spares from `data` on.

    Whether a known one is right nobody can tell here: one wrong column makes all restored ones so.
    """
    decoder: Any = zfec.Decoder(data, data + spare)
    decoded = decoder.decode(tuple(known.values()), tuple(known))
    return [bytes(column) for column in decoded]
