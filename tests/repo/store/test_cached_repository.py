"""A repository read through a cache: nothing is fetched again, and nothing wrong stays."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.block_place import DEFAULT_MAX, BlockPlace, default_limit
from backpoint_repo.cache_options import add_cache_options, block_place
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UsageError
from backpoint_repo.format import Kind
from backpoint_repo.point import Point
from backpoint_repo.point_hold import Hold, put_hold
from backpoint_repo.reading import reading
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.retention.removal import remove_points
from backpoint_repo.store.block_cache import DATA
from backpoint_repo.store.cached_store import CachedStore, settle
from counting_store import CountingStore
from small_repository import (
    NOON,
    PASSPHRASE,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
)
from synthetic_disk import SyntheticDisk

MIB = 1 << 20
SIZE = 5 * MIB


@pytest.fixture
def far() -> CountingStore:
    return CountingStore()


@pytest.fixture
def made(far: CountingStore) -> tuple[Repository, SyntheticDisk]:
    """A repository with three points of one VM."""
    repository, disk = new_repository(far), SyntheticDisk(SIZE)
    disk.write(0, os.urandom(3 * MIB))
    for number in range(3):
        disk.write(number * MIB, os.urandom(MIB // 2))
        back_up(repository, "web", disk)
    return repository, disk


@pytest.fixture
def place(tmp_path: Path) -> BlockPlace:
    return BlockPlace(tmp_path / "cache", 64 * MIB, named=True)


def opened(far: CountingStore, place: BlockPlace) -> Repository:
    """As a new process has it."""
    repository = open_repository(far, PASSPHRASE, blocks=place)
    far.asked.clear()
    far.looks.clear()
    return repository


def newest(repository: Repository) -> Point:
    return repository.point(repository.catalog.refresh()[-1].point_id)


def content(repository: Repository) -> bytes:
    """Of the newest point's disk; all that was fetched for it is kept then."""
    try:
        return read_disk(repository, newest(repository).disks[0])
    finally:
        settle(repository.sealed.store)


def test_the_second_process_fetches_nothing(
    far: CountingStore, made: tuple[Repository, SyntheticDisk], place: BlockPlace
) -> None:
    """Not one request for content, of data or of metadata, to find a point and read its disk."""
    _, disk = made
    first = opened(far, place)
    assert content(first) == disk.content(0, SIZE)
    assert far.asked
    second = opened(far, place)
    assert content(second) == disk.content(0, SIZE)
    assert (far.asked, far.looks) == ([], [])
    assert_clean(made[0])


@pytest.mark.parametrize("kind", [Kind.DATA_PACK, Kind.NODE_PACK, Kind.POINT])
def test_what_was_damaged_when_it_was_fetched_is_whole_once_it_is_healed(
    far: CountingStore,
    made: tuple[Repository, SyntheticDisk],
    place: BlockPlace,
    kind: Kind,
) -> None:
    """Also where the cache has the damaged bytes, with codes that say they are the store's."""
    repository, disk = made
    keys = keys_of(far, kind)
    good = {key: far.get(key) for key in keys}
    for key, data in good.items():
        far.delete(key)
        far.put(key, [data[:9], bytes(b ^ 1 for b in data[9:])])
    with pytest.raises((ObjectDamaged, ObjectMissing, IndexError)):
        content(opened(far, place))
    for key, data in good.items():
        far.delete(key)
        far.put(key, [data])
    assert content(opened(far, place)) == disk.content(0, SIZE)
    assert_clean(repository)


def test_what_is_damaged_in_the_store_is_not_fetched_at_each_reading(
    far: CountingStore, made: tuple[Repository, SyntheticDisk], place: BlockPlace
) -> None:
    for key in keys_of(far, Kind.DATA_PACK):
        data = far.get(key)
        far.delete(key)
        far.put(key, [data[:9], bytes(b ^ 1 for b in data[9:])])
    repository = opened(far, place)
    asked = []
    for _ in range(4):
        with pytest.raises(ObjectDamaged):
            content(repository)
        asked.append(len(far.asked))
    assert asked[1] == asked[3]


def test_a_removed_point_is_gone_whatever_the_cache_has(
    far: CountingStore, made: tuple[Repository, SyntheticDisk], place: BlockPlace
) -> None:
    repository = opened(far, place)
    point = newest(repository)
    far.delete(f"points/{point.point_id.hex()}")
    assert point.point_id not in [found.point_id for found in repository.catalog.refresh()]
    other = opened(far, place).catalog.refresh()
    assert len(other) == 2


def test_a_restore_reads_the_cache_and_leaves_data_out_of_it(
    far: CountingStore, made: tuple[Repository, SyntheticDisk], tmp_path: Path
) -> None:
    once = BlockPlace(tmp_path / "cache", 64 * MIB, keeps_data=False)
    for _ in range(2):
        assert content(opened(far, once)) == made[1].content(0, SIZE)
        packs = {key.partition("/")[0] for key, _, length in far.asked if length > MIB}
        assert packs <= {"packs"}
    data = list((tmp_path / "cache").glob(f"*/blocks/{DATA}/*"))
    assert len(data) <= len(keys_of(far, Kind.DATA_PACK))  # blocks with directories


