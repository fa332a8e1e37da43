"""One disk of a session: what was written over what the point holds, in layers that can be cut off.

A folder of files per disk (see layer_files). Layers have numbers: the highest is written to, those
below are cut and never change. A block that no layer holds is the base's. A disk that is only read
has no files. What a session is, and when it cuts, is not known here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.live_file import BaseContent
from backpoint_fusefs.live.overlay.block_set import BLOCK
from backpoint_fusefs.live.overlay.cut_disk import CutDisk
from backpoint_fusefs.live.overlay.layer import Layer, blocks_of, open_cut_layer
from backpoint_fusefs.live.overlay.layer_files import (
    LayerFiles,
    delete_layers,
    list_layers,
    make_folder,
    read_gone,
)
from backpoint_fusefs.live.overlay.layer_stack import LayerStack
from backpoint_fusefs.live.overlay.map_snapshot import SIZE_MAX, read_snapshot
from backpoint_fusefs.live.overlay.sync_rounds import SyncRounds
from backpoint_fusefs.live.overlay.top_layer import TopLayer, begin_layer, recover_layer
from backpoint_repo.durable_file import delete_unfinished, fsync_folder

__all__ = ["CutDisk", "OverlayDisk"]


class OverlayDisk:
    """A `LiveFile`. Exclusive: one object for a folder; who sees to that is the caller."""

    def __init__(self, folder: Path, base: BaseContent, floor: int = 0) -> None:
        """Open, after a crash too; the folder is made at the first write, in one that is there.

        floor: layers cut at this number or before are in `base` now; they are deleted. A fresh disk
        writes to layer floor + 1. Raises OSError, and SessionDamaged where the files are not ours.
        """
        self._folder = folder
        self._durable = threading.Lock()
        """Held by who makes anything durable, or changes which layers there are."""
        self._rounds = SyncRounds(self._durable, self._flush)
        self._layers: LayerStack | None = LayerStack(base)
        """None once it is closed."""
        self._number = floor + 1
        """The least that the next layer can have."""
        self._recover(floor)

    @property
    def size(self) -> int:
        return self._stack.size

    @property
    def allocated(self) -> int:
        """Bytes that the layers take on disk."""
        return sum(layer.allocated for layer in self._stack.layers)

    def read_cached(self, offset: int, length: int) -> bytes | memoryview | None:
        stack = self._stack
        end = min(offset + length, stack.size)
        return stack.read_cached(offset, end) if offset < end else b""

    def read(self, offset: int, length: int) -> bytes | memoryview:
        stack = self._stack
        end = min(offset + length, stack.size)
        return stack.read(offset, end) if offset < end else b""

    def write_at_once(self, offset: int, data: bytes | memoryview) -> bool:
        """Whole blocks of a disk that is written to already, a few since the last sync."""
        stack = self._layers
        top = None if stack is None else _top_of(stack)
        if top is None or not data or (offset | len(data)) % BLOCK:
            return False
        return top.write_at_once(offset, memoryview(data).cast("B"))

    def write(self, offset: int, data: bytes | memoryview) -> None:
        content = memoryview(data).cast("B")
        end = offset + len(content)
        if end == offset:
            return
        _refuse_size(end)
        while True:
            stack, top = self._writable()
            if top.write(offset, content, _edges(stack, top, offset, end)):
                return

    def zero(self, offset: int, length: int) -> None:
        """Zeros from here on, taking no room (a guest's discard, FALLOC_FL_PUNCH_HOLE); never
        makes the disk longer."""
        end = min(offset + length, self.size)
        first, last = blocks_of(offset), end // BLOCK
        if first >= last:
            self.write(offset, bytes(max(0, end - offset)))
            return
        self.write(offset, bytes(first * BLOCK - offset))
        while not self._writable()[1].zero_blocks(first, last):
            pass
        self.write(last * BLOCK, bytes(end - last * BLOCK))

    def resize(self, size: int) -> None:
        _refuse_size(size)
        with self._durable:
            if _top_of(self._stack) or size != self.size:
                self._begun()[1].resize(size)

    def sync(self) -> None:
        self._rounds.sync()

    def cut(self, through: int) -> None:
        """All that was written is durable and in layers up to number `through`, which never change
        any more; what follows is written to `through` + 1. To be called while nobody writes; a
        `sync` shortly before makes it short. A disk never written to stays without files."""
        with self._durable:
            stack = self._stack
            if any(layer.cut > through for layer in stack.layers):
                raise ValueError(f"cut {through} comes after a later one")
            self._number = max(self._number, through + 1)
            if (top := _top_of(stack)) is not None:
                top.end(through)
                self._layers = LayerStack(stack.base, (*stack.layers[:-1], top.ended()))
                self._number = max(self._number, top.files.number + 1)

    def rebase(self, base: BaseContent, through: int) -> None:
        """`base` holds all that was cut up to `through` now: read it instead, delete the layers.

        To be called once that is written down: who opens the disk again must say it as `floor`.
        Where it raises OSError, the new base is in use, and the layers go at the next opening.
        """
        with self._durable:
            layers = self._stack.layers
            gone = [layer.files for layer in layers if 0 < layer.cut <= through]
            self._layers = LayerStack(base, layers[len(gone) :])
            # Their room is free only when nobody has them open.
            del layers
            delete_layers(gone, through)

    def close(self) -> None:
        """Syncs nothing. Reads that run end well; later ones raise OSError, as all else does."""
        with self._durable:
            self._layers = None

    @property
    def _stack(self) -> LayerStack:
        if self._layers is None:
            raise OSError(errno.EBADF, "the disk was closed", str(self._folder))
        return self._layers

    def _recover(self, floor: int) -> None:
        if (gone := read_gone(self._folder)) > floor:
            raise SessionDamaged(
                f"{self._folder}: what was written up to cut {gone} was deleted,"
                f" but the session counts on cut {floor}: discard the session"
            )
        delete_unfinished(self._folder)
        old: list[LayerFiles] = []
        if found := list_layers(self._folder):
            # Whoever made them may have ended before their names were durable.
            fsync_folder(self._folder)
        for files in found:
            stack = self._stack
            if (layer := _open_layer(files, stack.size, floor)) is None:
                old.append(files)
                continue
            if _top_of(stack) is not None:
                raise SessionDamaged(f"{files.data} lies over a layer that was not cut")
            self._layers = LayerStack(stack.base, (*stack.layers, layer))
            self._number = max(self._number, files.number + 1)
        # Without room to note that they are gone, they stay until there is.
        with contextlib.suppress(OSError):
            delete_layers(old, floor)

    def _flush(self) -> None:
        if (top := _top_of(self._stack)) is not None:
            top.commit()

    def _writable(self) -> tuple[LayerStack, TopLayer]:
        stack = self._stack
        if (top := _top_of(stack)) is not None:
            return stack, top
        with self._durable:
            return self._begun()

    def _begun(self) -> tuple[LayerStack, TopLayer]:
        """With the layer that is written to, begun where there is none; under `_durable`."""
        stack = self._stack
        if (top := _top_of(stack)) is None:
            make_folder(self._folder)
            top = begin_layer(LayerFiles(self._folder, self._number), stack.size)
            stack = self._layers = LayerStack(stack.base, (*stack.layers, top))
        return stack, top


def _top_of(stack: LayerStack) -> TopLayer | None:
    top = stack.layers[-1] if stack.layers else None
    return top if isinstance(top, TopLayer) else None


def _open_layer(files: LayerFiles, below_size: int, floor: int) -> Layer | None:
    """None: nothing was ever synced, or the point has it. Raises SessionDamaged, OSError."""
    snapshot = read_snapshot(files.map) if files.map.exists() else None
    if snapshot is None and not files.log.exists():
        return None
    if snapshot is None or not snapshot.cut:
        return recover_layer(files, snapshot, below_size)
    if snapshot.cut <= floor:
        return None
    files.log.unlink(missing_ok=True)
    return open_cut_layer(files, snapshot)


def _edges(stack: LayerStack, top: TopLayer, offset: int, end: int) -> dict[int, bytes]:
    """Blocks that [offset, end) covers in part and `top` does not hold: what lies below."""
    below: dict[int, bytes] = {}
    if not (offset | end) % BLOCK:
        return below
    for at in (offset, end):
        block, within = divmod(at, BLOCK)
        if within and block not in below and not top.held.holds(block, block + 1):
            below[block] = bytes(stack.read_below(block * BLOCK, (block + 1) * BLOCK))
    return below


def _refuse_size(size: int) -> None:
    if size > SIZE_MAX:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
