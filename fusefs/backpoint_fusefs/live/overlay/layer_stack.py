"""A disk's layers over its base: which of them has which bytes, and reading through all of them.

A value: a cut or a commit makes a new one, and whoever still reads through the old one can. Decides
nothing of when layers begin and end.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from backpoint_fusefs.live.live_file import BaseContent
from backpoint_fusefs.live.overlay.block_set import BLOCK
from backpoint_fusefs.live.overlay.layer import Layer, blocks_of

_GAP: Final = 64 << 10
"""Bytes between two stretches of the base up to which both are read as one: chunks are longer."""


class Piece(NamedTuple):
    """Bytes [start, end) of the disk; layer None: of the base, or `zeros`."""

    start: int
    end: int
    layer: Layer | None
    zeros: bool = False


@dataclass(frozen=True, slots=True)
class LayerStack:
    """layers: the lowest first."""

    base: BaseContent
    layers: tuple[Layer, ...] = ()

    @property
    def size(self) -> int:
        return self.layers[-1].size if self.layers else self.base.size

    def pieces(self, start: int, end: int) -> list[Piece]:
        """Cover [start, end) in order; pieces of one kind do not touch."""
        merged: list[Piece] = []
        for piece in self._pieces(len(self.layers), start, end):
            if merged and merged[-1][2:] == piece[2:]:
                merged[-1] = piece._replace(start=merged[-1].start)
            else:
                merged.append(piece)
        return merged

    def read(self, start: int, end: int) -> bytes | memoryview:
        """All of [start, end). Raises OSError, and what the base raises."""
        pieces = self.pieces(start, end)
        if len(pieces) == 1 and not pieces[0].zeros:
            layer = pieces[0].layer
            return layer.data.read(start, end - start) if layer else self._base(start, end)
        view = memoryview(bytearray(end - start))
        for piece in pieces:
            if piece.layer is not None:
                part = view[piece.start - start : piece.end - start]
                piece.layer.data.read_into(piece.start, part)
        self._read_base_into(pieces, start, view)
        return view

    def read_below(self, start: int, end: int) -> bytes | memoryview:
        """What shows through the highest layer where that holds nothing, zeros behind its end."""
        top = self.layers[-1]
        shown = max(start, min(end, top.below_end))
        below = LayerStack(self.base, self.layers[:-1])
        data = below.read(start, shown) if start < shown else b""
        return data if shown == end else bytes(data).ljust(end - start, b"\0")

    def read_cached(self, start: int, end: int) -> bytes | memoryview | None:
        """As `read`; None where anything would have to be waited for."""
        pieces = self.pieces(start, end)
        if len(pieces) == 1 and not pieces[0].zeros and pieces[0].layer is None:
            return self.base.read_cached(start, end - start)
        view = memoryview(bytearray(end - start))
        for piece in pieces:
            part = view[piece.start - start : piece.end - start]
            if piece.layer is not None:
                if not piece.layer.data.read_into_cached(piece.start, part):
                    return None
            elif not piece.zeros:
                data = self.base.read_cached(piece.start, len(part))
                if data is None or len(data) != len(part):
                    return None
                part[:] = data
        return view

    def _pieces(self, count: int, start: int, end: int) -> Iterator[Piece]:
        """Of the base and the lowest `count` layers."""
        if count == 0:
            yield from _clipped(start, end, self.base.size, [Piece(start, end, None)])
            return
        layer = self.layers[count - 1]
        for run in layer.held.runs(start // BLOCK, blocks_of(end)):
            low, high = max(start, run.first * BLOCK), min(end, run.end * BLOCK)
            if run.held:
                yield Piece(low, high, layer)
            else:
                below_end = layer.below_end
                below = self._pieces(count - 1, low, min(high, below_end))
                yield from _clipped(low, high, below_end, below)

    def _base(self, start: int, end: int) -> bytes | memoryview:
        data = self.base.read(start, end - start)
        if len(data) != end - start:
            raise OSError(errno.EIO, f"the point's disk ends early, at {start + len(data)}")
        return data

    def _read_base_into(self, pieces: list[Piece], start: int, view: memoryview) -> None:
        """All pieces of the base, neighbours with one reading."""
        wanted = [piece for piece in pieces if piece.layer is None and not piece.zeros]
        while wanted:
            count = 1
            while count < len(wanted) and wanted[count].start - wanted[count - 1].end <= _GAP:
                count += 1
            near, wanted = wanted[:count], wanted[count:]
            first = near[0].start
            data = memoryview(self._base(first, near[-1].end))
            for piece in near:
                part = data[piece.start - first : piece.end - first]
                view[piece.start - start : piece.end - start] = part


def _clipped(
    start: int, end: int, shown_end: int, shown: Iterator[Piece] | list[Piece]
) -> Iterator[Piece]:
    """`shown` before `shown_end`, zeros from there on."""
    if start < shown_end:
        for piece in shown:
            yield piece._replace(end=min(piece.end, shown_end))
    if end > shown_end:
        yield Piece(max(start, shown_end), end, None, zeros=True)
