"""Map nodes out of node packs: located, fetched, opened, verified, kept in a small cache.

Either credential can read nodes; they say where data lies, not what it is. Knows no disks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from blake3 import blake3

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UnknownFormat
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index import Index
from backpoint_repo.index_segment import Location
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import blob_key_id, node_blob_key, open_blob

NODE_SIZE_MAX: Final = 1 << 20
_CACHED: Final = 256
"""Nodes of up to 280 KB (a leaf of minimal chunks), usually 18 KB."""


class NodeReader:
    """Thread-safe."""

    def __init__(self, sealed: SealedStore, index: Index) -> None:
        self._sealed = sealed
        self._index = index
        self._lock = threading.Lock()
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()

    def load(self, node_id: bytes) -> bytes:
        """The plain bytes of a node.

        Tries every copy. Raises ObjectMissing where there is none, ObjectDamaged where none is
        good.
        """
        with self._lock:
            if (cached := self._cache.get(node_id)) is not None:
                self._cache.move_to_end(node_id)
                return cached
        plain = self._load(node_id)
        with self._lock:
            self._cache[node_id] = plain
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return plain

    def _load(self, node_id: bytes) -> bytes:
        fault: RepositoryError = ObjectMissing(f"map node {node_id.hex()[:16]} is in no index")
        for place in self._index.search(node_id):
            try:
                return self.load_from(node_id, place)
            except (ObjectMissing, ObjectDamaged, UnknownFormat) as error:
                fault = error
        raise fault

    def load_from(self, node_id: bytes, place: Location) -> bytes:
        """One copy of a node, verified. Raises ObjectMissing, ObjectDamaged."""
        key = object_key(place.pack.kind, place.pack.name.hex())
        if place.length > 2 * NODE_SIZE_MAX:
            raise ObjectDamaged(f"{key}: a map node of impossible size")
        blob = self._sealed.store.get_range(key, place.offset, place.length)
        return self.open_copy(blob, node_id, place)

    def open_copy(self, blob: bytes | memoryview, node_id: bytes, place: Location) -> bytes:
        """The plain bytes of a blob that was fetched from this place. Raises ObjectDamaged."""
        if place.pack.kind is not Kind.NODE_PACK:
            raise ObjectDamaged(f"map node {node_id.hex()[:16]} is indexed in a data pack")
        keyring, key = self._sealed.keyring, object_key(place.pack.kind, place.pack.name.hex())
        if len(blob) != place.length:
            raise ObjectDamaged(f"{key}: truncated")
        node_key = node_blob_key(keyring.meta_key, blob_key_id(blob))
        plain = open_blob(blob, node_id, node_key, self._sealed.packer, NODE_SIZE_MAX)
        if node_id_of(plain, keyring.node_id_key) != node_id:
            raise ObjectDamaged(f"{key}: map node {node_id.hex()[:16]} holds something else")
        return plain


def node_id_of(plain: bytes, node_id_key: bytes) -> bytes:
    """Keyed BLAKE3 of a node's plain bytes."""
    return blake3(plain, key=node_id_key).digest()
