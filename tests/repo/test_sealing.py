"""Seals: every bit counts, and so do kind, place and id; hostile sizes cost no memory."""

from __future__ import annotations

import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import ObjectDamaged, RepositoryError
from backpoint_repo.format import BLOB_HEADER, BLOB_OVERHEAD, CODEC_RAW, CODEC_ZSTD, Kind
from backpoint_repo.sealing import (
    Packer,
    blob_key_id,
    node_blob_key,
    open_blob,
    open_object,
    seal_blob,
    seal_object,
)

KEY, ID, KEY_ID, META = b"k" * 32, b"i" * 32, b"n" * 16, b"m" * 32
PACKER = Packer(1)
sizes = st.sampled_from([0, 1, 15, 16, 17, 31, 32, 33, 4096, 70_000])


@given(st.randoms(use_true_random=False), sizes, st.booleans(), st.integers(0, 2**64 - 1))
def test_blobs_open_again(rng: st.DataObject, size: int, dull: bool, counter: int) -> None:
    plain = bytes(size) if dull else rng.randbytes(size)  # type: ignore[attr-defined]
    blob = seal_blob(memoryview(plain), ID, KEY, KEY_ID, counter, PACKER)
    assert blob_key_id(blob) == KEY_ID
    assert len(blob) <= size + BLOB_OVERHEAD
    assert open_blob(memoryview(blob), ID, KEY, PACKER, size) == plain


def test_every_bit_of_a_blob_counts() -> None:
    blob = seal_blob(b"some plain content", ID, KEY, KEY_ID, 7, PACKER)
    for place in range(len(blob)):
        for bit in (1, 128):
            altered = bytearray(blob)
            altered[place] ^= bit
            with pytest.raises(ObjectDamaged):
                open_blob(bytes(altered), ID, KEY, PACKER, 100)
    with pytest.raises(ObjectDamaged):
        open_blob(blob, b"j" * 32, KEY, PACKER, 100)
    with pytest.raises(ObjectDamaged):
        open_blob(blob, ID, b"l" * 32, PACKER, 100)


@pytest.mark.parametrize("size", range(BLOB_OVERHEAD))
def test_too_short_for_a_blob(size: int) -> None:
    with pytest.raises(ObjectDamaged):
        blob_key_id(bytes(size))


def test_counters_give_other_ciphertexts() -> None:
    blobs = [seal_blob(bytes(64), ID, KEY, KEY_ID, counter, PACKER) for counter in range(50)]
    assert len({blob[BLOB_HEADER.size :] for blob in blobs}) == 50


def test_a_decompression_bomb_is_refused_unopened() -> None:
    """A hostile agent can seal whatever it likes; the reader knows how long a chunk may be."""
    bomb = zstandard.ZstdCompressor().compress(bytes(256 << 20))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 << 20))
    tracemalloc.start()
    for packed in (bomb, unsized, b"no zstd frame", b"", bomb[:20]):
        with pytest.raises(ObjectDamaged):
            PACKER.unpack(CODEC_ZSTD, packed, 1 << 20, "bomb")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_frame_that_lies_about_its_size() -> None:
    honest = bytearray(zstandard.ZstdCompressor().compress(b"abc" * 1000))
    params = zstandard.get_frame_parameters(bytes(honest))
    assert params.content_size == 3000
    at = bytes(honest).index((3000 - 256).to_bytes(2, "little"))
    honest[at : at + 2] = (100).to_bytes(2, "little")
    with pytest.raises(ObjectDamaged):
        PACKER.unpack(CODEC_ZSTD, bytes(honest), 1 << 20, "liar")


@pytest.mark.parametrize("codec", [2, 3, 255])
def test_unknown_codecs(codec: int) -> None:
    with pytest.raises(ObjectDamaged):
        PACKER.unpack(codec, b"x", 10, "x")
    assert PACKER.unpack(CODEC_RAW, b"x", 10, "x") == b"x"


@given(st.binary(max_size=200))
def test_objects_open_again(payload: bytes) -> None:
    sealed = seal_object(Kind.POINT, "points/a", payload, META, PACKER)
    assert open_object(Kind.POINT, "points/a", sealed, META, PACKER) == payload


def test_every_bit_of_an_object_counts_and_so_does_its_place() -> None:
    sealed = seal_object(Kind.POINT, "points/a", b"payload", META, PACKER)
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 4
        with pytest.raises(RepositoryError):
            open_object(Kind.POINT, "points/a", bytes(altered), META, PACKER)
    for end in range(len(sealed)):
        with pytest.raises(ObjectDamaged):
            open_object(Kind.POINT, "points/a", sealed[:end], META, PACKER)
    for kind, key, meta in [
        (Kind.POINT, "points/b", META),
        (Kind.VOID, "points/a", META),
        (Kind.POINT, "points/a", KEY),
    ]:
        with pytest.raises(ObjectDamaged):
            open_object(kind, key, sealed, meta, PACKER)


def test_node_keys_follow_their_id() -> None:
    assert node_blob_key(META, KEY_ID) == node_blob_key(META, KEY_ID)
    assert len({node_blob_key(META, bytes([n]) * 16) for n in range(20)}) == 20
