"""A stored disk as a source: the same extents and bytes, and not more ahead than there is room."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.copying import stored_source
from backpoint_repo.copying.stored_source import StoredSource
from backpoint_repo.errors import SourceError, StoreUnavailable
from backpoint_repo.format import LEAF_SIZE, Kind
from backpoint_repo.image_reader import ImageReader
from repo.collecting.collect_scene import filled_disk
from repo.copying.resealed_scene import WatchedStore
from small_repository import assert_clean, back_up, keys_of, new_repository
from synthetic_disk import SyntheticDisk, random_disk

KIB = 1 << 10
THREADS = 4


@pytest.fixture
def fetchers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far less ahead than disks have."""
    monkeypatch.setattr(stored_source, "AHEAD_BYTES", 256 * KIB)
    monkeypatch.setattr(stored_source, "_UNIT", 64 * KIB)


def stored(disk: SyntheticDisk, store: WatchedStore | None = None) -> ImageReader:
    repository = new_repository(store or WatchedStore("here"))
    point = back_up(repository, "web", disk)
    assert_clean(repository)
    return repository.open_disk(point.disks[0], ChunkCache(1 << 20))


@pytest.mark.parametrize("ahead", [False, True])
def test_extents_and_bytes(ahead: bool, fetchers: ThreadPoolExecutor) -> None:
    """They cover the disk without gaps, none crosses a leaf's border, holes are zeros, and what is
    read is what is stored, in whatever order."""
    disk = random_disk(2 * LEAF_SIZE + 12345, 1)
    disk.write(LEAF_SIZE - 9000, b"over the border" * 1000)
    reader = stored(disk)
    source = StoredSource("raw", "disk0", reader, fetchers if ahead else None)
    extents = list(source.extents(0, disk.size))
    at = 0
    for extent in extents:
        assert extent.offset == at
        at += extent.length
        assert extent.offset // LEAF_SIZE == (at - 1) // LEAF_SIZE
        if extent.hole:
            assert not any(disk.content(extent.offset, extent.length))
    assert at == source.size == disk.size
    data = [extent for extent in extents if not extent.hole]
    random.Random(1).shuffle(data)
    for extent in data:
        buffer = bytearray(extent.length)
        source.read_into(extent.offset, memoryview(buffer))
        assert buffer == disk.content(extent.offset, extent.length)
    source.close()


def test_what_was_announced_is_at_hand_and_not_all_of_it(fetchers: ThreadPoolExecutor) -> None:
    """Reading on brings the next; after closing nothing more is fetched."""
    reader = stored(filled_disk(2, 1 << 20))
    source = StoredSource("raw", "disk0", reader, fetchers)
    extents = source.extents(0, source.size)
    next(extents)
    settle(fetchers)
    assert reader.read_cached(0, 200 * KIB) is not None
    assert reader.read_cached(512 * KIB, 1) is None
    source.read_into(0, memoryview(bytearray(192 * KIB)))
    settle(fetchers)
    assert reader.read_cached(192 * KIB, 192 * KIB) is not None
    source.close()
    source.read_into(192 * KIB, memoryview(bytearray(64 * KIB)))
    settle(fetchers)
    assert reader.read_cached(900 * KIB, 1) is None


def test_troubles_are_told_as_what_they_are(fetchers: ThreadPoolExecutor) -> None:
    """A store that is away is no damage; what is fetched ahead in vain is told when it is read."""
    store = WatchedStore("here")
    reader = stored(filled_disk(3, 1 << 18), store)
    source = StoredSource("raw", "scsi0:1", reader, fetchers)
    list(source.extents(0, 4096))
    store.away = set(keys_of(store, Kind.DATA_PACK))
    with pytest.raises(StoreUnavailable):
        source.read_into(128 * KIB, memoryview(bytearray(64 * KIB)))
    store.away = set()
    for key in keys_of(store, Kind.DATA_PACK):
        store.delete(key)
    with pytest.raises(SourceError, match="scsi0:1: bytes 196608 to 262144 cannot be read: "):
        source.read_into(192 * KIB, memoryview(bytearray(64 * KIB)))


def settle(fetchers: ThreadPoolExecutor) -> None:
    """Whatever was begun is done: all threads meet, and each does one job at a time."""
    meeting = threading.Barrier(THREADS)
    for job in [fetchers.submit(meeting.wait) for _ in range(THREADS)]:
        job.result()
