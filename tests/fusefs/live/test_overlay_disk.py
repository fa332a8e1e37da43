"""A session's disk: what it costs to have one, what reading goes through, many at once."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backpoint_fusefs.live.overlay.block_set import BLOCK
from backpoint_fusefs.live.overlay.overlay_disk import OverlayDisk
from backpoint_fusefs.live.overlay.sync_rounds import SyncRounds
from fusefs.live.overlay_bases import BytesBase, HugeBase, SlowBase, numbered

_TIB = 1 << 40
_WAIT_S = 30


def test_a_disk_of_a_tebibyte_begins_with_nothing(tmp_path: Path) -> None:
    """No file before the first write, little after it, and nothing of the point is read."""
    base = BytesBase(b"")
    base.size = _TIB
    disk = OverlayDisk(tmp_path / "0", base)
    assert disk.size == _TIB
    assert disk.allocated == 0
    disk.sync()
    disk.cut(1)
    assert not (tmp_path / "0").exists()
    disk.write(_TIB - BLOCK, b"x" * BLOCK)
    disk.sync()
    assert disk.allocated <= 512 << 10
    assert base.reads == 0
    disk.close()
    assert OverlayDisk(tmp_path / "0", base).read(_TIB - BLOCK, 2 * BLOCK) == b"x" * BLOCK
    assert base.reads == 0


def test_a_tebibyte_can_be_trimmed_and_written_all_over(tmp_path: Path) -> None:
    """A discard of the whole disk, then blocks far apart: small on disk, there when reopened."""
    base = HugeBase(_TIB)
    disk = OverlayDisk(tmp_path / "0", base)
    disk.zero(1, _TIB - 1)
    places = [number * 1_000_003 * BLOCK for number in range(200)]
    for number, place in enumerate(places):
        disk.write(place, bytes([number + 1]))
    disk.sync()
    assert disk.allocated < 8 << 20
    disk.close()
    disk = OverlayDisk(tmp_path / "0", base)
    assert disk.read(0, 3) == b"\1\0\0"
    assert [disk.read(place, 2) for place in places] == [bytes([n + 1, 0]) for n in range(200)]
    assert disk.read(_TIB - 5, 100) == bytes(5)


def test_what_only_the_point_has_comes_from_it_without_a_copy(tmp_path: Path) -> None:
    """Before and after writes elsewhere; where the point's disk cannot answer at once, None."""
    whole = numbered(8 * BLOCK)

    class Base(BytesBase):
        cached: bytes | None = whole

        def read(self, offset: int, length: int) -> bytes:
            return whole

        def read_cached(self, offset: int, length: int) -> bytes | None:  # type: ignore[override]
            return self.cached

    base = Base(whole)
    disk = OverlayDisk(tmp_path / "0", base)
    assert disk.read(0, len(whole)) is whole
    disk.resize(16 * BLOCK)
    disk.write(12 * BLOCK, b"x")
    assert disk.read(0, len(whole)) is whole
    assert disk.read_cached(0, len(whole)) is whole
    base.cached = None
    assert disk.read_cached(0, 10 * BLOCK) is None
    assert bytes(disk.read_cached(12 * BLOCK, 5) or b"") == b"x\0\0\0\0"


def test_neighbouring_stretches_of_the_point_are_read_as_one(tmp_path: Path) -> None:
    """Every second block written: one question to the point for a megabyte, not 128."""
    base = BytesBase(numbered(1 << 20))
    disk = OverlayDisk(tmp_path / "0", base)
    expected = bytearray(base.content)
    for number in range(0, 256, 2):
        disk.write(number * BLOCK, bytes([number]) * BLOCK)
        expected[number * BLOCK : (number + 1) * BLOCK] = bytes([number]) * BLOCK
    base.reads = 0
    assert bytes(disk.read(0, 1 << 20)) == expected
    assert base.reads == 1


def test_two_writers_of_one_block_lose_nothing(tmp_path: Path) -> None:
    """Both halves of a block that the point still has to bring, written at once."""
    base = SlowBase(numbered(BLOCK))
    disk = OverlayDisk(tmp_path / "0", base)
    with ThreadPoolExecutor(2) as threads:
        halves = [
            threads.submit(disk.write, 1000, b"a" * 1000),
            threads.submit(disk.write, 2000, b"b" * 1000),
        ]
        assert base.asked.wait(_WAIT_S)
        base.answer.set()
        for half in halves:
            half.result(_WAIT_S)
    expected = base.content[:1000] + b"a" * 1000 + b"b" * 1000 + base.content[3000:]
    assert disk.read(0, BLOCK) == expected


