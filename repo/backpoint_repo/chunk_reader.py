"""Chunks out of data packs: fetched in coalesced ranges, opened, verified against their ids.

Needs the owner's key. Tries every copy of a chunk before it gives up. Knows no disks and keeps no
plaintext; caching is for `chunk_cache.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from blake3 import blake3

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UnknownFormat
from backpoint_repo.format import BLOB_OVERHEAD, HOLE, LEAF_SIZE, Kind, object_key
from backpoint_repo.index import Index, ids_of
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.keyring import data_key_id
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import blob_key_id, open_blob

CHUNK_SIZE_MAX: Final = LEAF_SIZE
_RANGE_MAX: Final = 4 << 20
"""Bytes fetched with one ranged get at most."""
_GAP_MAX: Final = 64 << 10
"""Unwanted bytes between two wanted blobs that are fetched along rather than asked around."""


class WantedChunk(NamedTuple):
    """A chunk id, its length in bytes as the map says, and where a copy lies if already known."""

    content_id: bytes
    length: int
    place: Location | None


class ChunkReader:
    """Thread-safe."""

    def __init__(self, sealed: SealedStore, index: Index) -> None:
        self._sealed = sealed
        self._index = index
        self._lock = threading.Lock()
        self._data_keys: dict[bytes, bytes] = {}

    def locate(self, ids: Sequence[bytes]) -> list[Location | None]:
        """A place of each id; ids that the index does not know are searched for further."""
        rows = ids_of(list(ids))
        places = self._index.locate(rows)
        for learn in (self._index.refresh, self._index.learn_unlisted_packs):
            if all(place or row == HOLE for place, row in zip(places, ids, strict=True)):
                break
            learn()
            places = self._index.locate(rows)
        return places

    def read(self, wanted: Sequence[WantedChunk]) -> list[bytes]:
        """The plain content of each chunk, in order.

        Raises OwnerKeyNeeded; ObjectMissing, ObjectDamaged where no copy of a chunk is good;
        StoreUnavailable.
        """
        results: list[bytes | None] = [None] * len(wanted)
        for run in _coalesced(wanted):
            self._read_run(run, wanted, results)
        return [
            self._read_any_copy(chunk) if plain is None else plain
            for chunk, plain in zip(wanted, results, strict=True)
        ]

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

    def _read_run(
        self, run: list[int], wanted: Sequence[WantedChunk], results: list[bytes | None]
    ) -> None:
        """One ranged get for neighbours. Whatever fails is left for the search of other copies."""
        first, last = _placed(wanted[run[0]]), _placed(wanted[run[-1]])
        span = last.offset + last.length - first.offset
        try:
            data = memoryview(self._sealed.store.get_range(_key_of(first.pack), first.offset, span))
        except ObjectMissing:
            return
        for at in run:
            chunk = wanted[at]
            place = _placed(chunk)
            start = place.offset - first.offset
            blob = data[start : start + place.length]
            try:
                results[at] = self.open_copy(blob, chunk.content_id, chunk.length, place)
            except (ObjectDamaged, ObjectMissing, UnknownFormat):
                results[at] = None

    def _read_any_copy(self, chunk: WantedChunk) -> bytes:
        fault: RepositoryError = ObjectMissing(
            f"chunk {chunk.content_id.hex()[:16]} is in no index"
        )
        for place in self._index.search(chunk.content_id):
            try:
                return self.read_copy(chunk.content_id, chunk.length, place)
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
        if pack.kind is not Kind.DATA_PACK:
            raise ObjectDamaged("a chunk is indexed in a pack of map nodes")
        sealed_key = self._sealed.directory(pack.kind, pack.name).data_keys.get(key_id)
        if sealed_key is None or data_key_id(sealed_key) != key_id:
            raise ObjectDamaged(f"{_key_of(pack)}: does not list the data key of its blobs")
        keyring = self._sealed.keyring
        data_key = keyring.open_data_key(sealed_key, self._sealed.repository_id)
        with self._lock:
            self._data_keys[key_id] = data_key
        return data_key


def _coalesced(wanted: Sequence[WantedChunk]) -> Iterator[list[int]]:
    """Indices into `wanted`, grouped so that each group is one ranged get."""
    placed = [at for at, chunk in enumerate(wanted) if chunk.place is not None]
    placed.sort(key=lambda at: (_placed(wanted[at]).pack, _placed(wanted[at]).offset))
    run: list[int] = []
    for at in placed:
        if run and not _continues(_placed(wanted[run[0]]), _placed(wanted[run[-1]]), wanted[at]):
            yield run
            run = []
        run.append(at)
    if run:
        yield run


def _continues(first: Location, last: Location, chunk: WantedChunk) -> bool:
    place = _placed(chunk)
    return (
        place.pack == first.pack
        and place.offset - (last.offset + last.length) <= _GAP_MAX
        and place.offset + place.length - first.offset <= _RANGE_MAX
    )


def _placed(chunk: WantedChunk) -> Location:
    assert chunk.place is not None
    return chunk.place


def _key_of(pack: PackRef) -> str:
    return object_key(pack.kind, pack.name.hex())
