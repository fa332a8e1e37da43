"""What a repository holds, in numbers: what its points show, and what that costs in the store.

Counts from points, listings and pack directories alone, so that the agent credential is enough.
Refuses to walk trees: which stored chunks a point still needs is not told here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import CONFIG_KEY, FOLDERS, Kind, object_key
from backpoint_repo.index import pack_sizes
from backpoint_repo.index_segment import prefixes_of
from backpoint_repo.pack import PackDirectory
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.repository import Repository
from backpoint_repo.store.probe import PROBES
from backpoint_repo.trash import read_trash

_FOREIGN: Final = "foreign"
_KNOWN: Final = {CONFIG_KEY, *FOLDERS.values()}


@dataclass(frozen=True)
class ChunkTally:
    """chunks, plain_bytes: different chunks and what they hold. blobs, blob_plain_bytes,
    blob_bytes: all stored copies, before and after compression and sealing."""

    chunks: int = 0
    plain_bytes: int = 0
    blobs: int = 0
    blob_plain_bytes: int = 0
    blob_bytes: int = 0

    @property
    def compression_ratio(self) -> float | None:
        """Plain bytes for each stored byte; None without chunks."""
        return self.blob_plain_bytes / self.blob_bytes if self.blob_bytes else None


@dataclass(frozen=True)
class Tally:
    """logical_bytes, allocated_bytes: of all points, as if each were stored by itself.

    objects, stored_bytes: number and size of objects by folder ("foreign": not ours).
    unlisted_packs: in no index segment, left by a writer that died or still writes. trashed_packs,
    trashed_bytes: what a collector is about to delete.
    unreadable: what could not be counted, in words.
    """

    points: int
    vms: int
    logical_bytes: int
    allocated_bytes: int
    chunks: ChunkTally
    objects: dict[str, int]
    stored_bytes: dict[str, int]
    unlisted_packs: int
    trashed_packs: int
    trashed_bytes: int
    unreadable: tuple[str, ...]

    @property
    def dedup_ratio(self) -> float | None:
        """Allocated bytes of all points for each byte of different chunks; None without chunks."""
        plain = self.chunks.plain_bytes
        return self.allocated_bytes / plain if plain else None


def take_tally(repository: Repository, progress: PhaseProgress) -> Tally:
    """Count. Raises what a store raises."""
    points: Sequence[PointSummary] = repository.catalog.refresh()
    repository.index.refresh()
    objects, stored = _count_objects(repository)
    sizes = dict(pack_sizes(repository.sealed))
    packs = sizes.keys()
    directories, unreadable = [], list(repository.catalog.broken.values())
    waiting = list[int]()
    try:
        trashed = read_trash(repository.sealed).packs
        waiting += [size for pack, size in sizes.items() if pack in trashed]
    except (ObjectDamaged, UnknownFormat) as error:
        unreadable.append(str(error))
    progress.phase("packs", len(packs))
    for pack in packs:
        progress.advance(1)
        if pack.kind is not Kind.DATA_PACK:
            continue
        try:
            directories.append(repository.sealed.directory(pack.kind, pack.name))
        except (ObjectDamaged, ObjectMissing) as error:
            unreadable.append(f"{object_key(pack.kind, pack.name.hex())}: {error}")
    return Tally(
        points=len(points),
        vms=len({point.vm for point in points}),
        logical_bytes=sum(point.size for point in points),
        allocated_bytes=sum(point.allocated for point in points),
        chunks=_count_chunks(directories),
        objects=dict(objects),
        stored_bytes=dict(stored),
        unlisted_packs=len(packs - repository.index.packs()),
        trashed_packs=len(waiting),
        trashed_bytes=sum(waiting),
        unreadable=tuple(unreadable + repository.index.broken_segments),
    )


def _count_objects(repository: Repository) -> tuple[Counter[str], Counter[str]]:
    objects, stored = Counter[str](), Counter[str]()
    for found in repository.sealed.store.list(""):
        if found.key.startswith(PROBES):
            continue  # in a copy of a bucket; no part of the repository
        folder = found.key.partition("/")[0]
        folder = folder if folder in _KNOWN else _FOREIGN
        objects[folder] += 1
        stored[folder] += found.size
    return objects, stored


def _count_chunks(directories: list[PackDirectory]) -> ChunkTally:
    if not directories:
        return ChunkTally()
    # Eight bytes of an id tell chunks apart well enough for a sum, in a quarter of the memory.
    prefixes = np.concatenate([prefixes_of(directory.ids) for directory in directories])
    plain = np.concatenate([directory.plain_lengths for directory in directories])
    first: NDArray[np.int64] = np.unique(prefixes, return_index=True)[1]
    return ChunkTally(
        chunks=len(first),
        plain_bytes=int(plain[first].sum(dtype=np.int64)),
        blobs=len(prefixes),
        blob_plain_bytes=int(plain.sum(dtype=np.int64)),
        blob_bytes=sum(int(one.lengths.sum(dtype=np.int64)) for one in directories),
    )
