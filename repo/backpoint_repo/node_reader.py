"""Map nodes out of node packs: located, fetched, opened, verified, kept in a small cache.

Either credential can read nodes; they say where data lies, not what it is. Who knows which ones he
will want has them brought together. Knows no disks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from blake3 import blake3

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UnknownFormat
from backpoint_repo.fetch_lanes import FetchLanes
from backpoint_repo.format import HOLE, Kind, object_key
from backpoint_repo.index import Index, ids_of
from backpoint_repo.index_segment import Location
from backpoint_repo.range_plan import plan_ranges, reach_of
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import blob_key_id, node_blob_key, open_blob
from backpoint_repo.store.cached_store import reread

NODE_SIZE_MAX: Final = 1 << 20
_BLOB_MAX: Final = 2 * NODE_SIZE_MAX
_CACHED: Final = 256
"""Nodes of up to 280 KB (a leaf of minimal chunks), usually 18 KB."""


class NodeReader:
    """Thread-safe."""

    def __init__(self, sealed: SealedStore, index: Index) -> None:
        self._sealed = sealed
        self._index = index
        self._lock = threading.Lock()
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._lanes = FetchLanes(sealed.store.lanes)
        self._coming: dict[bytes, threading.Event] = {}

    def load(self, node_id: bytes) -> bytes:
        """The plain bytes of a node.

        Tries every copy. Raises ObjectMissing where there is none, ObjectDamaged where none is
        good.
        """
        if (plain := self._cached(node_id)) is not None:
            return plain
        # All who begin to read a disk at once miss the same nodes: one of them fetches each.
        with self._claimed([node_id]) as mine:
            if mine:
                return self._loaded(node_id)
        # Who fetched it may have failed.
        return self._cached(node_id) or self._loaded(node_id)

    @property
    def bringing(self) -> Callable[[Sequence[bytes]], None] | None:
        """`bring` where requests wait for a network; None where it would gain nothing."""
        return None if self._sealed.store.lanes == 1 else self.bring

    def bring(self, node_ids: Sequence[bytes]) -> None:
        """Have these at hand for `load`, in few requests that are under way together. HOLE is
        passed over. At most 64 at a time, or the first are gone before the last are here.

        What is missing or damaged is left for `load` to tell. Raises StoreUnavailable.
        """
        with self._claimed(node_ids) as mine:
            self._fetch(mine)

    @contextmanager
    def _claimed(self, node_ids: Sequence[bytes]) -> Iterator[list[bytes]]:
        """Those that are neither at hand nor on their way; on leaving, the others have come, too,
        unless they cannot be had."""
        arrived = threading.Event()
        with self._lock:
            absent = {*node_ids} - self._cache.keys() - {HOLE}
            others = [self._coming[node_id] for node_id in absent & self._coming.keys()]
            mine = sorted(absent - self._coming.keys())
            self._coming |= dict.fromkeys(mine, arrived)
        try:
            yield mine
        finally:
            with self._lock:
                for node_id in mine:
                    del self._coming[node_id]
            arrived.set()
        for other in others:
            other.wait()

    def _fetch(self, node_ids: list[bytes]) -> None:
        if not node_ids:
            return
        places = self._index.locate(ids_of(node_ids))
        believed = [place if place and place.length <= _BLOB_MAX else None for place in places]
        runs = plan_ranges(believed, reach_of(self._sealed.store.lanes))
        copies = [[(node_ids[at], place) for at in run if (place := places[at])] for run in runs]
        self._lanes.each([partial(self._fetch_run, run) for run in copies])

    def _fetch_run(self, copies: list[tuple[bytes, Location]]) -> None:
        """One ranged get for neighbours."""
        (_, first), (_, last) = copies[0], copies[-1]
        key = object_key(first.pack.kind, first.pack.name.hex())
        span = last.offset + last.length - first.offset
        with suppress(ObjectMissing):
            data = memoryview(self._sealed.store.get_range(key, first.offset, span))
            for node_id, place in copies:
                start = place.offset - first.offset
                with suppress(ObjectDamaged, UnknownFormat):
                    plain = self.open_copy(data[start : start + place.length], node_id, place)
                    self._keep(node_id, plain)

    def _cached(self, node_id: bytes) -> bytes | None:
        with self._lock:
            if (plain := self._cache.get(node_id)) is not None:
                self._cache.move_to_end(node_id)
            return plain

    def _keep(self, node_id: bytes, plain: bytes) -> None:
        with self._lock:
            self._cache[node_id] = plain
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)

    def _loaded(self, node_id: bytes) -> bytes:
        fault: RepositoryError = ObjectMissing(f"map node {node_id.hex()[:16]} is in no index")
        for place in self._index.search(node_id):
            try:
                key = object_key(place.pack.kind, place.pack.name.hex())
                copy = partial(self.load_from, node_id, place)
                plain = reread(self._sealed.store, key, copy)
            except (ObjectMissing, ObjectDamaged, UnknownFormat) as error:
                fault = error
            else:
                self._keep(node_id, plain)
                return plain
        raise fault

    def load_from(self, node_id: bytes, place: Location) -> bytes:
        """One copy of a node, verified. Raises ObjectMissing, ObjectDamaged."""
        key = object_key(place.pack.kind, place.pack.name.hex())
        if place.length > _BLOB_MAX:
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
