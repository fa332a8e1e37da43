"""Every sealed blob of a point, read back from its store and held against what was promised of it.

Map nodes are opened and lead on; of chunks the sealed bytes must be those that the pack's directory
promises, and where there is an original, those that its packs promise, too. Where another blob
holds the chunk (the place had it before the copy was made), it is opened, if the credential can,
and otherwise told. Nothing is taken from a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

import numpy as np

from backpoint_repo.chunk_reader import ChunkReader, WantedChunk
from backpoint_repo.collecting.id_set import first_of_each
from backpoint_repo.copying.verbatim_fetch import Fetched, VerbatimFetch, Wanted
from backpoint_repo.copying.verbatim_walk import MapWalk
from backpoint_repo.disk_map import DiskMap, Geometry
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import Kind
from backpoint_repo.map_node import Ids
from backpoint_repo.pack import blob_digest
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.point import Disk, Point
from backpoint_repo.repository import Repository
from backpoint_repo.sizes import counted

_COMPARED: Final = 1 << 10
"""Chunks whose digests are looked up together in the original's packs."""
_FAULTS: Final = (ObjectMissing, ObjectDamaged, UnknownFormat)


class _Read(NamedTuple):
    content_id: bytes
    plain_length: int
    digest: bytes


class SealedReadBack:
    """For one thread."""

    def __init__(
        self, repository: Repository, original: Repository | None, read: Point | None = None
    ) -> None:
        """repository: holds the points to be read. original: a place with the same keys that the
        points were copied from; None: there is nothing to compare with. read: a point in
        `repository` that was read already: what hangs at the same place is not read again."""
        self._repository = repository
        self._original = original
        self._done = {disk.key: disk for disk in read.disks} if read else {}
        self._unsure = 0

    def problems(
        self, point: Point, progress: PhaseProgress, tell: Callable[[str], None]
    ) -> Iterator[str]:
        """A sentence each; of each disk or file at most one that ends its reading. Raises
        StoreUnavailable."""
        self._repository.index.refresh()
        with VerbatimFetch(self._repository) as here:
            if self._original is None:
                yield from self._all(point, here, None, progress)
            else:
                self._original.index.refresh()
                with VerbatimFetch(self._original) as there:
                    yield from self._all(point, here, there, progress)
        if self._unsure:
            tell(
                f"{counted(self._unsure, 'chunk')} of the copy lay there before under another key: "
                "read back, and not compared with the original's, which needs the owner's "
                "passphrase"
            )

    def _all(
        self,
        point: Point,
        here: VerbatimFetch,
        there: VerbatimFetch | None,
        progress: PhaseProgress,
    ) -> Iterator[str]:
        for disk in point.disks:
            progress.phase(f"verifying {disk.key}", disk.size)
            wanted = self._of_disk(disk, here, progress.advance)
            yield from self._compared(f"disk {disk.key}", wanted, here, there)
        for file in point.files:
            lengths = map(file.stored_length, range(len(file.chunks)))
            pieces = map(Wanted, file.chunks, lengths)
            yield from self._compared(f"file {file.name}", pieces, here, there)

    def _of_disk(
        self, disk: Disk, here: VerbatimFetch, advance: Callable[[int], None]
    ) -> Iterator[Wanted]:
        nodes, done = partial(here.fetch, Kind.NODE_PACK), self._done.get(disk.key)
        base = None
        if done is not None and done.size == disk.size:
            base = DiskMap(done.size, done.root, self._repository.nodes.load)
        return MapWalk(Geometry(disk.size), base, nodes, _Everything(), advance).wanted(disk.root)

    def _compared(
        self, what: str, wanted: Iterable[Wanted], here: VerbatimFetch, there: VerbatimFetch | None
    ) -> Iterator[str]:
        read = (
            _Read(one.content_id, one.copy.plain_length, blob_digest(one.copy.blob))
            for one in here.fetch(Kind.DATA_PACK, wanted)
        )
        try:
            while some := list(islice(read, _COMPARED)):
                if there is not None:
                    yield from self._differing(what, some, there)
        except _FAULTS as error:
            yield f"{what}: {error}"

    def _differing(self, what: str, some: list[_Read], there: VerbatimFetch) -> Iterator[str]:
        promised = there.promised([one.content_id for one in some])
        for one, digest in zip(some, promised, strict=True):
            if digest == one.digest or one.digest in there.promised_anywhere(one.content_id):
                continue
            if self._repository.sealed.keyring.owner_private is None:
                self._unsure += 1
            elif why := self._wrong(one):
                yield f"{what}: {why}"

    def _wrong(self, one: _Read) -> str:
        """Why the chunk is not what its id says, found out by opening it; empty where it is."""
        sealed, index = self._repository.sealed, self._repository.index
        wanted = WantedChunk(one.content_id, one.plain_length, None)
        try:
            ChunkReader(sealed, index).read([wanted])
        except _FAULTS as error:
            return str(error)
        return ""


class _Everything:
    """A `Keeper` that wants every chunk of each leaf, once a leaf, and keeps nothing."""

    def keep_node(self, node: Fetched) -> None:
        """Its bytes were held against its id."""

    def lacks(self, ids: Ids) -> list[int]:
        """All that are no holes."""
        rows = np.flatnonzero(ids.any(axis=1))
        found: list[int] = rows[first_of_each(ids[rows])].tolist() if len(rows) else []
        return found