def test_a_writer_that_waits_for_the_point_holds_up_nobody(tmp_path: Path) -> None:
    """Others write and sync meanwhile; what shortened the disk meanwhile is not undone."""
    base = SlowBase(numbered(4 * BLOCK))
    disk = OverlayDisk(tmp_path / "0", base)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(disk.write, 2 * BLOCK + 3000, b"slow")
        assert base.asked.wait(_WAIT_S)
        disk.write(0, b"x" * BLOCK)
        disk.sync()
        disk.resize(2 * BLOCK + 10)
        base.answer.set()
        slow.result(_WAIT_S)
    shown = base.content[2 * BLOCK : 2 * BLOCK + 10]
    assert disk.read(2 * BLOCK, BLOCK) == shown.ljust(3000, b"\0") + b"slow"


def test_writers_readers_and_syncs_at_once(tmp_path: Path) -> None:
    """Four threads, each with blocks of its own beside the others': each reads what it wrote, and
    all of it is there when the disk is opened again."""
    size = 256 * BLOCK
    disk = OverlayDisk(tmp_path / "0", BytesBase(numbered(size)))
    wrong: list[int] = []

    def work(mine: int) -> dict[int, bytes]:
        chance, written = random.Random(mine), dict[int, bytes]()
        for step in range(150):
            block = chance.randrange(64) * 4 + mine
            text = bytes([mine + 1]) * chance.choice([100, BLOCK])
            before = written.get(block) or disk.read(block * BLOCK, BLOCK)
            disk.write(block * BLOCK, text)
            written[block] = text + bytes(before)[len(text) :]
            if disk.read(block * BLOCK, BLOCK) != written[block]:
                wrong.append(block)
            if step % 7 == 0:
                disk.sync()
        disk.sync()
        return written

    with ThreadPoolExecutor(4) as threads:
        all_written = list(threads.map(work, range(4)))
    disk.close()
    again = OverlayDisk(tmp_path / "0", BytesBase(numbered(size)))
    for written in all_written:
        wrong += [
            block for block, text in written.items() if again.read(block * BLOCK, BLOCK) != text
        ]
    assert not wrong


def test_many_who_sync_at_once_share_a_flush() -> None:
    """Who comes while a flush runs shares the next one; what that raises, all of them hear."""
    begun, go_on, flushes = threading.Event(), threading.Event(), [0]

    def flush() -> None:
        flushes[0] += 1
        begun.set()
        assert go_on.wait(_WAIT_S)
        if 1 < flushes[0] < 9:
            raise OSError(errno.ENOSPC, "full")

    coming = threading.Semaphore(0)
    rounds = SyncRounds(threading.Lock(), flush)

    def sync() -> None:
        coming.release()
        rounds.sync()

    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(sync)
        assert begun.wait(_WAIT_S)
        others = [threads.submit(sync) for _ in range(8)]
        assert all(coming.acquire(timeout=_WAIT_S) for _ in range(9))
        go_on.set()
        assert first.exception(_WAIT_S) is None
        raised = [other.exception(_WAIT_S) for other in others]
    assert 2 <= flushes[0] < 9
    assert [getattr(error, "errno", None) for error in raised] == [errno.ENOSPC] * 8
    flushes[0] = 9
    rounds.sync()


def test_a_flush_covers_all_that_was_written_before_it_was_asked_for() -> None:
    """Six threads that write and sync: no sync returns before a flush that began after it came."""
    lock, written, flushed, flushes = threading.Lock(), [0], [0], [0]

    def flush() -> None:
        flushes[0] += 1
        until = written[0]
        os.sched_yield()
        flushed[0] = until

    rounds = SyncRounds(threading.Lock(), flush)

    def work() -> bool:
        covered = True
        for _ in range(300):
            with lock:
                mine = written[0] = written[0] + 1
            rounds.sync()
            covered = covered and flushed[0] >= mine
        return covered

    with ThreadPoolExecutor(6) as threads:
        assert all(run.result(_WAIT_S) for run in [threads.submit(work) for _ in range(6)])
    assert flushes[0] <= written[0] == 1800


def test_a_closed_disk_says_so(tmp_path: Path) -> None:
    """Nothing of it works, and its files are closed."""
    before = len(os.listdir("/proc/self/fd"))
    disk = OverlayDisk(tmp_path / "0", BytesBase(numbered(BLOCK)))
    disk.write(0, b"x")
    disk.sync()
    disk.close()
    calls: list[Callable[[], object]] = [
        lambda: disk.read(0, 1),
        lambda: disk.write(0, b"y"),
        lambda: disk.size,
        disk.sync,
    ]
    for call in calls:
        with pytest.raises(OSError, match="closed"):
            call()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_disk_cannot_be_made_larger_than_any_machine_has(tmp_path: Path) -> None:
    """EFBIG, before anything is touched."""
    disk = OverlayDisk(tmp_path / "0", BytesBase(numbered(BLOCK)))
    calls: list[Callable[[], None]] = [
        lambda: disk.resize(1 << 60),
        lambda: disk.write(1 << 60, b"x"),
    ]
    for call in calls:
        with pytest.raises(OSError, match="too large") as raised:
            call()
        assert raised.value.errno == errno.EFBIG
    assert not (tmp_path / "0").exists()
