"""Guest files on a striped volume whose disks are stored where each request waits for a network."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from backpoint_fusefs.guest.file_pieces import read_pieces, threads_for
from backpoint_fusefs.guest.filesystem import HOLE, Extent
from backpoint_fusefs.guest.mapped_content import ExtentMap, MappedContent
from backpoint_fusefs.guest.volume import Piece, Volume
from backpoint_fusefs.guest.volume_reader import VolumeReader
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.errors import ObjectMissing
from backpoint_repo.format import Kind
from backpoint_repo.repository import Repository
from far_store import LANES, FarStore
from small_repository import assert_clean, back_up, keys_of, new_repository, reopened
from synthetic_disk import SyntheticDisk

MIB: Final = 1 << 20
UNIT: Final = 64 << 10
SIZE: Final = 8 * MIB


@pytest.fixture
def disks() -> list[SyntheticDisk]:
    """Two that make up a striped volume."""
    made = [SyntheticDisk(SIZE // 2) for _ in range(2)]
    for number, disk in enumerate(made):
        disk.write(0, random.Random(number).randbytes(disk.size))
    return made


@pytest.fixture
def repository(disks: list[SyntheticDisk]) -> Repository:
    """With a point of both."""
    repository = new_repository(FarStore(), chunks=ChunkParameters.with_average(64 << 10))
    back_up(repository, "vm", *disks)
    assert_clean(repository)
    return repository


def volume_of(repository: Repository) -> VolumeReader:
    """As a process sees it that knows nothing yet, but the map."""
    fresh = reopened(repository)
    (summary,) = fresh.catalog.refresh()
    cache = ChunkCache(64 * MIB)
    readers = [fresh.open_disk(disk, cache) for disk in fresh.point(summary.point_id).disks]
    for reader in readers:
        reader.expect(0, reader.size)
    volume = Volume("vg0-root", SIZE, (Piece(0, SIZE, UNIT, ((0, 0), (1, 0))),), "ext")
    return VolumeReader(volume, readers)


def content(disks: list[SyntheticDisk], offset: int, length: int) -> bytes:
    """What the volume holds there."""
    found = bytearray()
    for at in range(offset - offset % UNIT, offset + length, UNIT):
        row, disk = divmod(at // UNIT, 2)
        found += disks[disk].content(row * UNIT, UNIT)
    return bytes(found[offset % UNIT : offset % UNIT + length])


def scattered() -> list[Extent]:
    """A file of many extents in no order, with a hole."""
    draw, extents, offset = random.Random(5), list[Extent](), 0
    for number, block in enumerate(draw.sample(range(SIZE // UNIT), 40)):
        at = HOLE if number == 7 else block * UNIT + 4096
        extents.append(Extent(offset, UNIT // 2, at))
        offset += UNIT // 2
    return extents


def bytes_of(disks: list[SyntheticDisk], extents: list[Extent]) -> bytes:
    return b"".join(
        bytes(part.length) if part.at == HOLE else content(disks, part.at, part.length)
        for part in extents
    )


def test_what_is_prefetched_of_a_scattered_file_is_asked_for_together(
    repository: Repository, disks: list[SyntheticDisk]
) -> None:
    store = repository.sealed.store
    assert isinstance(store, FarStore)
    volume, extents = volume_of(repository), scattered()
    file = MappedContent(40 * UNIT // 2, ExtentMap(extents), volume)
    store.forget()
    file.prefetch(0, file.size)
    assert store.count("range", "packs/") <= 2 * len(keys_of(store, Kind.DATA_PACK)) + 8
    store.forget()
    assert file.read_cached(0, file.size) == bytes_of(disks, extents)
    assert store.asked == []


class OneFile:
    """As much of a GuestVolume as reading pieces takes."""

    def __init__(self, reader: VolumeReader, extents: list[Extent]) -> None:
        self.reader = reader
        self._extents = extents

    def extents(self, _: object) -> list[Extent]:
        return self._extents


def test_pieces_are_the_files_and_a_pack_that_is_gone_is_told(
    repository: Repository, disks: list[SyntheticDisk]
) -> None:
    store = repository.sealed.store
    # From the end to the beginning, so that no extent follows the one before it.
    extents = [Extent(at, MIB, SIZE - at - MIB) for at in range(0, SIZE, MIB)]
    volume: Any = OneFile(volume_of(repository), extents)
    assert threads_for([volume, None]) > 2
    assert volume.reader.lanes == LANES
    with ThreadPoolExecutor(threads_for([volume])) as ahead:
        pieces = list(read_pieces(volume, volume, ahead))
        assert b"".join(bytes(piece.content or b"") for piece in pieces) == bytes_of(disks, extents)
        for key in keys_of(store, Kind.DATA_PACK):
            store.delete(key)
        lost: Any = OneFile(volume_of(repository), extents)
        with pytest.raises(ObjectMissing):
            list(read_pieces(lost, lost, ahead))
