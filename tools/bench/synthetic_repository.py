"""A repository of very many chunks, made in a minute: what a collector walks is real, no content.

Maps, index segments, points and every pack's sealed directory are as a backup writes them; the
blobs of data packs are holes in sparse files, because 10 million chunks would be 400 GB. Decides
how VMs, days and packs are laid out. Nothing in it can be restored.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.disk_map import DiskMap, Geometry
from backpoint_repo.format import (
    DIGEST_SIZE,
    FANOUT,
    HEADER,
    ID_SIZE,
    LEAF_BLOCKS,
    PACK_TRAILER,
    PACK_TRAILER_MAGIC,
    Kind,
    header,
    object_key,
)
from backpoint_repo.index import SEGMENT_ENTRIES_MAX
from backpoint_repo.index_segment import PACK_NAME_SIZE, IndexTable, PackRef, build_table
from backpoint_repo.keyring import DATA_KEY_SIZE, KEY_ID_SIZE, data_key_id
from backpoint_repo.map_node import Inner, Leaf
from backpoint_repo.node_reader import node_id_of
from backpoint_repo.pack import PACK_SIZE, PackBuilder, PackDirectory
from backpoint_repo.point import POINT_ID_SIZE, Disk, Point
from backpoint_repo.repository import Passphrase, Repository, create_repository
from backpoint_repo.sealing import node_blob_key, seal_blob, seal_record
from backpoint_repo.store.local import LocalStore

_CHUNK_BLOCKS: Final = 16
_PER_LEAF: Final = LEAF_BLOCKS // _CHUNK_BLOCKS
"""Chunks of 64 KiB under a leaf; a data pack holds those of one leaf, 21 MB of them."""
_SEALED: Final = 42 << 10
"""Bytes of a sealed chunk of 64 KiB, as usual data packs."""
_FIRST: Final = 1767225600.0
"""2026-01-01 00:00:00 UTC."""
_DAY_S: Final = 86400.0

Ids = NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """vms: how many; leaves: of each one's disk; days: points of each; changed: leaves a day."""

    vms: int
    leaves: int
    days: int
    changed: int

    @property
    def chunks(self) -> int:
        """Different chunks in all."""
        return self.vms * (self.leaves + (self.days - 1) * self.changed) * _PER_LEAF


TEN_MILLION: Final = Layout(vms=40, leaves=390, days=10, changed=11)


def fill_synthetic(root: Path, passphrase: str, layout: Layout) -> None:
    """Make the repository. Raises UsageError where there is one."""
    made = create_repository(
        LocalStore(root), Passphrase(passphrase), ChunkParameters.with_average(64 << 10)
    )
    _Filler(made, root, layout).run()


