"""One pack, read in full: its directory, then every blob held against it, a few MiB at a time.

With the owner's key blobs are opened and their content is held against its id; without it data is
held against the digests of its sealed bytes. What looks wrong is read once more before it is
called wrong: memory and transport fail, too. "Cannot be read now" is no finding about the data, and
a pack that went away is none at all. What a wrong copy means for points is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from backpoint_repo.chunk_reader import CHUNK_SIZE_MAX, ChunkReader
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    RepositoryError,
    StoreUnavailable,
    UnknownFormat,
)
from backpoint_repo.format import BLOB_OVERHEAD, Kind, object_key
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.node_reader import NODE_SIZE_MAX, NodeReader
from backpoint_repo.pack import PackDirectory, blob_digest
from backpoint_repo.sealed_store import SealedStore

PIECE: Final = 4 << 20
"""Bytes fetched at once: as quick as whole packs, in an eighth of the memory. A longer blob is a
piece by itself."""
_BLOB_MAX: Final = {
    Kind.DATA_PACK: CHUNK_SIZE_MAX + BLOB_OVERHEAD,
    Kind.NODE_PACK: 2 * NODE_SIZE_MAX,
}


@dataclass(frozen=True)
class PackVerdict:
    """What looking at one pack came to. read_bytes: sealed bytes of blobs that were read.

    whole: every blob was read. lost: why its directory cannot be believed. bad: content id -> why
    this copy is wrong. flaky: what read wrong once and right when it was read again. unreadable:
    why it cannot be read now; then `bad` is what was found before that. gone: removed meanwhile.
    """

    pack: PackRef
    blobs: int = 0
    read_bytes: int = 0
    whole: bool = False
    lost: str | None = None
    bad: dict[bytes, str] = field(default_factory=dict)
    flaky: tuple[str, ...] = ()
    unreadable: str | None = None
    gone: bool = False

    @property
    def problem(self) -> str:
        """What is wrong with the pack, for people; empty where nothing is."""
        if self.lost is not None:
            return self.lost
        if not self.bad:
            return ""
        example = next(iter(self.bad.values()))
        return f"{len(self.bad)} of {self.blobs} blobs are damaged, the first: {example}"


class PackReader:
    """Thread-safe."""

    def __init__(
        self,
        sealed: SealedStore,
        nodes: NodeReader,
        chunks: ChunkReader,
        take: Callable[[int], None] = lambda _: None,
    ) -> None:
        """take: called before so many bytes are read; returns when it is time."""
        self._sealed = sealed
        self._nodes = nodes
        self._chunks = chunks
        self._take = take
        self._opens_data = sealed.keyring.owner_private is not None

    def opens(self, pack: PackRef) -> bool:
        """Whether the blobs of such a pack are opened, as far as they can be: all but data are by
        either credential."""
        return self._opens_data or pack.kind is not Kind.DATA_PACK

    def directory(self, pack: PackRef) -> PackDirectory:
        """Raises ObjectMissing, ObjectDamaged, UnknownFormat, StoreUnavailable."""
        try:
            return self._sealed.directory(pack.kind, pack.name)
        except (ObjectDamaged, UnknownFormat):
            return self._sealed.directory(pack.kind, pack.name)

    def read(self, pack: PackRef, directory: PackDirectory) -> PackVerdict:
        """Every blob of it."""
        blobs, read_bytes = len(directory.ids), 0
        bad: dict[bytes, str] = {}
        flaky: list[str] = []
        try:
            for first, end in _pieces(directory):
                read_bytes += self._read_piece(pack, directory, range(first, end), bad, flaky)
        except ObjectMissing:
            return PackVerdict(pack, gone=True)
        except StoreUnavailable as error:
            return PackVerdict(
                pack, blobs, read_bytes, bad=bad, flaky=tuple(flaky), unreadable=str(error)
            )
        return PackVerdict(pack, blobs, read_bytes, whole=True, bad=bad, flaky=tuple(flaky))

    def _read_piece(
        self,
        pack: PackRef,
        directory: PackDirectory,
        rows: range,
        bad: dict[bytes, str],
        flaky: list[str],
    ) -> int:
        """Hold neighbours against the directory; returns the bytes read."""
        offsets, lengths = directory.offsets, directory.lengths
        start = int(offsets[rows[0]])
        size = int(offsets[rows[-1]]) + int(lengths[rows[-1]]) - start
        if size > max(PIECE, _BLOB_MAX[pack.kind]):  # one blob, which is not worth the memory
            bad[directory.ids[rows[0]].tobytes()] = _impossible(pack)
            return 0
        self._take(size)
        data = memoryview(self._sealed.store.get_range(_key(pack), start, size))
        for row in rows:
            place = Location(pack, int(offsets[row]), int(lengths[row]))
            at = place.offset - start
            fault = self._fault(data[at : at + place.length], directory, row, place)
            if fault is None:
                continue
            again = self._sealed.store.get_range(_key(pack), place.offset, place.length)
            fault = self._fault(again, directory, row, place)
            if fault is not None:
                bad[directory.ids[row].tobytes()] = fault
            else:
                flaky.append(
                    f"{_key(pack)}: the bytes at {place.offset} read wrong once and right when "
                    "they were read again: memory, cable or disk of this machine may be failing"
                )
        return size

    def _fault(
        self, blob: bytes | memoryview, directory: PackDirectory, row: int, place: Location
    ) -> str | None:
        """Why these bytes are not what the directory says lies there."""
        if not BLOB_OVERHEAD <= place.length <= _BLOB_MAX[place.pack.kind]:
            return _impossible(place.pack)
        if blob_digest(blob) != directory.digests[row].tobytes():
            return f"{_key(place.pack)}: the bytes at {place.offset} are not those that were stored"
        content_id = directory.ids[row].tobytes()
        try:
            if place.pack.kind is Kind.NODE_PACK:
                self._nodes.open_copy(blob, content_id, place)
            elif self._opens_data:
                plain_length = int(directory.plain_lengths[row])
                self._chunks.open_copy(blob, content_id, plain_length, place)
        except (ObjectDamaged, UnknownFormat) as error:
            return str(error)
        return None


def verdict_without_directory(pack: PackRef, error: RepositoryError) -> PackVerdict:
    """What it means that `PackReader.directory` raised this."""
    if isinstance(error, ObjectMissing):
        return PackVerdict(pack, gone=True)
    if isinstance(error, (ObjectDamaged, UnknownFormat)):
        return PackVerdict(pack, lost=str(error))
    return PackVerdict(pack, unreadable=str(error))


def _pieces(directory: PackDirectory) -> Iterator[tuple[int, int]]:
    """(first, end): runs of blobs of at most PIECE bytes, or one longer blob."""
    first, size = 0, 0
    for row, length in enumerate(directory.lengths.tolist()):
        if row > first and size + length > PIECE:
            yield first, row
            first, size = row, 0
        size += length
    if first < len(directory.ids):
        yield first, len(directory.ids)


def _impossible(pack: PackRef) -> str:
    return f"{_key(pack)}: a blob of impossible size"


def _key(pack: PackRef) -> str:
    return object_key(pack.kind, pack.name.hex())
