"""Every magic, version, size and struct of the repository format, on one page.

FORMAT.md is the specification; this file is its constants. Knows no keys, store or algorithm.
All integers are little-endian.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from backpoint_repo.errors import ObjectDamaged, UnknownFormat

FORMAT_VERSION: Final = 1
MAGIC: Final = b"BCKPNT"

BLOCK_SIZE: Final = 4096
"""Bytes; the guest filesystems' allocation unit, and the grid every cut falls on."""
LEAF_BLOCKS: Final = 8192
LEAF_SIZE: Final = LEAF_BLOCKS * BLOCK_SIZE
"""Bytes of disk under one leaf of a disk map: 32 MiB. Cuts are forced at its borders."""
FANOUT: Final = 256
"""Children of an inner map node: 8 GiB, 2 TiB, 512 TiB, ... of disk per level."""
MAX_DISK_SIZE: Final = 1 << 60

ID_SIZE: Final = 32
HOLE: Final = bytes(ID_SIZE)
"""The id that stands for zeros: of a chunk, or of a whole subtree of a map."""


class Kind(IntEnum):
    """What an object is; the seventh byte of every object, and bound into its seal."""

    CONFIG = 1
    SLOT = 2
    DATA_PACK = 3
    NODE_PACK = 4
    INDEX = 5
    POINT = 6
    VOID = 7
    LEASE = 8
    TRASH = 9
    DAMAGE = 10
    CATALOG = 11
    NOTE = 12
    POLICY = 13
    READING = 14
    PARITY = 15


FOLDERS: Final = {
    Kind.SLOT: "slots",
    Kind.DATA_PACK: "packs",
    Kind.NODE_PACK: "nodes",
    Kind.INDEX: "index",
    Kind.POINT: "points",
    Kind.VOID: "points",
    Kind.LEASE: "leases",
    Kind.TRASH: "trash",
    Kind.DAMAGE: "damage",
    Kind.CATALOG: "catalog",
    Kind.NOTE: "notes",
    Kind.POLICY: "policy",
    Kind.READING: "readings",
    Kind.PARITY: "parity",
}
CONFIG_KEY: Final = "config"

HEADER: Final = struct.Struct("<6sBB")  # magic, kind, version
SALT_SIZE: Final = 32
TAG_SIZE: Final = 16

BLOB_HEADER: Final = struct.Struct("<16sQB3x")  # data key id, nonce counter, codec
BLOB_OVERHEAD: Final = BLOB_HEADER.size + TAG_SIZE
CODEC_RAW: Final = 0
CODEC_ZSTD: Final = 1

DIGEST_SIZE: Final = 16
"""Bytes of BLAKE3 over each sealed blob, kept in pack directories: finds rot without a data key."""
PACK_TRAILER: Final = struct.Struct("<I4x8s")  # sealed directory's length, trailer magic
PACK_TRAILER_MAGIC: Final = b"BCKPDIR1"

NODE_HEADER: Final = struct.Struct("<BxHI")  # level (0: leaf), entries, reserved (0)


def header(kind: Kind) -> bytes:
    """The first eight bytes of an object of this kind."""
    return HEADER.pack(MAGIC, kind, FORMAT_VERSION)


def parse_header(data: bytes | memoryview, key: str) -> Kind:
    """The kind of the object whose first bytes are `data`.

    Raises ObjectDamaged where it is none of ours, UnknownFormat where it is from a newer version.
    """
    if len(data) < HEADER.size:
        raise ObjectDamaged(f"{key}: truncated to {len(data)} bytes")
    magic, kind, version = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ObjectDamaged(f"{key}: is not a Backpoint object")
    if version != FORMAT_VERSION or kind not in Kind.__members__.values():
        raise UnknownFormat(
            f"{key}: format version {version}, kind {kind}; this program reads version "
            f"{FORMAT_VERSION}. Use a newer backpoint."
        )
    return Kind(kind)


def expect_header(data: bytes | memoryview, kind: Kind, key: str) -> None:
    """Raise ObjectDamaged unless the object is of this kind (UnknownFormat if it is newer)."""
    found = parse_header(data, key)
    if found is not kind:
        raise ObjectDamaged(f"{key}: is a {found.name.lower()} object, not a {kind.name.lower()}")


def object_key(kind: Kind, name: str) -> str:
    """The store key of an object; packs are spread over 256 folders by their random name."""
    folder = FOLDERS[kind]
    if kind in (Kind.DATA_PACK, Kind.NODE_PACK):
        return f"{folder}/{name[:2]}/{name}"
    return f"{folder}/{name}"
