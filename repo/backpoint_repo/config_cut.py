"""A VM's configuration file cut into chunks: a fixed grid, because such files are small.

Knows how the pieces are padded and named (FORMAT.md, "Points"); where they are stored is a backup
session's business.
"""

from __future__ import annotations

from typing import NamedTuple

from blake3 import blake3

from backpoint_repo.errors import UsageError
from backpoint_repo.format import BLOCK_SIZE
from backpoint_repo.point import FILE_CHUNK, FILE_SIZE_MAX, ConfigFile


class ConfigCut(NamedTuple):
    """The file as a point lists it, and the content of its chunks, in order."""

    file: ConfigFile
    pieces: tuple[bytes, ...]


def cut_config_file(name: str, data: bytes, id_key: bytes) -> ConfigCut:
    """id_key: of chunks. Raises UsageError where the file is too large."""
    if len(data) > FILE_SIZE_MAX:
        raise UsageError(f"{name} is too large for a configuration file ({len(data)} bytes)")
    padded = data + bytes(-len(data) % BLOCK_SIZE)
    pieces = tuple(padded[at : at + FILE_CHUNK] for at in range(0, len(padded), FILE_CHUNK))
    ids = tuple(blake3(piece, key=id_key).digest() for piece in pieces)
    return ConfigCut(ConfigFile(name, len(data), ids), pieces)
