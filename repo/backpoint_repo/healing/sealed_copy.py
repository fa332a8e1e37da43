"""One stored copy of a chunk or node, read as it lies in its pack and held against its id.

Decides what makes a copy worth believing. Whoever can open it opens it. Without the owner's key a
chunk's sealed bytes must be those that its pack's directory promises: that tells rot from what was
stored, and not what somebody with the agent credential stored. A pack whose directory is spoilt
still gives its blobs, where another pack lists the data key of their session.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from blake3 import blake3

from backpoint_repo.chunk_reader import CHUNK_SIZE_MAX
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    RepositoryError,
    UnknownFormat,
)
from backpoint_repo.format import BLOB_OVERHEAD, Kind, object_key
from backpoint_repo.index import stored_packs
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.keyring import data_key_id
from backpoint_repo.map_node import Ids
from backpoint_repo.node_reader import NODE_SIZE_MAX, node_id_of
from backpoint_repo.pack import PackDirectory, blob_digest
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import blob_key_id, node_blob_key, open_blob
from backpoint_repo.verbatim_copy import KEYS_MAX, DataKey

_DIRECTORIES_KEPT: Final = 4


@dataclass(frozen=True)
class SealedCopy:
    """Verified. data_key: as `VerbatimCopies` wants it."""

    blob: bytes
    plain_length: int
    data_key: DataKey | None


class CopyReader:
    """Copies of one repository. For one thread."""

    def __init__(self, sealed: SealedStore) -> None:
        self._sealed = sealed
        self._directories: OrderedDict[PackRef, PackDirectory | RepositoryError] = OrderedDict()
        self._opened: dict[bytes, bytes] = {}
        self._listed_in: dict[bytes, PackRef] | None = None

    @property
    def opens_data(self) -> bool:
        """Whether content decides about chunks, or only the digest of their sealed bytes."""
        return self._sealed.keyring.owner_private is not None

    def read(self, kind: Kind, content_id: bytes, place: Location) -> SealedCopy:
        """The copy at this place, or elsewhere in its pack if the directory says so.

        Raises ObjectMissing, ObjectDamaged, UnknownFormat where there is no good one, and
        StoreUnavailable.
        """
        if place.pack.kind is not kind:
            raise ObjectDamaged(f"{_key(place.pack)}: is no pack of {kind.name.lower()}s")
        fault: RepositoryError = ObjectMissing(f"{_key(place.pack)} does not hold it")
        for at in self._places(content_id, place):
            try:
                if kind is Kind.NODE_PACK:
                    return self._node(content_id, at)
                return self._chunk(content_id, at)
            except (ObjectDamaged, ObjectMissing, UnknownFormat) as error:
                fault = error
        raise fault

    def _places(self, content_id: bytes, place: Location) -> Iterator[Location]:
        yield place
        directory = self._directory(place.pack)
        if isinstance(directory, PackDirectory):
            for row in _rows_of(directory.ids, content_id):
                offset, length = int(directory.offsets[row]), int(directory.lengths[row])
                if (offset, length) != (place.offset, place.length):
                    yield Location(place.pack, offset, length)

    def _node(self, node_id: bytes, place: Location) -> SealedCopy:
        keyring = self._sealed.keyring
        blob = self._blob(place, NODE_SIZE_MAX)
        node_key = node_blob_key(keyring.meta_key, blob_key_id(blob))
        plain = open_blob(blob, node_id, node_key, self._sealed.packer, NODE_SIZE_MAX)
        if node_id_of(plain, keyring.node_id_key) != node_id:
            raise ObjectDamaged(f"{_key(place.pack)}: a map node holds something else")
        return SealedCopy(blob, len(plain), None)

    def _chunk(self, content_id: bytes, place: Location) -> SealedCopy:
        blob = self._blob(place, CHUNK_SIZE_MAX)
        data_key = self._data_key(blob_key_id(blob), place.pack)
        if not self.opens_data:
            return SealedCopy(blob, self._promised_length(content_id, place, blob), data_key)
        opened = self._open_key(data_key)
        plain = open_blob(blob, content_id, opened, self._sealed.packer, CHUNK_SIZE_MAX)
        if blake3(plain, key=self._sealed.keyring.chunk_id_key).digest() != content_id:
            raise ObjectDamaged(f"{_key(place.pack)}: a chunk holds something else")
        return SealedCopy(blob, len(plain), data_key)

    def _promised_length(self, content_id: bytes, place: Location, blob: bytes) -> int:
        """Plain length of a blob whose sealed bytes are those its directory promises."""
        directory = self._directory(place.pack)
        if not isinstance(directory, PackDirectory):
            raise directory
        for row in _rows_of(directory.ids, content_id):
            if int(directory.offsets[row]) != place.offset:
                continue
            if blob_digest(blob) == directory.digests[row].tobytes():
                return int(directory.plain_lengths[row])
        raise ObjectDamaged(f"{_key(place.pack)}: the bytes are not those that were stored")

    def _blob(self, place: Location, plain_max: int) -> bytes:
        if not BLOB_OVERHEAD <= place.length <= 2 * plain_max:
            raise ObjectDamaged(f"{_key(place.pack)}: a blob of impossible size")
        blob = self._sealed.store.get_range(_key(place.pack), place.offset, place.length)
        if len(blob) != place.length:
            raise ObjectDamaged(f"{_key(place.pack)}: truncated")
        return blob

    def _data_key(self, key_id: bytes, pack: PackRef) -> DataKey:
        found = self._listed_key(key_id, pack)
        if found is None:
            elsewhere = self._all_listed().get(key_id)
            found = self._listed_key(key_id, elsewhere) if elsewhere else None
        if found is None:
            raise ObjectDamaged(f"{_key(pack)}: no pack lists the data key of its blobs")
        return key_id, found

    def _listed_key(self, key_id: bytes, pack: PackRef) -> bytes | None:
        directory = self._directory(pack)
        if not isinstance(directory, PackDirectory):
            return None
        sealed_key = directory.data_keys.get(key_id)
        return sealed_key if sealed_key and data_key_id(sealed_key) == key_id else None

    def _all_listed(self) -> dict[bytes, PackRef]:
        """Key ids of all packs; every directory is read, once, when a pack's own is spoilt."""
        if self._listed_in is None:
            listed: dict[bytes, PackRef] = {}
            for pack in stored_packs(self._sealed):
                directory = self._directory(pack)
                # No writer lists more, and memory is not to be filled by one who does.
                if isinstance(directory, PackDirectory) and len(directory.data_keys) <= KEYS_MAX:
                    listed.update(dict.fromkeys(directory.data_keys, pack))
            self._listed_in = listed
        return self._listed_in

    def _open_key(self, data_key: DataKey) -> bytes:
        key_id, sealed_key = data_key
        if key_id not in self._opened:
            keyring = self._sealed.keyring
            self._opened[key_id] = keyring.open_data_key(sealed_key, self._sealed.repository_id)
        return self._opened[key_id]

    def _directory(self, pack: PackRef) -> PackDirectory | RepositoryError:
        found = self._directories.get(pack)
        if found is None:
            try:
                found = self._sealed.directory(pack.kind, pack.name)
            except (ObjectDamaged, ObjectMissing, UnknownFormat) as error:
                found = error
            self._directories[pack] = found
            if len(self._directories) > _DIRECTORIES_KEPT:
                self._directories.popitem(last=False)
        return found


def _rows_of(ids: Ids, content_id: bytes) -> list[int]:
    same = (ids == np.frombuffer(content_id, np.uint8)).all(axis=1)
    rows: list[int] = np.flatnonzero(same).tolist()
    return rows


def _key(pack: PackRef) -> str:
    return object_key(pack.kind, pack.name.hex())
