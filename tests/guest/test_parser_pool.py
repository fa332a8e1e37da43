"""How many parser processes there are at once, and for how long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import GuestError
from backpoint_fusefs.guest.guest_volume import GuestVolume
from backpoint_fusefs.guest.parser_pool import IDLE_S, PROCESSES_MAX, ParserPool
from backpoint_fusefs.guest.volume import Piece, Volume
from backpoint_fusefs.guest.volume_reader import VolumeReader
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.memory import MemoryStore
from guest_trees.disks import make_image
from small_repository import StandingClock, assert_clean, back_up, new_repository


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "disk"
    make_image(path, "ext4", 8 << 20)
    return path


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock(1000.0)


@pytest.fixture
def pool(clock: StandingClock) -> Iterator[ParserPool]:
    pool = ParserPool(clock=clock)
    yield pool
    pool.close()


@pytest.fixture
def readers(disk: Path) -> Iterator[list[ImageReader]]:
    """Of a stored disk."""
    from backpoint_repo.chunk_cache import ChunkCache

    repository = new_repository(MemoryStore())
    source = RawImage(disk)
    point = back_up(repository, "vm", source)
    source.close()
    yield [repository.open_disk(point.disks[0], ChunkCache(1 << 20))]
    assert_clean(repository)


def volumes(pool: ParserPool, readers: Sequence[ImageReader], count: int) -> list[GuestVolume]:
    size = readers[0].size
    pieces = (Piece(0, size, size, ((0, 0),)),)
    made = [Volume(f"disk{number}", size, pieces, "ext") for number in range(count)]
    return [pool.volume(volume, VolumeReader(volume, readers)) for volume in made]


def test_no_more_run_than_may(
    pool: ParserPool, readers: list[ImageReader], clock: StandingClock
) -> None:
    """The one that was asked longest ago makes room, and is started anew when it is asked again."""
    made = volumes(pool, readers, PROCESSES_MAX + 2)
    for volume in made:
        clock.now += 1
        volume.root()
    assert [volume.running for volume in made] == [False] * 2 + [True] * PROCESSES_MAX
    clock.now += 1
    made[0].stat(made[0].root())
    assert [volume.running for volume in made[:4]] == [True, False, False, True]


def test_the_idle_are_ended(
    pool: ParserPool, readers: list[ImageReader], clock: StandingClock
) -> None:
    """After a while, and only those."""
    one, other = volumes(pool, readers, 2)
    one.root()
    clock.now += IDLE_S
    other.root()
    clock.now += 1
    pool.end_idle()
    assert (one.running, other.running) == (False, True)
    assert one.stat(one.root()).mode == 0o40755


def test_a_retired_volume_starts_nothing(pool: ParserPool, readers: list[ImageReader]) -> None:
    """Whoever still holds it gets an error, not a process that nobody will end."""
    (volume,) = volumes(pool, readers, 1)
    volume.root()
    pool.forget(volume)
    with pytest.raises(GuestError, match="look again"):
        volume.stat(volume.root())
    assert not volume.running
