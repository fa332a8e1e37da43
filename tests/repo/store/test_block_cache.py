"""Blocks on a local disk: what is believed of them, how much there is, and what is in their way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import UsageError
from backpoint_repo.store.block_cache import DATA, LASTING, BlockCache
from backpoint_repo.store.block_eviction import CacheFile, plan_eviction, size_on_disk
from backpoint_repo.store.block_file import BLOCK, PIECE, Block, Part

KEY, OTHER_KEY = bytes(32), bytes([1]) * 32
NAME, OTHER_NAME = "packs/ab/abcd", "packs/cd/cdef"
WHOLE = random.Random(1).randbytes(BLOCK)
SHORT = WHOLE[: PIECE + 100]
LIMIT = 64 << 20
FILE = size_on_disk(BLOCK + 1)


class Clock:
    """Seconds since 1970, as set; files get their times from it."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "id" / "blocks"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def cache(folder: Path, told: list[str]) -> BlockCache:
    return opened(folder, told)


def opened(folder: Path, told: list[str], limit: int = LIMIT) -> BlockCache:
    cache = BlockCache(folder, KEY, limit, told.append, Clock())
    cache.make()
    return cache


def files(folder: Path) -> list[Path]:
    return sorted(path for place in (DATA, LASTING) for path in (folder / place).iterdir())


def taken(folder: Path) -> int:
    return sum(size_on_disk(path.lstat().st_size) for path in files(folder))


def found(cache: BlockCache, number: int = 0, name: str = NAME) -> bytes | None:
    part = cache.find(name, number, 0, BLOCK, lasting=False)
    return None if part is None else part.data


def test_a_kept_block_is_found_by_the_next_process(cache: BlockCache, folder: Path) -> None:
    assert found(cache) is None
    cache.keep(
        NAME, 0, [Block(WHOLE, last=False), Block(memoryview(SHORT), last=True)], lasting=False
    )
    other = opened(folder, [])
    assert found(other) == WHOLE
    part = Part(SHORT, 1, len(SHORT), last=True)
    assert other.find(NAME, 1, 0, BLOCK, lasting=False) == part
    assert other.find_tail(NAME, BLOCK) == part
    assert other.find(NAME, 2, 0, BLOCK, lasting=False) == Part(b"", 2, 0, last=True)
    assert found(other, name=OTHER_NAME) is None
    assert found(BlockCache(folder, OTHER_KEY, LIMIT)) is None
    assert (other.dropped, cache.held()) == (0, taken(folder))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> BlockCache:
    """With a whole block and a last one, only to be read."""
    cache = opened(tmp_path_factory.mktemp("kept") / "cache" / "id" / "blocks", [])
    cache.keep(NAME, 0, [Block(WHOLE, last=False), Block(SHORT, last=True)], lasting=False)
    return cache


@given(start=st.integers(0, BLOCK + 9), stop=st.integers(0, BLOCK + 9))
def test_any_part_of_a_block_is_what_was_kept(kept: BlockCache, start: int, stop: int) -> None:
    part = kept.find(NAME, 0, start, stop, lasting=False)
    assert part is not None
    assert part.data == WHOLE[start:stop]
    tail = kept.find_tail(NAME, stop)
    assert tail is not None
    assert tail.data == SHORT[:stop]


def test_nobody_else_can_read_or_write_it(folder: Path) -> None:
    before = os.umask(0)
    try:
        cache = opened(folder, [])
        cache.keep(NAME, 0, [Block(WHOLE, last=False), Block(b"", last=True)], lasting=True)
    finally:
        os.umask(before)
    for path in folder.parents[1].rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert len(files(folder)) == 2


def test_names_of_objects_are_not_told(cache: BlockCache, folder: Path) -> None:
    cache.keep("points/" + "ab" * 16, 0, [Block(SHORT, last=True)], lasting=True)
    assert "ab" * 4 not in str(files(folder))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_folder_that_others_can_write_into_is_refused(folder: Path, level: int) -> None:
    """Nor one below it: they could put another in its place."""
    folder.mkdir(parents=True, mode=0o700)
    [folder, *folder.parents][level].chmod(0o777)
    with pytest.raises(UsageError, match="chmod go-w"):
        BlockCache(folder, KEY, LIMIT).make()


