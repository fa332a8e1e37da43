"""Sealed blobs out of the repository that is copied, each held against its pack's directory.

Decides which copy of a blob is taken and how many are fetched at once: neighbours with one ranged
get, a few such gets side by side, in the order in which blobs were asked for as far as packs go.
No data key is needed: a chunk is taken where its sealed bytes are those that the directory
promises, a map node where it opens. Knows no maps and no destination.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from backpoint_repo.collecting.blob_source import BlobSource
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UnknownFormat
from backpoint_repo.exclusions import read_marks
from backpoint_repo.format import BLOB_OVERHEAD, Kind, object_key
from backpoint_repo.healing.sealed_copy import CopyReader, SealedCopy
from backpoint_repo.index import ids_of
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.node_reader import NODE_SIZE_MAX
from backpoint_repo.pack import blob_digest
from backpoint_repo.range_plan import plan_ranges, reach_of
from backpoint_repo.repository import Repository

_LANES_MAX: Final = 8
"""Ranges fetched side by side, of at most 4 MiB each: 40 MiB of memory with those that are done."""
_AHEAD: Final = 2
_NODES_MAX: Final = 1 << 20
"""Bytes of map nodes fetched with one get: every level of a map has some under way."""
_PLANNED: Final = 1 << 10
"""Blobs that are looked up and sorted by pack together."""
_DIRECTORIES: Final = 32
_FAULTS: Final = (ObjectMissing, ObjectDamaged, UnknownFormat)


class Wanted(NamedTuple):
    """A chunk with its plain length in bytes as a map says; a node, whose length nobody says, with
    None."""

    content_id: bytes
    plain_length: int | None = None


@dataclass(frozen=True)
class Fetched:
    """copy: verified. plain: of map nodes only."""

    content_id: bytes
    copy: SealedCopy
    plain: bytes = b""


class VerbatimFetch:
    """A context manager, for one thread, which hands reading to others."""

    def __init__(self, repository: Repository) -> None:
        """Raises what a store raises."""
        self._sealed = repository.sealed
        self._nodes = repository.nodes
        self._index = repository.index.fork()
        # Trash still reads, and a repository whose trash cannot be read is one to be copied.
        marks = read_marks(repository.sealed)
        self._damaged = marks.damaged
        self._index.exclude(marks)
        self._singly = CopyReader(repository.sealed)
        self._lanes = max(2, min(repository.sealed.store.lanes, _LANES_MAX))
        self._workers = ThreadPoolExecutor(self._lanes, "fetch")
        self._lock = threading.Lock()
        self._sources: OrderedDict[PackRef, Future[BlobSource]] = OrderedDict()
        self.read = 0
        """Sealed bytes given out so far."""

    def __enter__(self) -> VerbatimFetch:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown(cancel_futures=True)

    def fetch(self, kind: Kind, wanted: Iterable[Wanted]) -> Generator[Fetched]:
        """Each of them once; `wanted` is drawn a little ahead of what is given out.

        Raises ObjectMissing, ObjectDamaged, UnknownFormat where one has no good copy, and
        StoreUnavailable.
        """
        window: deque[tuple[list[Wanted], Future[list[Fetched | None]]]] = deque()
        try:
            for some, places in self._jobs(kind, wanted):
                window.append((some, self._workers.submit(self._read_range, kind, some, places)))
                if len(window) >= self._lanes + _AHEAD:
                    yield from self._taken(kind, *window.popleft())
            while window:
                yield from self._taken(kind, *window.popleft())
        finally:
            for _, reading in window:
                reading.cancel()

    def promised(self, ids: Sequence[bytes]) -> list[bytes | None]:
        """What a directory promises of one copy of each chunk's sealed bytes: a digest of 16 bytes.
        None where none does. Raises StoreUnavailable."""
        places = self._index.locate(ids_of(list(ids)))
        packs = dict.fromkeys(place.pack for place in places if place is not None)
        sources = {pack: self._workers.submit(self._source, pack) for pack in packs}
        found: list[bytes | None] = []
        for content_id, place in zip(ids, places, strict=True):
            digest = None
            if place is not None:
                with contextlib.suppress(*_FAULTS):
                    digest = sources[place.pack].result().digest_at(content_id, *place[1:])
            found.append(digest)
        return found

    def promised_anywhere(self, content_id: bytes) -> set[bytes]:
        """As `promised`, of all copies of one chunk."""
        digests = set[bytes]()
        for place in self._index.copies(content_id):
            with contextlib.suppress(*_FAULTS):
                digest = self._source(place.pack).digest_at(content_id, *place[1:])
                digests |= {digest} if digest else set()
        return digests

    def _taken(
        self, kind: Kind, wanted: list[Wanted], reading: Future[list[Fetched | None]]
    ) -> Iterator[Fetched]:
        for one, found in zip(wanted, reading.result(), strict=True):
            taken = found or self._any_copy(kind, one)
            self.read += len(taken.copy.blob)
            yield taken

    def _jobs(
        self, kind: Kind, wanted: Iterable[Wanted]
    ) -> Iterator[tuple[list[Wanted], list[Location]]]:
        """What lies in one range each, and where; then what has no place to try first."""
        reach, stream = reach_of(self._sealed.store.lanes), iter(wanted)
        if kind is Kind.NODE_PACK:
            reach = reach._replace(longest=_NODES_MAX)
        while some := list(islice(stream, _PLANNED)):
            places = self._places(kind, some)
            for group in sorted(plan_ranges(places, reach), key=min):
                yield [some[at] for at in group], [place for at in group if (place := places[at])]
            if lost := [one for one, place in zip(some, places, strict=True) if place is None]:
                yield lost, []

    def _places(self, kind: Kind, wanted: Sequence[Wanted]) -> list[Location | None]:
        """Where to try first; None for what nobody knows, and for what is marked there."""
        found = self._index.locate(ids_of([one.content_id for one in wanted]))
        return [
            place if place is not None and self._is_worth_a_try(kind, one, place) else None
            for one, place in zip(wanted, found, strict=True)
        ]

    def _is_worth_a_try(self, kind: Kind, wanted: Wanted, place: Location) -> bool:
        longest = NODE_SIZE_MAX if wanted.plain_length is None else wanted.plain_length
        fits = BLOB_OVERHEAD <= place.length <= longest + BLOB_OVERHEAD
        unmarked = (wanted.content_id, place.pack) not in self._damaged
        return fits and unmarked and place.pack.kind is kind

    def _read_range(
        self, kind: Kind, wanted: list[Wanted], places: list[Location]
    ) -> list[Fetched | None]:
        """On a worker thread. None for what is not good there."""
        if not places:
            return [None] * len(wanted)
        pack, start = places[0].pack, places[0].offset
        end = max(place.offset + place.length for place in places)
        try:
            source = self._source(pack)
            key = object_key(pack.kind, pack.name.hex())
            data = memoryview(self._sealed.store.get_range(key, start, end - start))
        except _FAULTS:
            return [None] * len(wanted)
        found: list[Fetched | None] = []
        for one, place in zip(wanted, places, strict=True):
            at = place.offset - start
            blob = bytes(data[at : at + place.length])
            try:
                found.append(self._verified(kind, one, place, blob, source))
            except _FAULTS:
                found.append(None)
        return found

    def _verified(
        self, kind: Kind, wanted: Wanted, place: Location, blob: bytes, source: BlobSource
    ) -> Fetched:
        content_id = wanted.content_id
        row = source.row_at(content_id, place.offset, place.length)
        if row is None or blob_digest(blob) != source.directory.digests[row].tobytes():
            raise ObjectDamaged("the bytes are not those that were stored")
        plain_length = int(source.directory.plain_lengths[row])
        if kind is Kind.NODE_PACK:
            plain = self._nodes.open_copy(blob, content_id, place)
            return Fetched(content_id, SealedCopy(blob, len(plain), None), plain)
        data_key = source.data_key_of(blob)
        if data_key is None or plain_length != wanted.plain_length:
            raise ObjectDamaged("its length or its data key is not what it should be")
        return Fetched(content_id, SealedCopy(blob, plain_length, data_key))

    def _any_copy(self, kind: Kind, wanted: Wanted) -> Fetched:
        """Every copy, one after the other, but for those that are marked as damaged."""
        content_id = wanted.content_id
        fault: RepositoryError = ObjectMissing("it is in no index")
        for place in self._index.search(content_id):
            if (content_id, place.pack) in self._damaged:
                fault = ObjectDamaged("its copy is marked as damaged")
                continue
            try:
                copy = self._singly.read(kind, content_id, place)
                if wanted.plain_length not in (None, copy.plain_length):
                    raise ObjectDamaged("it has another length than the map says")
                plain = b""
                if kind is Kind.NODE_PACK:
                    whole = Location(place.pack, place.offset, len(copy.blob))
                    plain = self._nodes.open_copy(copy.blob, content_id, whole)
                return Fetched(content_id, copy, plain)
            except _FAULTS as error:
                # What is there and wrong says more than what is gone.
                fault = fault if isinstance(fault, ObjectDamaged) else error
        what = "map node" if kind is Kind.NODE_PACK else "chunk"
        raise type(fault)(
            f"{what} {content_id.hex()[:16]} has no good copy in {self._sealed.store.address}: "
            f"{fault}"
        )

    def _source(self, pack: PackRef) -> BlobSource:
        """The pack's directory, read once by whoever comes first; others wait for it."""
        with self._lock:
            found = self._sources.get(pack)
            mine = found is None
            if found is None:
                found = self._sources[pack] = Future()
                while len(self._sources) > _DIRECTORIES:
                    self._sources.popitem(last=False)
        if mine:
            try:
                found.set_result(BlobSource(self._sealed, pack))
            except BaseException as error:  # of whatever kind: others wait for it
                found.set_exception(error)
        return found.result()
