"""How bytes are sealed: blobs under a data key, whole objects under the meta key.

Decides nonces and what is bound as associated data. AES-256-OCB (RFC 7253) with a 96-bit nonce and
a 128-bit tag. No key is ever used twice with one nonce: a blob's nonce is a counter under a key of
one session, an object has a key of its own. Knows no packs, maps or stores.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import zstandard
from blake3 import blake3

from backpoint_repo import aead
from backpoint_repo.errors import ObjectDamaged, RepositoryError
from backpoint_repo.format import (
    BLOB_HEADER,
    BLOB_OVERHEAD,
    CODEC_RAW,
    CODEC_ZSTD,
    HEADER,
    SALT_SIZE,
    TAG_SIZE,
    Kind,
    expect_header,
    header,
)

OBJECT_SIZE_MAX: Final = 1 << 30
"""A sealed object claiming more than this when unpacked is refused, to bound memory."""
_OBJECT_NONCE: Final = bytes(12)


class TooLargeBeside(RepositoryError):
    """Unpacked it would be more than this thread may make while others do the same."""


class Packer:
    """zstd contexts, one pair per thread: they are costly to make and not thread-safe."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._local = threading.local()

    def pack(self, plain: bytes | memoryview) -> tuple[int, bytes | memoryview]:
        """(codec, bytes): compressed where that saves something, else the same bytes."""
        compressor = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = zstandard.ZstdCompressor(level=self._level, write_content_size=True)
            self._local.compressor = compressor
        packed: bytes = compressor.compress(plain)
        return (CODEC_ZSTD, packed) if len(packed) < len(plain) else (CODEC_RAW, plain)

    @contextmanager
    def beside_others(self, limit: int) -> Iterator[None]:
        """This thread unpacks nothing to more than `limit` bytes: TooLargeBeside."""
        before = getattr(self._local, "limit", OBJECT_SIZE_MAX)
        self._local.limit = min(before, limit)
        try:
            yield
        finally:
            self._local.limit = before

    def unpack(self, codec: int, packed: bytes, size_max: int, what: str) -> bytes:
        """Undo `pack`. Raises ObjectDamaged where the result would exceed `size_max` bytes."""
        if codec == CODEC_RAW:
            return packed
        if codec != CODEC_ZSTD:
            raise ObjectDamaged(f"{what}: unknown codec {codec}")
        decompressor = getattr(self._local, "decompressor", None)
        if decompressor is None:
            decompressor = self._local.decompressor = zstandard.ZstdDecompressor()
        try:
            size = zstandard.frame_content_size(packed)
            if not 0 <= size <= size_max:
                raise ObjectDamaged(f"{what}: claims to unpack to more than {size_max} bytes")
            if size > getattr(self._local, "limit", OBJECT_SIZE_MAX):
                raise TooLargeBeside(f"{what}: unpacks to {size} bytes")
            plain: bytes = decompressor.decompress(packed, max_output_size=size_max)
        except zstandard.ZstdError as error:
            raise ObjectDamaged(f"{what}: does not decompress: {error}") from error
        return plain


def seal_blob(
    plain: bytes | memoryview,
    content_id: bytes,
    data_key: bytes,
    key_id: bytes,
    counter: int,
    packer: Packer,
) -> bytes:
    """A chunk or map node as it lies in a pack: header, ciphertext, tag.

    `counter` must be new under `data_key`. Header and content id are bound as associated data.
    """
    codec, packed = packer.pack(plain)
    head = BLOB_HEADER.pack(key_id, counter, codec)
    return head + aead.encrypt(data_key, _blob_nonce(counter), packed, head + content_id)


def blob_key_id(blob: bytes | memoryview) -> bytes:
    """Which data key a blob is sealed with. Raises ObjectDamaged where it is too short."""
    if len(blob) < BLOB_OVERHEAD:
        raise ObjectDamaged(f"a blob of {len(blob)} bytes is too short")
    key_id: bytes = BLOB_HEADER.unpack_from(blob)[0]
    return key_id


def open_blob(
    blob: bytes | memoryview,
    content_id: bytes,
    data_key: bytes,
    packer: Packer,
    size_max: int,
) -> bytes:
    """The plain content of a blob, authenticated; the caller verifies it against its id.

    Raises ObjectDamaged.
    """
    view = memoryview(blob)
    _, counter, codec = BLOB_HEADER.unpack_from(view)
    associated = bytes(view[: BLOB_HEADER.size]) + content_id
    try:
        packed = aead.decrypt(data_key, _blob_nonce(counter), view[BLOB_HEADER.size :], associated)
    except aead.WrongTag as error:
        raise ObjectDamaged(f"blob {content_id.hex()[:16]} fails authentication") from error
    return packer.unpack(codec, packed, size_max, f"blob {content_id.hex()[:16]}")


def node_blob_key(meta_key: bytes, key_id: bytes) -> bytes:
    """The data key of map nodes: derived, so that agents can open it too. `key_id` is random."""
    return blake3(b"node blobs" + key_id, key=meta_key).digest()


def seal_object(kind: Kind, key: str, payload: bytes, meta_key: bytes, packer: Packer) -> bytes:
    """A whole object: header, salt, ciphertext, tag. Bound to its kind and to its place `key`."""
    return header(kind) + seal_record(kind, key, payload, meta_key, packer)


def open_object(kind: Kind, key: str, data: bytes, meta_key: bytes, packer: Packer) -> bytes:
    """Undo `seal_object`. Raises ObjectDamaged, UnknownFormat."""
    expect_header(data, kind, key)
    return open_record(kind, key, memoryview(data)[HEADER.size :], meta_key, packer)


def seal_record(kind: Kind, key: str, payload: bytes, meta_key: bytes, packer: Packer) -> bytes:
    """A sealed part of an object: salt, ciphertext of (codec byte, payload), tag."""
    codec, packed = packer.pack(payload)
    salt = secrets.token_bytes(SALT_SIZE)
    own_key = _object_key(meta_key, salt)
    plain = bytes([codec]) + packed
    return salt + aead.encrypt(own_key, _OBJECT_NONCE, plain, header(kind) + key.encode())


def open_record(
    kind: Kind, key: str, data: bytes | memoryview, meta_key: bytes, packer: Packer
) -> bytes:
    """Undo `seal_record`. Raises ObjectDamaged."""
    view = memoryview(data)
    if len(view) <= SALT_SIZE + TAG_SIZE:
        raise ObjectDamaged(f"{key}: truncated")
    own_key = _object_key(meta_key, bytes(view[:SALT_SIZE]))
    try:
        plain = aead.decrypt(own_key, _OBJECT_NONCE, view[SALT_SIZE:], header(kind) + key.encode())
    except aead.WrongTag as error:
        raise ObjectDamaged(
            f"{key}: fails authentication (altered, swapped, or of another repository)"
        ) from error
    return packer.unpack(plain[0], plain[1:], OBJECT_SIZE_MAX, key)


def _blob_nonce(counter: int) -> bytes:
    return bytes(4) + counter.to_bytes(8, "little")


def _object_key(meta_key: bytes, salt: bytes) -> bytes:
    """A key used for one record only, so a constant nonce is safe under it."""
    return blake3(b"object" + salt, key=meta_key).digest()
