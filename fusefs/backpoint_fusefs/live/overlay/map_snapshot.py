"""A layer's map, written whole: which blocks its data file held when its log began anew.

One file, replaced atomically. Little-endian:
    8 s   magic "BPmap\\0\\0\\0"
    u32   version, 1
    u32   length of the set of blocks (see block_set_form)
    u64   generation of the log whose records come after it
    u64   number of the cut that ended the layer, 0 while it is written to
    u64   size of the disk, bytes
    u64   lowest size of the disk since the layer began
    32 s  identity of the layer, the key of its log's checksums
then the set of blocks, then 32 bytes: BLAKE3 of all before.
All that it tells of is durable in the data file. When to write one is for the journal.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blake3 import blake3

from backpoint_fusefs.live.bounded_file import read_bounded
from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.overlay.block_set import BLOCK, LEAF_BLOCKS, LEAF_BYTES, BlockSet
from backpoint_fusefs.live.overlay.block_set_form import decode_blocks, encode_blocks
from backpoint_fusefs.live.overlay.log_record import DiskSizes
from backpoint_repo.durable_file import write_durably

SIZE_MAX: Final = 64 << 40
"""Bytes of a disk; VMware's largest has 62 TiB."""
_HEAD: Final = struct.Struct("<8sIIQQQQ32s")
_MAGIC: Final = b"BPmap\0\0\0"
_VERSION: Final = 1
_DIGEST: Final = 32
_LIMIT: Final = _HEAD.size + _DIGEST + (SIZE_MAX // BLOCK // LEAF_BLOCKS) * (LEAF_BYTES + 8) + 4


@dataclass(frozen=True, slots=True)
class MapSnapshot:
    """identity: 32 random bytes. cut: 0 while the layer is written to."""

    identity: bytes
    generation: int
    cut: int
    sizes: DiskSizes
    held: BlockSet


def write_snapshot(path: Path, snapshot: MapSnapshot) -> int:
    """Durable when it returns the file's length. Raises OSError, and then nothing changed."""
    form = encode_blocks(snapshot.held)
    head = _HEAD.pack(
        _MAGIC,
        _VERSION,
        len(form),
        snapshot.generation,
        snapshot.cut,
        *snapshot.sizes,
        snapshot.identity,
    )
    whole = head + form
    write_durably(path, whole + blake3(whole).digest())
    return len(whole) + _DIGEST


def read_snapshot(path: Path) -> MapSnapshot:
    """Raises SessionDamaged, OSError."""
    data = read_bounded(path, _LIMIT)
    whole, digest = data[:-_DIGEST], data[-_DIGEST:]
    if not data.startswith(_MAGIC) or len(whole) < _HEAD.size:
        raise SessionDamaged(f"{path} is no map of a session's disk: discard the session")
    _, version, length, generation, cut, size, below_end, identity = _HEAD.unpack_from(whole)
    if version != _VERSION:
        raise SessionDamaged(f"{path} was written by a newer version of this program: use that")
    damaged = SessionDamaged(f"{path} is damaged: its checksum is wrong, discard the session")
    if blake3(whole).digest() != digest or len(whole) != _HEAD.size + length:
        raise damaged
    if not below_end <= size <= SIZE_MAX:
        raise damaged
    try:
        held = decode_blocks(memoryview(whole)[_HEAD.size :], -(-size // BLOCK))
    except ValueError:
        raise damaged from None
    return MapSnapshot(identity, generation, cut, DiskSizes(size, below_end), held)
