"""Packs: their directories explain them, and no altered byte of one is believed."""

from __future__ import annotations

import secrets
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError
from backpoint_repo.format import HEADER, PACK_TRAILER, PACK_TRAILER_MAGIC, Kind, header
from backpoint_repo.keyring import KEY_ID_SIZE, SEALED_DATA_KEY_SIZE
from backpoint_repo.pack import PackBuilder, PackDirectory, read_directory
from backpoint_repo.sealing import Packer, seal_record
from backpoint_repo.store.contract import Store
from backpoint_repo.store.memory import MemoryStore

META, SESSION, NAME = b"m" * 32, b"s" * 16, b"n" * 16
PACKER = Packer(1)
KEYS = {bytes([n]) * KEY_ID_SIZE: bytes([n]) * SEALED_DATA_KEY_SIZE for n in range(3)}


def stored(store: Store, blobs: list[bytes], keys: dict[bytes, bytes]) -> PackBuilder:
    builder = PackBuilder(Kind.DATA_PACK, NAME, SESSION)
    for blob in blobs:
        builder.add(secrets.token_bytes(32), blob, len(blob) + 1)
    store.put(builder.key, builder.finish(keys, META, PACKER))
    return builder


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(0, 3))
def test_a_directory_says_what_the_pack_holds(blobs: list[bytes], keys: int) -> None:
    store = MemoryStore()
    listed = dict(list(KEYS.items())[:keys])
    builder = stored(store, blobs, listed)
    directory = read_directory(store, Kind.DATA_PACK, NAME, META, PACKER)
    assert directory.session == SESSION
    assert directory.data_keys == listed
    assert directory.plain_lengths.tolist() == [len(blob) + 1 for blob in blobs]
    for offset, length, blob in zip(directory.offsets, directory.lengths, blobs, strict=True):
        assert store.get_range(builder.key, int(offset), int(length)) == blob


def test_a_directory_larger_than_the_first_read(store: Store) -> None:
    blobs = [bytes([n % 256]) * (n % 7) for n in range(9000)]
    stored(store, blobs, KEYS)
    directory = read_directory(store, Kind.DATA_PACK, NAME, META, PACKER)
    assert directory.lengths.tolist() == [len(blob) for blob in blobs]


def replaced(store: Store, key: str, data: bytes) -> None:
    store.delete(key)
    store.put(key, [data])


def test_cut_short_or_altered_outside_its_blobs() -> None:
    store = MemoryStore()
    builder = stored(store, [b"blob" * 10], KEYS)
    good = store.get(builder.key)
    blob_end = HEADER.size + 40
    for end in range(0, len(good), 37):
        replaced(store, builder.key, good[:end])
        with pytest.raises(ObjectDamaged):
            read_directory(store, Kind.DATA_PACK, NAME, META, PACKER)
    places = [
        *range(HEADER.size),
        *range(blob_end, len(good), 29),
        *range(len(good) - 16, len(good)),
    ]
    for place in places:
        if place in range(len(good) - 12, len(good) - 8):
            continue  # padding of the trailer
        altered = bytearray(good)
        altered[place] ^= 1
        replaced(store, builder.key, bytes(altered))
        with pytest.raises(RepositoryError):
            read_directory(store, Kind.DATA_PACK, NAME, META, PACKER)
    replaced(store, builder.key, good[:20] + b"x" + good[20:])
    with pytest.raises(ObjectDamaged, match="contradicts"):
        read_directory(store, Kind.DATA_PACK, NAME, META, PACKER)


def test_under_another_name_or_kind() -> None:
    store = MemoryStore()
    builder = stored(store, [b"blob"], {})
    data = store.get(builder.key)
    other = PackBuilder(Kind.DATA_PACK, b"o" * 16, SESSION)
    store.put(other.key, [data])
    with pytest.raises(ObjectDamaged):
        read_directory(store, Kind.DATA_PACK, other.name, META, PACKER)
    node = PackBuilder(Kind.NODE_PACK, NAME, SESSION)
    store.put(node.key, [header(Kind.NODE_PACK) + data[HEADER.size :]])
    with pytest.raises(ObjectDamaged):
        read_directory(store, Kind.NODE_PACK, NAME, META, PACKER)
    with pytest.raises(ObjectMissing):
        read_directory(store, Kind.NODE_PACK, b"x" * 16, META, PACKER)


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        SESSION,
        struct.pack("<16sII", SESSION, 0, 1),
        struct.pack("<16sII", SESSION, 1, 0),
        struct.pack("<16sII", SESSION, 0xFFFFFFFF, 0xFFFFFFFF),
        struct.pack("<16sII", SESSION, 0, 1) + bytes(32) + struct.pack("<II", 0xFFFFFFFF, 1),
        struct.pack("<16sII", SESSION, 0, 1) + bytes(32) + struct.pack("<II", 1, 1),
    ],
    ids=range(7),
)
def test_directories_of_a_hostile_writer(plain: bytes) -> None:
    store = MemoryStore()
    key = PackBuilder(Kind.DATA_PACK, NAME, SESSION).key
    sealed = seal_record(Kind.DATA_PACK, key, plain, META, PACKER)
    trailer = PACK_TRAILER.pack(len(sealed), PACK_TRAILER_MAGIC)
    store.put(key, [header(Kind.DATA_PACK), sealed, trailer])
    with pytest.raises(ObjectDamaged):
        read_directory(store, Kind.DATA_PACK, NAME, META, PACKER)


def test_sums_of_hostile_lengths_do_not_wrap() -> None:
    """Two lengths that add up to 2^32 are not zero."""
    store = MemoryStore()
    key = PackBuilder(Kind.DATA_PACK, NAME, SESSION).key
    lengths = np.array([0x80000000, 0x80000000], np.uint32)
    ids, digests = np.zeros((2, 32), np.uint8), np.zeros((2, 16), np.uint8)
    directory = PackDirectory(SESSION, {}, ids, lengths, lengths, digests)
    sealed = seal_record(Kind.DATA_PACK, key, directory.encode(), META, PACKER)
    store.put(key, [header(Kind.DATA_PACK), sealed,
                    PACK_TRAILER.pack(len(sealed), PACK_TRAILER_MAGIC)])  # fmt: skip
    with pytest.raises(ObjectDamaged):
        read_directory(store, Kind.DATA_PACK, NAME, META, PACKER)
