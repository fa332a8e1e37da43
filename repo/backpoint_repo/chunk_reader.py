"""Chunks out of data packs: fetched in coalesced ranges, opened, verified against their ids.

Needs the owner's key. Tries every copy of a chunk before it gives up. Knows no disks and keeps no
plaintext; caching is for `chunk_cache.py`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from operator import or_
from typing import Final, NamedTuple

from blake3 import blake3

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UnknownFormat
from backpoint_repo.fetch_lanes import FetchLanes
from backpoint_repo.format import BLOB_OVERHEAD, HOLE, LEAF_SIZE, Kind, object_key
from backpoint_repo.index import Index, ids_of
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.keyring import data_key_id
from backpoint_repo.range_plan import plan_ranges, reach_of
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import blob_key_id, open_blob
from backpoint_repo.store.cached_store import reread

CHUNK_SIZE_MAX: Final = LEAF_SIZE


class WantedChunk(NamedTuple):
    """A chunk id, its length in bytes as the map says, and where a copy lies if already known."""

    content_id: bytes
    length: int
    place: Location | None


class ChunkReader:
    """Thread-safe. In memory at a time: a range of RANGE_MAX for each caller, and, where requests
    wait for a network, for each lane of the store."""

    def __init__(self, sealed: SealedStore, index: Index) -> None:
        self._sealed = sealed
        self._index = index
        self._lanes = FetchLanes(sealed.store.lanes)
        self._reach = reach_of(sealed.store.lanes)
        self._lock = threading.Lock()
        self._data_keys: dict[bytes, bytes] = {}
        self._opening: dict[bytes, threading.Lock] = {}
        self._learning = threading.Lock()
        self._cores = threading.Semaphore(os.cpu_count() or 1)

    @property
    def lanes(self) -> int:
        """Requests at once that pay off."""
        return self._sealed.store.lanes

    def locate(self, ids: Sequence[bytes]) -> list[Location | None]:
        """A place of each id; ids that the index does not know are searched for further."""
        rows = ids_of(list(ids))
        holes = [content_id == HOLE for content_id in ids]

        def incomplete() -> bool:
            return not all(map(or_, map(bool, places), holes))

        places = self._index.locate(rows)
        for learn in (self._index.refresh, self._index.learn_unlisted_packs):
            if not incomplete():
                break
            # All who read at once miss the same: what one of them learns serves the others.
            with self._learning:
                places = self._index.locate(rows)
                if incomplete():
                    learn()
                    places = self._index.locate(rows)
        return places

    def read(self, wanted: Sequence[WantedChunk]) -> list[bytes]:
        """The plain content of each chunk, in order; neighbours come with one request, and where
        requests wait for a network, several are under way at once.

        Raises OwnerKeyNeeded; ObjectMissing, ObjectDamaged where no copy of a chunk is good;
        StoreUnavailable.
        """
        places = [_believed(chunk.place) for chunk in wanted]
        runs = plan_ranges(places, self._reach)
        found: dict[int, bytes] = {}
        for opened in self._lanes.each([partial(self._read_run, run, wanted) for run in runs]):
            found |= opened
        left = [at for at in range(len(wanted)) if at not in found]
        others = self._lanes.each([partial(self._read_any_copy, wanted[at]) for at in left])
        found |= zip(left, others, strict=True)
        return [found[at] for at in range(len(wanted))]

    def read_copy(self, content_id: bytes, length: int, place: Location) -> bytes:
        """One particular copy, verified. Raises ObjectMissing, ObjectDamaged."""
        key = _key_of(place.pack)
        if not BLOB_OVERHEAD <= place.length <= CHUNK_SIZE_MAX + BLOB_OVERHEAD:
            raise ObjectDamaged(f"{key}: a blob of impossible size")
        blob = self._sealed.store.get_range(key, place.offset, place.length)
        return self.open_copy(blob, content_id, length, place)

    def open_copy(
        self, blob: bytes | memoryview, content_id: bytes, length: int, place: Location
    ) -> bytes:
        """The plain content of a blob that was fetched from this place. Raises as `read_copy`."""
        if len(blob) != place.length:
            raise ObjectDamaged(f"{_key_of(place.pack)}: truncated")
        if not 0 < length <= CHUNK_SIZE_MAX:
            raise ObjectDamaged(f"chunk {content_id.hex()[:16]} has an impossible length")
        data_key = self._data_key(blob_key_id(blob), place.pack)
        plain = open_blob(blob, content_id, data_key, self._sealed.packer, length)
        if len(plain) != length or self._id_of(plain) != content_id:
            raise ObjectDamaged(
                f"{_key_of(place.pack)}: the blob of chunk {content_id.hex()[:16]} holds "
                "something else"
            )
        return plain

    def _read_run(self, run: list[int], wanted: Sequence[WantedChunk]) -> dict[int, bytes]:
        """One ranged get for neighbours. What fails is left for the search of other copies."""
        first, last = _placed(wanted[run[0]]), _placed(wanted[run[-1]])
        span = last.offset + last.length - first.offset
        opened: dict[int, bytes] = {}
        try:
            data = memoryview(self._sealed.store.get_range(_key_of(first.pack), first.offset, span))
        except ObjectMissing:
            return opened
        starts = [_placed(wanted[at]).offset - first.offset for at in run]
        with suppress(ObjectDamaged, ObjectMissing, UnknownFormat):
            # While others decode: it may take requests.
            for key_id in {blob_key_id(data[start:]) for start in starts}:
                self._data_key(key_id, first.pack)
        # More threads than cores would only take the interpreter from one another.
        with self._cores:
            for at, start in zip(run, starts, strict=True):
                chunk, place = wanted[at], _placed(wanted[at])
                blob = data[start : start + place.length]
                with suppress(ObjectDamaged, ObjectMissing, UnknownFormat):
                    opened[at] = self.open_copy(blob, chunk.content_id, chunk.length, place)
        return opened

    def _read_any_copy(self, chunk: WantedChunk) -> bytes:
        fault: RepositoryError = ObjectMissing(
            f"chunk {chunk.content_id.hex()[:16]} is in no index"
        )
        for place in self._index.search(chunk.content_id):
            try:
                copy = partial(self.read_copy, chunk.content_id, chunk.length, place)
                return reread(self._sealed.store, _key_of(place.pack), copy)
            except (ObjectMissing, ObjectDamaged, UnknownFormat) as error:
                fault = error
        raise fault

    def _id_of(self, plain: bytes) -> bytes:
        return blake3(plain, key=self._sealed.keyring.chunk_id_key).digest()

    def _data_key(self, key_id: bytes, pack: PackRef) -> bytes:
        """The data key of a blob; opened once per key, from the pack the blob lies in."""
        found = self._data_keys.get(key_id)
        if found is not None:
            return found
        with self._lock:
            opening = self._opening.setdefault(key_id, threading.Lock())
        # All who read at once meet a session's key at once; one of them fetches it.
        with opening:
            try:
                found = self._data_keys.get(key_id) or self._opened_key(key_id, pack)
                self._data_keys[key_id] = found
            finally:
                with self._lock:
                    self._opening.pop(key_id, None)
        return found

    def _opened_key(self, key_id: bytes, pack: PackRef) -> bytes:
        if pack.kind is not Kind.DATA_PACK:
            raise ObjectDamaged("a chunk is indexed in a pack of map nodes")
        sealed_key = self._sealed.directory(pack.kind, pack.name).data_keys.get(key_id)
        if sealed_key is None or data_key_id(sealed_key) != key_id:
            raise ObjectDamaged(f"{_key_of(pack)}: does not list the data key of its blobs")
        keyring = self._sealed.keyring
        return keyring.open_data_key(sealed_key, self._sealed.repository_id)


def _believed(place: Location | None) -> Location | None:
    """None where it cannot be a chunk's: nobody fetches gigabytes because an index says so."""
    possible = place and BLOB_OVERHEAD <= place.length <= CHUNK_SIZE_MAX + BLOB_OVERHEAD
    return place if possible else None


def _placed(chunk: WantedChunk) -> Location:
    assert chunk.place is not None
    return chunk.place


def _key_of(pack: PackRef) -> str:
    return object_key(pack.kind, pack.name.hex())
