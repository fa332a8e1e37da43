"""Sealed blobs out of the repository that is copied, each held against its pack's directory.

Decides which copy of a blob is taken and how many are fetched at once: neighbours with one ranged
get, a few such gets side by side, in the order in which blobs were asked for as far as packs go.
No data key is needed: a chunk is taken where its sealed bytes are those that the directory
promises, a map node where it opens. Knows no maps and no destination.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from backpoint_repo.collecting.blob_source import BlobSource
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UnknownFormat
from backpoint_repo.exclusions import Exclusions, read_exclusions
from backpoint_repo.format import BLOB_OVERHEAD, Kind, object_key
from backpoint_repo.healing.sealed_copy import CopyReader, SealedCopy
from backpoint_repo.index import ids_of
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.node_reader import NODE_SIZE_MAX
from backpoint_repo.pack import blob_digest
from backpoint_repo.repository import Repository

_LANES_MAX: Final = 12
"""Ranges fetched side by side, of at most 4 MiB each: 64 MiB of memory with those that are done."""
_AHEAD: Final = 2
_RANGE_MAX: Final = {Kind.DATA_PACK: 4 << 20, Kind.NODE_PACK: 1 << 20}
_GAP_MAX: Final = 64 << 10
"""Unwanted bytes between two wanted blobs that are fetched along rather than asked around."""
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


class _Placed(NamedTuple):
    wanted: Wanted
    place: Location


class VerbatimFetch:
    """A context manager, for one thread, which hands reading to others."""

    def __init__(self, repository: Repository) -> None:
        """Raises what a store raises."""
        self._sealed = repository.sealed
        self._nodes = repository.nodes
        self._index = repository.index.fork()
        self._damaged = read_exclusions(repository.sealed).damaged
        self._index.exclude(Exclusions(damaged=self._damaged))
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

    def fetch(self, kind: Kind, wanted: Iterable[Wanted]) -> Iterator[Fetched]:
        """Each of them once; `wanted` is drawn a little ahead of what is given out.

        Raises ObjectMissing, ObjectDamaged, UnknownFormat where one has no good copy, and
        StoreUnavailable.
        """
        window: deque[tuple[list[_Placed], Future[list[Fetched | None]]]] = deque()
        try:
            for job in self._jobs(kind, wanted):
                window.append((job, self._workers.submit(self._read_range, kind, job)))
                if len(window) >= self._lanes + _AHEAD:
                    yield from self._taken(kind, *window.popleft())
            while window:
                yield from self._taken(kind, *window.popleft())
        finally:
            for _, reading in window:
                reading.cancel()

    def _taken(
        self, kind: Kind, job: list[_Placed], reading: Future[list[Fetched | None]]
    ) -> Iterator[Fetched]:
        for placed, found in zip(job, reading.result(), strict=True):
            taken = found or self._any_copy(kind, placed.wanted)
            self.read += len(taken.copy.blob)
            yield taken

    def _jobs(self, kind: Kind, wanted: Iterable[Wanted]) -> Iterator[list[_Placed]]:
        stream = iter(wanted)
        while some := list(islice(stream, _PLANNED)):
            places = self._places(kind, some)
            placed = [_Placed(*pair) for pair in zip(some, places, strict=True)]
            yield from plan_ranges(placed, _RANGE_MAX[kind])

    def _places(self, kind: Kind, wanted: Sequence[Wanted]) -> list[Location]:
        """Where to try first. What nobody knows, or is marked there, gets a place of no length."""
        found = self._index.locate(ids_of([one.content_id for one in wanted]))
        return [
            place if place is not None and self._is_worth_a_try(kind, one, place) else _NOWHERE
            for one, place in zip(wanted, found, strict=True)
        ]

    def _is_worth_a_try(self, kind: Kind, wanted: Wanted, place: Location) -> bool:
        longest = NODE_SIZE_MAX if wanted.plain_length is None else wanted.plain_length
        fits = BLOB_OVERHEAD <= place.length <= longest + BLOB_OVERHEAD
        unmarked = (wanted.content_id, place.pack) not in self._damaged
        return fits and unmarked and place.pack.kind is kind

    def _read_range(self, kind: Kind, job: list[_Placed]) -> list[Fetched | None]:
        """On a worker thread. None for what is not good there."""
        pack, start = job[0].place.pack, job[0].place.offset
        if pack == _NOWHERE.pack:
            return [None] * len(job)
        end = max(place.offset + place.length for _, place in job)
        try:
            source = self._source(pack)
            key = object_key(pack.kind, pack.name.hex())
            data = memoryview(self._sealed.store.get_range(key, start, end - start))
        except _FAULTS:
            return [None] * len(job)
        found: list[Fetched | None] = []
        for wanted, place in job:
            at = place.offset - start
            blob = bytes(data[at : at + place.length])
            try:
                found.append(self._verified(kind, wanted, place, blob, source))
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
                fault = error
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


_NOWHERE: Final = Location(PackRef(Kind.VOID, b""), 0, 0)


def plan_ranges(placed: Sequence[_Placed], range_max: int) -> Iterator[list[_Placed]]:
    """Groups, each to be fetched with one ranged get: packs in the order in which they come first,
    blobs of each by their offsets."""
    by_pack: dict[PackRef, list[_Placed]] = {}
    for one in placed:
        by_pack.setdefault(one.place.pack, []).append(one)
    for found in by_pack.values():
        run: list[_Placed] = []
        end = 0
        for one in sorted(found, key=lambda item: item.place.offset):
            last = one.place.offset + one.place.length
            if run and (
                one.place.offset - end > _GAP_MAX or last - run[0].place.offset > range_max
            ):
                yield run
                run, end = [], 0
            run.append(one)
            end = max(end, last)
        if run:
            yield run