def test_what_was_altered_is_dropped_and_told_once(
    cache: BlockCache, folder: Path, told: list[str]
) -> None:
    """Torn, lengthened, a flipped bit anywhere, another block's or another object's file."""
    cache.keep(NAME, 0, [Block(SHORT, last=True)], lasting=False)
    (path,) = files(folder)
    good = path.read_bytes()
    cache.keep(OTHER_NAME, 0, [Block(WHOLE, last=False), Block(SHORT, last=True)], lasting=False)
    others = [other.read_bytes() for other in files(folder) if other != path]
    bad = [b"", good[:-1], good[:40], good + b"x", *others]
    for at in (0, 9, 25, 28, 33, 40, 55, len(good) - PIECE, len(good) - 1):
        bad.append(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    for content in bad:
        path.write_bytes(content)
        assert found(cache) is None
        assert not path.exists()
    assert cache.dropped == len(bad)
    assert len(told) == 1
    path.write_bytes(good)
    assert found(cache) == SHORT


def test_what_is_no_file_is_not_waited_for_or_followed(cache: BlockCache, folder: Path) -> None:
    cache.keep(NAME, 0, [Block(SHORT, last=True)], lasting=False)
    (path,) = files(folder)
    away = path.rename(folder / "away")
    path.symlink_to(away)
    assert found(cache) is None
    assert away.exists()
    os.mkfifo(path)
    assert found(cache) is None
    os.truncate(away, 1 << 40)
    away.rename(path)
    assert found(cache) is None
    path.mkdir()
    assert found(cache) is None
    assert cache.dropped == 4


def test_what_was_not_used_goes_first_and_metadata_last(folder: Path) -> None:
    cache, clock = opened(folder, [], 4 * FILE), Clock()
    cache._clock = clock
    block = [Block(WHOLE, last=False)]
    cache.keep("nodes/aa/aa", 0, block, lasting=True)
    for number in (1, 2, 3):
        clock.now += 100
        cache.keep(NAME, number, block, lasting=False)
    clock.now += 100
    assert found(cache, 1) == WHOLE
    cache.keep(NAME, 4, block, lasting=False)
    assert [number for number in range(6) if found(cache, number)] == [1, 3, 4]
    for number in range(5, 9):
        clock.now += 100
        cache.keep(NAME, number, block, lasting=False)
    assert cache.find("nodes/aa/aa", 0, 0, 9, lasting=True) is not None
    for number in range(1, 4):
        clock.now += 1
        cache.keep("nodes/aa/aa", number, block, lasting=True)
    assert [number for number in range(9) if found(cache, number)] == []
    cache.keep("nodes/aa/aa", 4, block, lasting=True)
    assert cache.find("nodes/aa/aa", 0, 0, 9, lasting=True) is None
    assert cache.held() == taken(folder) == 4 * FILE


def test_metadata_that_nobody_used_for_a_month_goes_like_data(folder: Path) -> None:
    cache, clock = opened(folder, [], 3 * FILE), Clock()
    cache._clock = clock
    block = [Block(WHOLE, last=False)]
    cache.keep("nodes/aa/aa", 0, block, lasting=True)
    cache.keep("nodes/aa/aa", 1, block, lasting=True)
    clock.now += 31 * 86400
    assert cache.find("nodes/aa/aa", 1, 0, 9, lasting=True) is not None
    for number in range(3):
        cache.keep(NAME, number, block, lasting=False)
    kept = [cache.find("nodes/aa/aa", number, 0, 9, lasting=True) for number in (0, 1)]
    assert [part is not None for part in kept] == [False, True]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.booleans()), max_size=30),
    st.integers(-5, 99),
)
def test_the_least_goes_that_makes_enough_room(
    sizes: list[tuple[int, int, bool]], wanted: int
) -> None:
    all_files = [
        CacheFile(str(at), size, used, lasting) for at, (size, used, lasting) in enumerate(sizes)
    ]
    plan = plan_eviction(iter(all_files), wanted)
    assert plan.held == sum(file.size for file in all_files)
    freed = sum(file.size for file in plan.victims)
    assert freed >= min(wanted, plan.held)
    if plan.victims:
        assert freed - plan.victims[-1].size < wanted
        order = [(file.lasting, file.used) for file in plan.victims]
        left = set(all_files) - set(plan.victims)
        assert order == sorted(order)
        assert all((file.lasting, file.used) >= order[-1] for file in left)


def test_what_has_no_room_at_all_is_not_kept(folder: Path) -> None:
    cache = opened(folder, [], FILE - 1)
    cache.keep(NAME, 0, [Block(WHOLE, last=False)], lasting=False)
    assert files(folder) == []
    cache.keep(NAME, 0, [Block(SHORT, last=True)], lasting=False)
    assert found(cache) == SHORT


