"""A second reader of the repository format, written from FORMAT.md alone.

Opens a local repository and yields what is in it. Shares no code with backpoint_repo, so that a
mistake there cannot hide here; slow, holds whole packs, and refuses whatever FORMAT.md says is
damaged by raising Damaged. Section numbers are FORMAT.md's.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3
from Crypto.Protocol import HPKE
from Crypto.PublicKey import Hybrid

from repo.second_reader_keys import (
    Damaged,
    Keys,
    NotOpened,
    decode_record,
    decrypt,
    derive,
    files_in,
    kind_of,
    open_record,
    read_config,
    unpack,
)

BLOCK = 4096
LEAF = 8192
HOLE = bytes(32)
KINDS = {
    "config": 1,
    "slots": 2,
    "packs": 3,
    "nodes": 4,
    "index": 5,
    "leases": 8,
    "trash": 9,
    "damage": 10,
    "catalog": 11,
}
POINT, VOID = 6, 7


class Place(NamedTuple):
    """Where the index says a blob lies. kind: 3 data pack, 4 node pack."""

    kind: int
    pack: str
    offset: int
    length: int


class SecondReader:
    """`keys` come from `second_reader_keys`."""

    def __init__(self, root: Path, keys: Keys) -> None:
        self._root = root
        self._keys = keys
        config = read_config(root, derive(keys.secret, b"backpoint v1 config"))
        self.config = config
        self._repository: bytes = config["repository"]
        self._meta = derive(keys.secret, b"backpoint v1 meta")
        self._data_keys: dict[bytes, bytes] = {}
        # 13: points before index, so that every listed point's segments are loaded.
        self._points = self._load_points()
        self._index = self._load_index()

    def points(self) -> list[dict[str, Any]]:
        """The records of all points, by creation; `id` added."""
        return sorted(self._points, key=lambda point: point["created"])

    def voids(self) -> list[str]:
        """Names of sessions that were revoked."""
        return [path.name for path in files_in(self._root, "points") if kind_of(path) == VOID]

    def records(self, folder: str) -> dict[str, dict[str, Any]]:
        """The records of all leases, trash, damage or catalog objects, by name."""
        return {
            path.name: decode_record(self._object(KINDS[folder], path))
            for path in files_in(self._root, folder)
        }

    def disk(self, disk: dict[str, Any]) -> Iterator[bytes]:
        """All bytes of a disk of a point, a leaf at a time."""
        for at, leaf_size, entries in self.leaves(disk):
            data = b"".join(
                bytes((end - start) * BLOCK)
                if content_id == HOLE
                else self._chunk(content_id, (end - start) * BLOCK)
                for start, end, content_id in entries
            )
            assert len(data) == leaf_size * BLOCK
            yield data[: disk["size"] - at * LEAF * BLOCK]

    def leaves(
        self, disk: dict[str, Any]
    ) -> Iterator[tuple[int, int, list[tuple[int, int, bytes]]]]:
        """(number, blocks, entries as (start, end, id)) of each leaf of a disk's map."""
        blocks = -(-disk["size"] // BLOCK)
        leaves = -(-blocks // LEAF)
        height = 0
        while 256**height < leaves:
            height += 1
        for number in range(leaves):
            covered = min(LEAF, blocks - number * LEAF)
            yield number, covered, self._leaf(disk["root"], height, number, covered, leaves)

    def file(self, file: dict[str, Any]) -> bytes:
        """A configuration file of a point."""
        size, chunks = file["size"], file["chunks"]
        if len(chunks) != -(-size // 65536):
            raise Damaged("a file's chunks contradict its size")
        sizes = [min(65536, -(-(size - at) // BLOCK) * BLOCK) for at in range(0, size, 65536)]
        pieces = [self._chunk(chunk, length) for chunk, length in zip(chunks, sizes, strict=True)]
        return b"".join(pieces)[:size]

    def directory(self, kind: int, name: str) -> tuple[dict[bytes, bytes], list[Any]]:
        """A pack's data keys, and its blobs as (id, offset, length, plain length) (8)."""
        path = _pack_path(self._root, kind, name)
        data = path.read_bytes()
        length, magic = struct.unpack("<I4x8s", data[-16:])
        if kind_of(path) != kind or magic != b"BCKPDIR1":
            raise Damaged(f"{path}: no pack")
        plain = self._open(kind, _key(self._root, path), data[-16 - length : -16])
        _, keys, blobs = struct.unpack_from("<16sII", plain)
        at = 24 + 1184 * keys
        ids = [plain[at + 32 * n : at + 32 * n + 32] for n in range(blobs)]
        numbers_at, digests_at = at + 32 * blobs, at + 40 * blobs
        numbers = struct.unpack(f"<{2 * blobs}I", plain[numbers_at:digests_at])
        digests = plain[digests_at:]
        lengths, plain_lengths = numbers[:blobs], numbers[blobs:]
        if 8 + sum(lengths) + length + 16 != len(data):
            raise Damaged(f"{path}: size contradicts directory")
        rows, offset = [], 8
        for number, content_id in enumerate(ids):
            blob = data[offset : offset + lengths[number]]
            if digests[16 * number : 16 * number + 16] != blake3(blob).digest(16):
                raise Damaged(f"{path}: a blob has rotted")
            rows.append((content_id, offset, lengths[number], plain_lengths[number]))
            offset += lengths[number]
        entries = [plain[n : n + 1184] for n in range(24, at, 1184)]
        return {entry[:16]: entry[16:] for entry in entries}, rows

    def _leaf(
        self, root: bytes, height: int, number: int, covered: int, leaves: int
    ) -> list[tuple[int, int, bytes]]:
        node = root
        for level in range(height, 0, -1):
            if node == HOLE:
                break
            span = 256 ** (level - 1)
            index, child = number // (span * 256), number // span % 256
            plain, count, _ = self._node(node, level, 40)
            if count != min(256, -(-leaves // span) - 256 * index):
                raise Damaged("a map node has the wrong number of children")
            at = 8 + 8 * count + 32 * child
            node = plain[at : at + 32]
        if node == HOLE:
            return [(0, covered, HOLE)]
        plain, count, blocks = self._node(node, 0, 34)
        starts = struct.unpack_from(f"<{count}H", plain, 8)
        borders = [*starts, covered]
        if blocks != covered or starts[0] or any(a >= b for a, b in pairwise(borders)):
            raise Damaged("a leaf contradicts itself")
        ids = 8 + 2 * count
        return [
            (borders[n], borders[n + 1], plain[ids + 32 * n : ids + 32 * n + 32])
            for n in range(count)
        ]

    def _node(self, node_id: bytes, level: int, entry_size: int) -> tuple[bytes, int, int]:
        plain = self._content(node_id, 4, derive(self._keys.secret, b"backpoint v1 node_id"))
        found, count, blocks = struct.unpack_from("<BxHI", plain)
        if found != level or not count or len(plain) != 8 + entry_size * count:
            raise Damaged("a map node of the wrong shape")
        return plain, count, blocks

    def _chunk(self, content_id: bytes, length: int) -> bytes:
        plain = self._content(content_id, 3, derive(self._keys.secret, b"backpoint v1 chunk_id"))
        if len(plain) != length:
            raise Damaged("a chunk of the wrong length")
        return plain

    def _content(self, content_id: bytes, kind: int, id_key: bytes) -> bytes:
        """The first copy that is good, else what was wrong with the last (8.1)."""
        fault = Damaged(f"{content_id.hex()} is in no index")
        for place in self._index.get(content_id, []):
            try:
                if place.kind != kind:
                    raise Damaged("a chunk in a node pack, or a node in a data pack")
                plain = self._blob(content_id, place)
                if blake3(plain, key=id_key).digest() != content_id:
                    raise Damaged(f"{content_id.hex()}: holds something else")
                return plain
            except Damaged as error:
                fault = error
        raise fault

    def _blob(self, content_id: bytes, place: Place) -> bytes:
        path = _pack_path(self._root, place.kind, place.pack)
        if not path.exists():
            raise Damaged(f"{path} is gone")
        with path.open("rb") as file:
            file.seek(place.offset)
            blob = file.read(place.length)
        key_id, counter, codec = struct.unpack_from("<16sQB", blob)
        key = (
            blake3(b"node blobs" + key_id, key=self._meta).digest()
            if place.kind == 4
            else self._data_key(key_id, place.pack)
        )
        nonce = bytes(4) + counter.to_bytes(8, "little")
        packed = decrypt(key, nonce, blob[:28] + content_id, blob[28:])
        return unpack(codec, packed)

    def _data_key(self, key_id: bytes, pack: str) -> bytes:
        """4.5"""
        if self._keys.private is None:
            raise NotOpened("the agent credential does not open data keys")
        if key_id not in self._data_keys:
            sealed = self.directory(3, pack)[0][key_id]
            if hashlib.sha256(sealed).digest()[:16] != key_id:
                raise Damaged("a data key under a wrong id")
            receiver = HPKE.new(
                receiver_key=Hybrid.HybridKey(
                    param_set=Hybrid.ParamSet.MLKEM768_X25519, seed=self._keys.private
                ),
                aead_id=HPKE.AEAD.AES256_GCM,
                info=b"backpoint v1 data key" + self._repository,
                enc=sealed[:1120],
            )
            self._data_keys[key_id] = receiver.unseal(sealed[1120:])
        return self._data_keys[key_id]

    def _load_points(self) -> list[dict[str, Any]]:
        found = []
        for path in files_in(self._root, "points"):
            kind = kind_of(path)
            if kind not in (POINT, VOID):
                raise Damaged(f"{path}: neither a point nor a void")
            record = decode_record(self._object(kind, path))
            if kind == POINT:
                found.append(record | {"id": bytes.fromhex(path.name)})
        return found

    def _load_index(self) -> dict[bytes, list[Place]]:
        """9"""
        found: dict[bytes, list[Place]] = {}
        for path in files_in(self._root, "index"):
            data = self._object(5, path)
            n, p = struct.unpack_from("<II", data)
            if len(data) != 8 + 44 * n + 17 * p:
                raise Damaged(f"{path}: wrong size")
            prefixes = struct.unpack_from(f"<{n}Q", data, 8)
            numbers = struct.unpack_from(f"<{3 * n}I", data, 8 + 32 * n)
            rows = [data[8 + 44 * n + 17 * at :][:17] for at in range(p)]
            packs = [(row[0], row[1:].hex()) for row in rows]
            if list(prefixes) != sorted(prefixes):
                raise Damaged(f"{path}: not sorted")
            for at in range(n):
                rest = data[8 + 8 * n + 24 * at : 8 + 8 * n + 24 * at + 24]
                kind, name = packs[numbers[at]]
                place = Place(kind, name, numbers[n + at], numbers[2 * n + at])
                found.setdefault(prefixes[at].to_bytes(8, "big") + rest, []).append(place)
        return found

    def _object(self, kind: int, path: Path) -> bytes:
        if kind_of(path) != kind:
            raise Damaged(f"{path}: of the wrong kind")
        return self._open(kind, _key(self._root, path), path.read_bytes()[8:])

    def _open(self, kind: int, place: str, sealed: bytes) -> bytes:
        return open_record(self._meta, kind, place, sealed)


def _key(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _pack_path(root: Path, kind: int, name: str) -> Path:
    return root / ("packs" if kind == 3 else "nodes") / name[:2] / name