def test_agents_and_checks_see_the_store_itself(
    far: CountingStore, made: tuple[Repository, SyntheticDisk]
) -> None:
    """Nothing is cached but where an opening says so."""
    assert open_repository(far, PASSPHRASE).sealed.store is far


def test_a_place_of_no_use_is_refused_where_it_was_named(
    far: CountingStore, made: tuple[Repository, SyntheticDisk], tmp_path: Path
) -> None:
    """Else it is done without, and told."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, why in (("file", "in the way"), ("open", "chmod go-w")):
        with pytest.raises(UsageError, match=why):
            opened(far, BlockPlace(tmp_path / name, 64 * MIB, named=True))
        told: list[str] = []
        repository = opened(far, BlockPlace(tmp_path / name, 64 * MIB, tell=told.append))
        assert repository.sealed.store is far
        assert len(told) == 1
        assert why in told[0]


def test_the_default_is_a_tenth_of_what_is_free_with_what_is_held(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    free = found.f_bavail * found.f_frsize
    limit = default_limit(tmp_path / "not" / "there", bytes(32))
    assert limit == DEFAULT_MAX or abs(limit - free // 10) < free // 100


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--verbose", action="store_true")
    add_cache_options(parser)
    return parser.parse_args(words)


def test_who_has_a_cache(tmp_path: Path) -> None:
    """An object store unasked, a directory when asked, and nobody who does not want one."""
    there = {"BACKPOINT_CACHE": str(tmp_path)}

    def chosen(*words: str, remote: bool) -> BlockPlace | None:
        return block_place(parsed(*words), there, remote=remote, keeps_data=False)

    assert chosen(remote=False) is None
    assert chosen("--no-cache", remote=True) is None
    unasked = chosen("--cache-size", "1G", remote=True)
    assert unasked is not None
    assert (unasked.root, unasked.limit, unasked.named) == (tmp_path, 1 << 30, False)
    assert not unasked.keeps_data
    for remote in (False, True):
        named = chosen("--cache", "here", "--cache-size", "50G", remote=remote)
        assert named is not None
        assert (named.root, named.limit, named.named) == (Path.cwd() / "here", 50 << 30, True)
        assert named.keeps_data
    for words in (("--cache-size", "1M", "--cache", "x"), ("--cache-size", "much")):
        with pytest.raises(UsageError):
            chosen(*words, remote=True)
    with pytest.raises(UsageError, match="--cache DIR"):
        chosen("--cache-size", "1G", remote=False)
    with pytest.raises(UsageError, match="--cache DIR"):
        chosen("--cache-size", "1G", "--no-cache", remote=True)


def test_what_is_read_is_bounded_by_the_limit(
    far: CountingStore, made: tuple[Repository, SyntheticDisk], tmp_path: Path
) -> None:
    told: list[str] = []
    place = BlockPlace(tmp_path / "cache", 3 * MIB, tell=told.append)
    inner = place.over(far, bytes(16), bytes(32))
    assert inner is far  # too little to be of use
    assert ["--cache-size" in one for one in told] == [True]
    repository = opened(far, BlockPlace(tmp_path / "cache", 16 * MIB))
    assert isinstance(repository.sealed.store, CachedStore)
    assert content(repository) == made[1].content(0, SIZE)
    reader = repository.open_disk(newest(repository).disks[0], ChunkCache(MIB))
    assert reader.read(MIB, 9) == made[1].content(MIB, 9)
    settle(repository.sealed.store)
    held = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert held <= 16 * MIB


def test_a_point_that_was_removed_does_not_stand_because_a_cache_has_it(
    far: CountingStore, made: tuple[Repository, SyntheticDisk], place: BlockPlace
) -> None:
    """Who pins or holds a point, or stands on it, learns after that whether it was removed."""
    repository, disk = made
    summary = repository.catalog.refresh()[-1]
    cached = opened(far, place)
    point = cached.point(summary.point_id)
    settle(cached.sealed.store)
    with cached.begin_backup("web", point.point_id) as session:
        assert not remove_points(repository.sealed, [point.point_id], repository.clock).spared
        assert cached.point(point.point_id) == point
        with pytest.raises(ObjectMissing), reading(cached, point, lambda _: None):
            raise AssertionError("read what nobody keeps")
        with pytest.raises(ObjectMissing, match="gone"):
            put_hold(cached.sealed, Hold(point.point_id, "0" * 16, "", NOON, None))
        session.store_disk(DiskJob("disk0", disk, changed=[]), lambda _: None)
        made_now = session.publish(time=None, label="")
    assert any("removed meanwhile" in warning for warning in made_now.warnings)
    assert_clean(repository)