class _Filler:
    def __init__(self, repository: Repository, root: Path, layout: Layout) -> None:
        self._repository = repository
        self._sealed = repository.sealed
        self._root = root
        self._layout = layout
        self._rng = np.random.default_rng(1)
        self._tables: list[IndexTable] = []
        self._rows = 0
        sealed_key = self._sealed.keyring.seal_data_key(
            bytes(DATA_KEY_SIZE), self._sealed.repository_id
        )
        self._data_keys = {data_key_id(sealed_key): sealed_key}
        self._node_key_id = secrets.token_bytes(KEY_ID_SIZE)
        self._node_counter = 0

    def run(self) -> None:
        for number in range(self._layout.vms):
            self._fill_vm(f"vm{number:03}")
        self._write_segment()

    def _fill_vm(self, vm: str) -> None:
        layout = self._layout
        nodes = _NodePack(self)
        leaves = [self._leaf(nodes) for _ in range(layout.leaves)]
        for day in range(layout.days):
            if day:
                for at in self._rng.choice(layout.leaves, layout.changed, replace=False).tolist():
                    leaves[at] = self._leaf(nodes)
            root = self._root_of(leaves, nodes)
            self._publish(vm, day, root)
        nodes.close()

    def _leaf(self, nodes: _NodePack) -> bytes:
        """New chunks, in a data pack of their own; returns the leaf's id."""
        ids = self._rng.integers(0, 256, (_PER_LEAF, ID_SIZE), np.uint8)
        self._data_pack(ids)
        starts = np.arange(0, LEAF_BLOCKS, _CHUNK_BLOCKS).astype(np.uint16)
        return nodes.add(Leaf(starts, ids, LEAF_BLOCKS).encode())

    def _root_of(self, leaves: list[bytes], nodes: _NodePack) -> bytes:
        level, ids, under = 0, leaves, LEAF_BLOCKS
        while len(ids) > 1:
            level += 1
            groups = [ids[at : at + FANOUT] for at in range(0, len(ids), FANOUT)]
            ids = [
                nodes.add(
                    Inner(
                        level,
                        np.full(len(group), under, np.uint64),
                        np.frombuffer(b"".join(group), np.uint8).reshape(-1, ID_SIZE),
                    ).encode()
                )
                for group in groups
            ]
            under *= FANOUT
        return ids[0]

    def _publish(self, vm: str, day: int, root: bytes) -> None:
        size = self._layout.leaves * LEAF_BLOCKS * 4096
        time = _FIRST + day * _DAY_S
        disk = Disk("disk0", size, root, size, "made")
        own_id = secrets.token_bytes(POINT_ID_SIZE)
        point = Point(own_id, vm, time, time, "", (disk,), generation=day)
        self._sealed.put(Kind.POINT, own_id.hex(), point.encode())

    def _data_pack(self, ids: Ids) -> None:
        name = secrets.token_bytes(PACK_NAME_SIZE)
        key = object_key(Kind.DATA_PACK, name.hex())
        lengths = np.full(len(ids), _SEALED, np.uint32)
        directory = PackDirectory(
            bytes(POINT_ID_SIZE),
            self._data_keys,
            ids,
            lengths,
            np.full(len(ids), _CHUNK_BLOCKS * 4096, np.uint32),
            self._rng.integers(0, 256, (len(ids), DIGEST_SIZE), np.uint8),
        )
        packer, meta_key = self._sealed.packer, self._sealed.keyring.meta_key
        sealed = seal_record(Kind.DATA_PACK, key, directory.encode(), meta_key, packer)
        path = self._root / key
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(header(Kind.DATA_PACK))
            file.seek(len(ids) * _SEALED, 1)
            file.write(sealed + PACK_TRAILER.pack(len(sealed), PACK_TRAILER_MAGIC))
        offsets = directory.offsets.astype(np.uint32)
        self.index(PackRef(Kind.DATA_PACK, name), ids, offsets, lengths)

    def index(
        self, pack: PackRef, ids: Ids, offsets: NDArray[np.uint32], lengths: NDArray[np.uint32]
    ) -> None:
        """List a pack; a segment is written when one is full."""
        if self._rows + len(ids) > SEGMENT_ENTRIES_MAX:
            self._write_segment()
        table = build_table([pack], ids, np.zeros(len(ids), np.uint32), offsets, lengths)
        self._tables.append(table)
        self._rows += len(ids)

    def _write_segment(self) -> None:
        packs = [table.packs[0] for table in self._tables]
        numbers = np.repeat(
            np.arange(len(packs), dtype=np.uint32), [len(table) for table in self._tables]
        )
        whole = build_table(
            packs,
            np.concatenate([table.ids() for table in self._tables]),
            numbers,
            np.concatenate([table.offsets for table in self._tables]),
            np.concatenate([table.lengths for table in self._tables]),
        )
        self._sealed.put(Kind.INDEX, secrets.token_hex(16), whole.encode())
        self._tables, self._rows = [], 0

    def seal_node(self, plain: bytes) -> tuple[bytes, bytes]:
        """(id, sealed blob) of a map node."""
        keyring = self._sealed.keyring
        node_id = node_id_of(plain, keyring.node_id_key)
        key = node_blob_key(keyring.meta_key, self._node_key_id)
        self._node_counter += 1
        counter, packer = self._node_counter, self._sealed.packer
        return node_id, seal_blob(plain, node_id, key, self._node_key_id, counter, packer)

    def store_nodes(self, builder: PackBuilder, ids: list[bytes], lengths: list[int]) -> None:
        """A full node pack, and its index rows."""
        meta_key, packer = self._sealed.keyring.meta_key, self._sealed.packer
        self._sealed.store.put(builder.key, builder.finish({}, meta_key, packer))
        sizes = np.array(lengths, np.int64)
        offsets = (np.cumsum(sizes) - sizes + HEADER.size).astype(np.uint32)
        rows = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, ID_SIZE)
        pack = PackRef(Kind.NODE_PACK, builder.name)
        self.index(pack, rows, offsets, sizes.astype(np.uint32))


class _NodePack:
    """Node packs of one VM, as a session fills them."""

    def __init__(self, filler: _Filler) -> None:
        self._filler = filler
        self._begin()

    def add(self, plain: bytes) -> bytes:
        node_id, blob = self._filler.seal_node(plain)
        self._builder.add(node_id, blob, len(plain))
        self._ids.append(node_id)
        self._lengths.append(len(blob))
        if self._builder.size >= PACK_SIZE:
            self.close()
            self._begin()
        return node_id

    def close(self) -> None:
        if self._ids:
            self._filler.store_nodes(self._builder, self._ids, self._lengths)

    def _begin(self) -> None:
        name = secrets.token_bytes(PACK_NAME_SIZE)
        self._builder = PackBuilder(Kind.NODE_PACK, name, bytes(POINT_ID_SIZE))
        self._ids: list[bytes] = []
        self._lengths: list[int] = []


def reads_as_made(repository: Repository) -> bool:
    """Whether maps, index and points fit together: a leaf of each point is looked up."""
    repository.index.refresh()
    for summary in repository.catalog.refresh():
        disk = repository.point(summary.point_id).disks[0]
        assert Geometry(disk.size).leaves
        leaf = DiskMap(disk.size, disk.root, repository.nodes.load).leaf(0)
        if not repository.index.known(leaf.ids).all():
            return False
    return True
