"""A disk's folder: which files a layer has, which layers there are, which are gone for good.

    <number>.data  the layer's bytes       (see data_file)
    <number>.log   what was synced since   (see write_ahead_log); not of a layer that was cut
    <number>.map   which blocks it holds   (see map_snapshot); always of a layer that was cut
    gone           layers cut at this number or before are in the point now: 8 s "BPgone\\0\\0",
                   u64 number, 32 s BLAKE3 of both; written before they are deleted
Numbers of layers rise and only order them; which cut a layer belongs to stands in its map. Decides
names and the order of deleting.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blake3 import blake3

from backpoint_fusefs.live.bounded_file import read_bounded
from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_repo.durable_file import fsync_folder, write_durably

_NAME: Final = re.compile(r"([1-9]\d{0,14})\.(data|log|map)")
_GONE: Final = struct.Struct("<8sQ")
_GONE_MAGIC: Final = b"BPgone\0\0"


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """Where a layer's files are or would be."""

    folder: Path
    number: int

    @property
    def data(self) -> Path:
        return self.folder / f"{self.number}.data"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.number}.log"

    @property
    def map(self) -> Path:
        return self.folder / f"{self.number}.map"


def list_layers(folder: Path) -> list[LayerFiles]:
    """All of which there is a file, the lowest first; none where there is no folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    matches = (_NAME.fullmatch(name) for name in names)
    numbers = {int(match[1]) for match in matches if match}
    return [LayerFiles(folder, number) for number in sorted(numbers)]


def make_folder(folder: Path) -> None:
    """Durable, with all above it, for its owner alone."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        fsync_folder(folder.parent)


def read_gone(folder: Path) -> int:
    """The highest cut whose layers are gone; 0 for none. Raises SessionDamaged, OSError."""
    path = folder / "gone"
    if not path.exists():
        return 0
    data = read_bounded(path, _GONE.size + 32)
    if len(data) != _GONE.size + 32 or blake3(data[: _GONE.size]).digest() != data[_GONE.size :]:
        raise SessionDamaged(f"{path} is not what this program wrote: discard the session")
    magic, number = _GONE.unpack_from(data)
    if magic != _GONE_MAGIC or not isinstance(number, int):
        raise SessionDamaged(f"{path} is not what this program wrote: discard the session")
    return number


def delete_layers(layers: Sequence[LayerFiles], through: int) -> None:
    """Those cut at `through` or before, and what was never synced. Raises OSError.

    Data first, which makes the room that the note may need; a map without data is still refused by
    who counts on the layer. The maps go when the note is durable.
    """
    for files in layers:
        files.log.unlink(missing_ok=True)
        files.data.unlink(missing_ok=True)
    with_map = [files for files in layers if files.map.exists()]
    if with_map:
        head = _GONE.pack(_GONE_MAGIC, through)
        write_durably(with_map[0].folder / "gone", head + blake3(head).digest())
    for files in with_map:
        files.map.unlink(missing_ok=True)
