"""Packs: blobs back to back, then a sealed directory that says what they are, then a trailer.

A pack explains itself: index segments can be rebuilt from directories alone, and the data keys its
blobs need are listed in it (each sealed to the owner), so compaction copies blobs verbatim. Knows
how packs are laid out, not which chunks go where.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import (
    DIGEST_SIZE,
    HEADER,
    ID_SIZE,
    PACK_TRAILER,
    PACK_TRAILER_MAGIC,
    Kind,
    header,
    object_key,
    parse_header,
)
from backpoint_repo.keyring import KEY_ID_SIZE, SEALED_DATA_KEY_SIZE
from backpoint_repo.map_node import Ids
from backpoint_repo.sealing import Packer, open_record, seal_record
from backpoint_repo.store.contract import Piece, Store

PACK_SIZE: Final = 32 << 20
"""Bytes after which a pack is closed: large enough for sequential reads and few objects."""
_DIRECTORY: Final = struct.Struct("<16sII")  # session id, data keys, blobs
_ENTRY_SIZE: Final = ID_SIZE + 4 + 4 + DIGEST_SIZE
_TAIL_GUESS: Final = 128 << 10
"""Bytes read from a pack's end at first: the directory of 512 chunks and a few keys fit."""


@dataclass(frozen=True)
class PackDirectory:
    """What a pack holds.

    data_keys: key id (16 bytes) -> data key sealed to the owner; empty in node packs.
    ids: (n, 32); lengths, plain_lengths: (n,) uint32, bytes sealed and plain; digests: (n, 16)
    uint8, of the sealed blobs. Blobs lie back to back after the 8-byte header, in this order.
    """

    session: bytes
    data_keys: dict[bytes, bytes]
    ids: Ids
    lengths: NDArray[np.uint32]
    plain_lengths: NDArray[np.uint32]
    digests: NDArray[np.uint8]

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(n,) byte offset of each blob in the pack."""
        ends: NDArray[np.int64] = np.cumsum(self.lengths, dtype=np.int64)
        return ends - self.lengths + HEADER.size

    def encode(self) -> bytes:
        """The plain directory."""
        keys = b"".join(key_id + sealed for key_id, sealed in self.data_keys.items())
        head = _DIRECTORY.pack(self.session, len(self.data_keys), len(self.ids))
        arrays = (self.lengths.astype("<u4"), self.plain_lengths.astype("<u4"), self.digests)
        return head + keys + self.ids.tobytes() + b"".join(a.tobytes() for a in arrays)

    @classmethod
    def decode(cls, data: bytes, key: str) -> PackDirectory:
        """Raises ObjectDamaged where sizes contradict one another."""
        if len(data) < _DIRECTORY.size:
            raise ObjectDamaged(f"{key}: its directory is truncated")
        session, keys, blobs = _DIRECTORY.unpack_from(data)
        key_size = KEY_ID_SIZE + SEALED_DATA_KEY_SIZE
        ids_at = _DIRECTORY.size + keys * key_size
        if len(data) != ids_at + blobs * _ENTRY_SIZE:
            raise ObjectDamaged(f"{key}: its directory has the wrong size")
        starts = range(_DIRECTORY.size, ids_at, key_size)
        data_keys = {
            data[s : s + KEY_ID_SIZE]: data[s + KEY_ID_SIZE : s + key_size] for s in starts
        }
        ids = np.frombuffer(data, np.uint8, blobs * ID_SIZE, ids_at).reshape(-1, ID_SIZE)
        lengths_at = ids_at + blobs * ID_SIZE
        lengths = np.frombuffer(data, "<u4", 2 * blobs, lengths_at).astype(np.uint32)
        digests = np.frombuffer(data, np.uint8, blobs * DIGEST_SIZE, lengths_at + 8 * blobs)
        return cls(
            session,
            data_keys,
            ids,
            lengths[:blobs],
            lengths[blobs:],
            digests.reshape(-1, DIGEST_SIZE),
        )


def blob_digest(blob: bytes | bytearray | memoryview) -> bytes:
    """16 bytes of BLAKE3 over a sealed blob. No secret: the directory that lists it is sealed."""
    return blake3(blob).digest(DIGEST_SIZE)


def new_buffer(size: int = PACK_SIZE + (2 << 20)) -> memoryview:
    """Memory for a pack that is being filled; what is not used costs nothing."""
    return memoryview(mmap.mmap(-1, size))


class PackBuilder:
    """A pack that is being filled."""

    def __init__(
        self, kind: Kind, name: bytes, session: bytes, buffer: memoryview | None = None
    ) -> None:
        """buffer: where it is put together: of a pack that is stored, or a new one. One buffer for
        all of it, because blobs that are kept apart are in memory twice when they are sent."""
        self.kind = kind
        self.name = name
        self.buffer = buffer or new_buffer()
        self.size = 0
        """Bytes of the pack so far."""
        self._session = session
        self._ids: list[bytes] = []
        self._lengths: list[int] = []
        self._plain_lengths: list[int] = []
        self._append(header(kind))

    @property
    def key(self) -> str:
        """Where the pack will be stored."""
        return object_key(self.kind, self.name.hex())

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, content_id: bytes, blob: bytes, plain_length: int) -> int:
        """Append a sealed blob; returns its byte offset in the pack."""
        self._ids.append(content_id)
        self._lengths.append(len(blob))
        self._plain_lengths.append(plain_length)
        return self._append(blob)

    def finish(self, data_keys: dict[bytes, bytes], meta_key: bytes, packer: Packer) -> list[Piece]:
        """The finished object, directory and trailer included. It lies in the buffer, which is free
        again when it is stored."""
        directory = PackDirectory(
            self._session,
            data_keys,
            np.frombuffer(b"".join(self._ids), np.uint8).reshape(-1, ID_SIZE),
            np.array(self._lengths, np.uint32),
            np.array(self._plain_lengths, np.uint32),
            np.frombuffer(self._digests(), np.uint8).reshape(-1, DIGEST_SIZE),
        )
        sealed = seal_record(self.kind, self.key, directory.encode(), meta_key, packer)
        self._append(sealed)
        self._append(PACK_TRAILER.pack(len(sealed), PACK_TRAILER_MAGIC))
        return [self.buffer[: self.size]]

    def _append(self, data: bytes) -> int:
        start, end = self.size, self.size + len(data)
        if end > len(self.buffer):
            grown = new_buffer(2 * end)
            grown[:start] = self.buffer[:start]
            self.buffer = grown
        self.buffer[start:end] = data
        self.size = end
        return start

    def _digests(self) -> bytes:
        found, at = [], HEADER.size
        for length in self._lengths:
            found.append(blob_digest(self.buffer[at : at + length]))
            at += length
        return b"".join(found)


def read_directory(
    store: Store, kind: Kind, name: bytes, meta_key: bytes, packer: Packer
) -> PackDirectory:
    """The directory of a stored pack, checked against the pack's size and kind.

    Raises ObjectMissing, ObjectDamaged, UnknownFormat.
    """
    key = object_key(kind, name.hex())
    size, tail = store.get_tail(key, _TAIL_GUESS)
    head = tail if size <= len(tail) else store.get_range(key, 0, HEADER.size)
    if parse_header(head, key) is not kind:
        raise ObjectDamaged(f"{key}: is not a {kind.name.lower()}")
    if len(tail) < PACK_TRAILER.size:
        raise ObjectDamaged(f"{key}: truncated")
    length, magic = PACK_TRAILER.unpack_from(tail, len(tail) - PACK_TRAILER.size)
    start = size - PACK_TRAILER.size - length
    if magic != PACK_TRAILER_MAGIC or start < HEADER.size:
        raise ObjectDamaged(f"{key}: has no trailer (truncated or overwritten)")
    if length + PACK_TRAILER.size > len(tail):
        tail = store.get_range(key, start, length + PACK_TRAILER.size)
    sealed = tail[len(tail) - PACK_TRAILER.size - length : len(tail) - PACK_TRAILER.size]
    directory = PackDirectory.decode(open_record(kind, key, sealed, meta_key, packer), key)
    if HEADER.size + int(directory.lengths.sum(dtype=np.int64)) != start:
        raise ObjectDamaged(f"{key}: its size contradicts its directory")
    return directory
