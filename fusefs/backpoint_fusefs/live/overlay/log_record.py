"""A record of a layer's log: what one sync made durable. Its form and its checksum.

Little-endian, at a multiple of 4096 in the log and filled up to one with zeros, so that no sector
of a record that was promised is ever written again while it counts:
    32 s  BLAKE3 of all that follows, keyed with the layer's identity
    4 s   magic "BPr1"
    u32   kind: 1 content, 2 flushed
    u64   generation of the log; older ones count no more
    u64   sequence number in the generation, from 0
    u64   size of the disk, bytes
    u64   lowest size of the disk since the layer began (what lies below shows only before it)
    u32   length of the set of blocks (see block_set_form)
    u32   length of the content
then the set of blocks, then for `content` the bytes of its blocks, in order. `flushed` has none:
its blocks, and all that earlier records hold, are durable in the data file.
The key keeps a guest from writing blocks that pass for records. When records are written, and what
follows from them after a crash, is for the journal.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from blake3 import blake3

from backpoint_fusefs.live.overlay.block_set import BLOCK

_HEAD: Final = struct.Struct("<4sIQQQQII")
_DIGEST: Final = 32
HEADER: Final = _HEAD.size + _DIGEST
_MAGIC: Final = b"BPr1"


class RecordKind(IntEnum):
    CONTENT = 1
    FLUSHED = 2


class DiskSizes(NamedTuple):
    """size: bytes. below_end: the lowest it was since the layer began."""

    size: int
    below_end: int


class Place(NamedTuple):
    """Where in a log's life a record stands."""

    generation: int
    sequence: int


@dataclass(frozen=True, slots=True)
class RecordHead:
    """What a record's first bytes tell, not yet verified."""

    kind: int
    place: Place
    sizes: DiskSizes
    set_length: int
    content_length: int
    head: bytes
    digest: bytes

    @property
    def body_length(self) -> int:
        return self.set_length + self.content_length

    @property
    def length(self) -> int:
        """In the log, with what it is filled up with."""
        return -(-(HEADER + self.body_length) // BLOCK) * BLOCK

    def is_true(self, body: bytes | memoryview, key: bytes) -> bool:
        whole = len(body) == self.body_length and self.kind in tuple(RecordKind)
        return whole and blake3(self.head, key=key).update(body).digest() == self.digest


def build_record(
    place: Place,
    sizes: DiskSizes,
    set_form: bytes,
    content: Sequence[bytes] | None,
    key: bytes,
) -> bytes:
    """content: None for a `flushed` record."""
    kind = RecordKind.FLUSHED if content is None else RecordKind.CONTENT
    blocks = b"".join(content or ())
    head = _HEAD.pack(_MAGIC, kind, *place, *sizes, len(set_form), len(blocks))
    true = b"".join((head, set_form, blocks))
    filling = bytes(-(_DIGEST + len(true)) % BLOCK)
    return b"".join((blake3(true, key=key).digest(), true, filling))


def parse_head(data: bytes) -> RecordHead | None:
    """data: HEADER bytes or more. None: no record."""
    if len(data) < HEADER or not data.startswith(_MAGIC, _DIGEST):
        return None
    head = data[_DIGEST:HEADER]
    _, kind, generation, sequence, size, below_end, set_length, content = _HEAD.unpack(head)
    return RecordHead(
        kind,
        Place(generation, sequence),
        DiskSizes(size, below_end),
        set_length,
        content,
        head,
        data[:_DIGEST],
    )
