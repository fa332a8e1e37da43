"""A disk as it was when it was cut, for whoever stores it, while its owner writes on.

Reads only maps and data of layers that were cut, which never change; the owner may delete them
meanwhile, as what is open stays. An `ImageSource` (see `backpoint_repo.source.contract`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.live_file import BaseContent
from backpoint_fusefs.live.overlay.block_set import BLOCK, BlockSet
from backpoint_fusefs.live.overlay.layer import Layer, open_cut_layer
from backpoint_fusefs.live.overlay.layer_files import list_layers, read_gone
from backpoint_fusefs.live.overlay.layer_stack import LayerStack, Piece
from backpoint_fusefs.live.overlay.map_snapshot import read_snapshot
from backpoint_repo.errors import SourceError
from backpoint_repo.source.contract import Extent


class CutDisk:
    """Thread-safe. `name` is the folder; set another for messages."""

    name: str

    def __init__(self, folder: Path, base: BaseContent, floor: int, through: int) -> None:
        """base: the disk of the point that holds what was cut up to `floor`. Raises OSError,
        SessionDamaged."""
        self.name = str(folder)
        missing: SessionDamaged | None = None
        layers: tuple[Layer, ...] = ()
        try:
            layers = tuple(_cut_layers(folder, floor, through))
        except SessionDamaged as error:
            missing = error
        # After they are open: whoever deletes them notes it before the last of their names goes.
        if (gone := read_gone(folder)) > floor:
            raise SessionDamaged(
                f"{folder}: what was written up to cut {gone} is in a point already: commit again"
            )
        if missing is not None:
            raise missing
        self._layers: LayerStack | None = LayerStack(base, layers)

    @property
    def _stack(self) -> LayerStack:
        if self._layers is None:
            raise SourceError(f"{self.name}: closed already")
        return self._layers

    @property
    def size(self) -> int:
        return self._stack.size

    def written(self) -> list[tuple[int, int]]:
        """(offset, length) of all that may differ from the point's disk, in whole blocks but at
        the disk's end: what layers hold, and all behind the shortest that the disk ever was."""
        blocks = BlockSet()
        shortest = min([self._stack.base.size, *(layer.below_end for layer in self._stack.layers)])
        if shortest < self.size:
            blocks.add(shortest // BLOCK, -(-self.size // BLOCK))
        for layer in self._stack.layers:
            blocks.add_all(layer.held)
        blocks.clear_from(-(-self.size // BLOCK))
        runs = [(first * BLOCK, min(end * BLOCK, self.size)) for first, end in blocks.held_runs()]
        return [(start, end - start) for start, end in runs]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """See ImageSource. What the point has is data, whatever it is."""
        for piece in self._stack.pieces(offset, offset + length):
            if piece.layer is None:
                yield Extent(piece.start, piece.end - piece.start, piece.zeros)
            else:
                yield from _extents(piece, piece.layer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See ImageSource; what a repository raises for the point's part goes through."""
        try:
            buffer[:] = self._stack.read(offset, offset + len(buffer))
        except OSError as error:
            raise SourceError(
                f"{self.name}: cannot read at offset {offset}: {error.strerror}"
            ) from error

    def close(self) -> None:
        """The files close with the last reading."""
        self._layers = None


def _cut_layers(folder: Path, floor: int, through: int) -> Iterator[Layer]:
    for files in list_layers(folder):
        snapshot = read_snapshot(files.map) if files.map.exists() else None
        if snapshot is not None and floor < snapshot.cut <= through:
            yield open_cut_layer(files, snapshot)


def _extents(piece: Piece, layer: Layer) -> Iterator[Extent]:
    at = piece.start
    for start, end in layer.data.data_stretches(piece.start, piece.end):
        if start > at:
            yield Extent(at, start - at, hole=True)
        yield Extent(start, end - start, hole=False)
        at = end
    if at < piece.end:
        yield Extent(at, piece.end - at, hole=True)