@pytest.mark.parametrize("count", [b"", b"short", b"\xff" * 8, b"too long" * 2])
def test_a_wrong_count_is_put_right(folder: Path, count: bytes) -> None:
    cache = opened(folder, [], 3 * FILE)
    for number in range(3):
        cache.keep(NAME, number, [Block(WHOLE, last=False)], lasting=False)
    (folder / "held").write_bytes(count)
    for number in range(3, 7):
        cache.keep(NAME, number, [Block(WHOLE, last=False)], lasting=False)
    assert found(cache, 6) == WHOLE
    assert cache.held() == taken(folder) == 3 * FILE


def test_a_cache_that_is_removed_is_made_again(cache: BlockCache, folder: Path) -> None:
    cache.keep(NAME, 0, [Block(WHOLE, last=False)], lasting=False)
    subprocess.run(["rm", "-r", folder.parents[1]], check=True)
    assert found(cache) is None
    cache.keep(NAME, 0, [Block(WHOLE, last=False)], lasting=False)
    cache.keep(NAME, 0, [Block(WHOLE, last=False)], lasting=False)
    assert found(cache) == WHOLE


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 3 MiB."""
    folder = tmp_path / "cache"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "backpoint-test", str(folder)]
    subprocess.run(mount, check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_once_and_asked_again_later(
    small_volume: Path, folder: Path, told: list[str]
) -> None:
    cache, clock = opened(folder, told), Clock()
    cache._clock = clock
    for number in range(5):
        cache.keep(NAME, number, [Block(WHOLE, last=False)], lasting=False)
    assert [number for number in range(5) if found(cache, number)] == [0, 1]
    assert len(told) == 1
    assert os.strerror(28) in told[0]
    files(folder)[0].unlink()
    clock.now += 100
    cache.keep(NAME, 7, [Block(WHOLE, last=False)], lasting=False)
    assert found(cache, 7) == WHOLE
    assert len(files(folder)) == 2
    subprocess.run(["mount", "-o", "remount,ro", str(small_volume)], check=True)
    clock.now += 100
    cache.keep(NAME, 8, [Block(WHOLE, last=False)], lasting=False)
    assert found(cache, 7) == WHOLE
    assert len(told) == 1


_HAMMER = """
import random, sys
from pathlib import Path
from backpoint_repo.store.block_cache import BlockCache
from backpoint_repo.store.block_file import BLOCK, Block
folder, limit, seed, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:])
cache = BlockCache(folder, bytes(32), limit, print)
cache.make()
draw = random.Random(seed)
for turn in range(rounds):
    name, number = f"packs/00/{draw.randrange(4)}", draw.randrange(5)
    data = random.Random(name + str(number)).randbytes(BLOCK)
    part = cache.find(name, number, 0, BLOCK, lasting=False)
    assert part is None or part.data == data, (name, number)
    cache.keep(name, number, [Block(data, last=False)], lasting=False)
    if turn == 0:
        print("at work", flush=True)
print("right")
"""


def _hammer(folder: Path, seed: int, rounds: int) -> subprocess.Popen[str]:
    words = [str(folder), str(5 * FILE), str(seed), str(rounds)]
    return subprocess.Popen(
        [sys.executable, "-c", _HAMMER, *words], stdout=subprocess.PIPE, text=True
    )


def test_processes_share_a_folder_and_its_limit(folder: Path) -> None:
    """At no moment is there more than the limit, whoever writes."""
    workers = [_hammer(folder, seed, 60) for seed in range(3)]
    most = 0
    while any(worker.poll() is None for worker in workers):
        if (folder / LASTING).exists():
            most = max(most, _taken_now(folder))
    assert [worker.communicate()[0] for worker in workers] == ["at work\nright\n"] * 3
    assert 0 < most <= 5 * FILE
    assert taken(folder) <= 5 * FILE


def _taken_now(folder: Path) -> int:
    """While others write: a file that goes between two looks, and comes under another name, may be
    counted twice, so it is only counted by its inode."""
    sizes: dict[int, int] = {}
    with os.scandir(folder / DATA) as entries:
        for entry in entries:
            try:
                found_ = os.stat(entry.path)
            except FileNotFoundError:
                continue
            sizes[found_.st_ino] = size_on_disk(found_.st_size)
    return sum(sizes.values())


def test_a_process_that_is_killed_leaves_nothing_wrong(folder: Path, told: list[str]) -> None:
    """Wherever it was: no lock stays, nothing wrong is believed, the limit holds, leftovers go."""
    for seed in range(8):
        worker = _hammer(folder, seed, 10_000)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "at work\n"
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        assert taken(folder) <= 5 * FILE
    torn = folder / DATA / ".0123456789abcdef.unfinished"
    torn.write_bytes(WHOLE)
    worker = _hammer(folder, 99, 20)
    assert worker.communicate()[0] == "at work\nright\n"
    assert not torn.exists()
    assert taken(folder) <= 5 * FILE
