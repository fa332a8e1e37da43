"""A disk that comes as one stream: readers out of order, slow, dead or closed get right bytes or an
error, and never wait for each other for ever."""

from __future__ import annotations

import random
import socket
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from backpoint_agent.errors import Stopped, TransportUnusable
from backpoint_agent.restoring.stream_writer import GRAIN_SIZE, pack_grain, stream_vmdk
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.forward_disk import ForwardDisk
from backpoint_agent.transport.stream_optimized import Read, StreamOptimized
from backpoint_repo.errors import SourceError
from backpoint_repo.source.contract import Extent

DEADLINE_S = 60
SIZE = (6 << 20) + 1536
PART = 256 << 10


def a_disk(size: int = SIZE) -> bytes:
    """Noise, with a third of the grains zero."""
    chance = random.Random(3)
    grains = [
        bytes(GRAIN_SIZE) if chance.random() < 0.33 else chance.randbytes(GRAIN_SIZE)
        for _ in range(-(-size // GRAIN_SIZE))
    ]
    return b"".join(grains)[:size]


def as_stream(disk: bytes) -> bytes:
    """Its VMDK."""
    numbers = range(-(-len(disk) // GRAIN_SIZE))
    grains = ((n, pack_grain(n, disk[n * GRAIN_SIZE : (n + 1) * GRAIN_SIZE])) for n in numbers)
    return b"".join(stream_vmdk(len(disk), 1, grains))


DISK = a_disk()
STREAM = as_stream(DISK)


def reader(stream: bytes) -> Read:
    """At most 10,000 bytes a time."""
    pieces = iter([stream[at : at + 10_000] for at in range(0, len(stream), 10_000)])
    return lambda _: next(pieces, b"")


@dataclass
class Ends:
    """What a disk told of its end."""

    whole: int = 0
    hung_up: int = 0
    then: Callable[[], None] = field(default=lambda: None)

    def was_whole(self) -> None:
        self.whole += 1

    def hang_up(self) -> None:
        self.hung_up += 1
        self.then()


def opened(
    read: Read,
    ends: Ends,
    *,
    size: int = SIZE,
    stop: Stop | None = None,
    window: int = 1 << 20,
    patience: float = 30,
) -> ForwardDisk:
    """A disk with a small window."""
    return ForwardDisk(
        "[ds] web/web.vmdk",
        size,
        lambda: StreamOptimized("web", read),
        stop or Stop(),
        on_whole=ends.was_whole,
        hang_up=ends.hang_up,
        window=window,
        patience_s=patience,
    )


def part(disk: ForwardDisk, offset: int, length: int = PART) -> bytes:
    """Read through a buffer full of something else."""
    buffer = bytearray(b"\xa5" * min(length, disk.size - offset))
    disk.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def test_read_in_order_it_is_the_disk_and_told_whole_once() -> None:
    """Pieces that divide neither grains nor the disk."""
    ends = Ends()
    disk = opened(reader(STREAM), ends)
    step = 100_001
    assert b"".join(part(disk, at, step) for at in range(0, SIZE, step)) == DISK
    assert (disk.size, ends.whole) == (SIZE, 1)
    disk.finish()
    disk.close()
    assert ends.whole == 1


def test_extents_are_all_data() -> None:
    """Holes are not known before they come."""
    disk = opened(reader(STREAM), Ends())
    assert list(disk.extents(512, SIZE - 512)) == [Extent(512, SIZE - 512, hole=False)]
    assert list(disk.extents(5, 0)) == []


@pytest.mark.parametrize("seed", range(8))
def test_readers_out_of_order_get_their_own_bytes(seed: int) -> None:
    """Four threads, parts shuffled as far as the window reaches, and begun in that order."""
    parts = list(range(0, SIZE, PART))
    chance = random.Random(seed)
    order = sorted(parts, key=lambda at: at + chance.uniform(0, 3 * PART))
    ends = Ends()
    disk = opened(reader(STREAM), ends)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda at: (at, part(disk, at)), order, timeout=DEADLINE_S))
    assert all(content == DISK[at : at + PART] for at, content in found)
    assert ends.whole == 1


def test_a_reader_that_comes_late_is_waited_for() -> None:
    """The foremost fills the window and stops there until the late one has read what it holds."""
    consumed = 0
    full = threading.Event()
    source = reader(STREAM)

    def counted(count: int) -> bytes:
        nonlocal consumed
        taken = source(count)
        consumed += len(taken)
        if consumed > (1 + PART // GRAIN_SIZE) * GRAIN_SIZE:
            full.set()
        return taken

    disk = opened(counted, Ends(), window=PART)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(part, disk, 16 * PART)
        assert full.wait(DEADLINE_S)
        assert part(disk, 0, 16 * PART) == DISK[: 16 * PART]
        assert ahead.result(DEADLINE_S) == DISK[16 * PART : 17 * PART]


def test_what_was_passed_is_refused_and_never_guessed() -> None:
    """Nobody came for the skipped parts: reading goes on, and they are gone, zeros or not."""
    disk = opened(reader(STREAM), Ends(), window=2 * GRAIN_SIZE, patience=0.01)
    assert part(disk, 5 << 20) == DISK[5 << 20 : (5 << 20) + PART]
    with pytest.raises(SourceError, match="passed by already"):
        part(disk, 0)
    with pytest.raises(SourceError, match="passed by already"):
        part(disk, 5 << 20)
    assert part(disk, 6 << 20) == DISK[6 << 20 :]


def test_parts_far_from_each_other_are_read_without_what_is_between() -> None:
    """A changed-block list: the skipped bytes cost memory for no more than the window."""
    size = 24 << 20
    big = random.Random(5).randbytes(GRAIN_SIZE)
    packed = ((n, pack_grain(n, big)) for n in range(size // GRAIN_SIZE))
    read = _reader_of(b"".join(stream_vmdk(size, 1, packed)))
    disk = opened(read, Ends(), size=size, patience=0.01)
    tracemalloc.start()
    try:
        for at in (1 << 20, 12 << 20, size - PART):
            assert part(disk, at) == big * (PART // GRAIN_SIZE)
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


def _reader_of(stream: bytes) -> Read:
    view = memoryview(stream)
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        at += count
        return bytes(view[at - count : at])

    return read


def test_a_broken_stream_is_an_error_for_every_reader() -> None:
    """One of them meets it, and those that wait hear of it."""
    disk = opened(reader(STREAM[: len(STREAM) // 2]), Ends())
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(part, disk, at) for at in range(0, SIZE, PART)]
        failures = [read.exception(DEADLINE_S) for read in reads]
    assert all(failure is None or isinstance(failure, SourceError) for failure in failures)
    assert isinstance(failures[-1], SourceError)


def test_the_last_byte_is_not_given_before_the_stream_is_proven() -> None:
    """All grains are there, and what should prove it is cut: the read of the end fails."""
    stream = STREAM[:-512]
    ends = Ends()
    disk = opened(reader(stream), ends)
    assert part(disk, 0, 6 << 20) == DISK[: 6 << 20]
    with pytest.raises(SourceError, match="end-of-stream"):
        part(disk, 6 << 20)
    assert ends.whole == 0


def test_finish_proves_a_stream_that_was_read_in_part() -> None:
    """Right to its end it passes; cut behind the part that was read it does not."""
    ends = Ends()
    disk = opened(reader(STREAM), ends)
    assert part(disk, 1 << 20) == DISK[1 << 20 : (1 << 20) + PART]
    disk.finish()
    assert ends.whole == 1
    cut = opened(reader(STREAM[:-512]), ends)
    part(cut, 1 << 20)
    with pytest.raises(SourceError, match="end-of-stream"):
        cut.finish()
    assert ends.whole == 1


def test_closing_wakes_readers_that_wait_for_the_network() -> None:
    """The stream stops coming; one reader waits for it, others for that one; close ends all."""
    ours, theirs = socket.socketpair()
    theirs.sendall(STREAM[:5000])
    disk = opened(ours.recv, Ends(then=lambda: ours.shutdown(socket.SHUT_RD)))
    waiting = threading.Barrier(4)

    def one(at: int) -> bytes:
        waiting.wait(DEADLINE_S)
        return part(disk, at)

    with ours, theirs, ThreadPoolExecutor(3) as pool:
        reads: list[Future[bytes]] = [pool.submit(one, at) for at in (0, PART, 2 * PART)]
        waiting.wait(DEADLINE_S)
        disk.close()
        for each in reads:
            assert isinstance(each.exception(DEADLINE_S), SourceError)
        disk.close()
    with pytest.raises(SourceError, match="closed"):
        part(disk, 0)


def test_a_stream_of_another_disk_is_refused() -> None:
    """What it announces must be what the snapshot says, before a byte is read."""
    with pytest.raises(TransportUnusable, match=f"of {SIZE} bytes, not {SIZE + 512}"):
        opened(reader(STREAM), Ends(), size=SIZE + 512).begin()
    with pytest.raises(TransportUnusable):
        part(opened(reader(STREAM), Ends(), size=SIZE - 512), 0)


def test_a_stop_ends_reading() -> None:
    """The reader that moves the stream hears of it, and so do those that wait."""
    stop = Stop()
    disk = opened(reader(STREAM), Ends(), stop=stop)
    part(disk, 0)
    stop.request("the window ended")
    for at in (PART, 2 * PART):
        with pytest.raises(Stopped, match="the window ended"):
            part(disk, at)


def test_a_bug_in_the_stream_does_not_hang_the_others() -> None:
    """Whatever breaks one reader is an error for the next, not a wait."""

    calls = iter([STREAM[:1024]])

    def broken(_: int) -> bytes:
        if found := next(calls, b""):
            return found
        raise ZeroDivisionError

    disk = opened(broken, Ends())
    with pytest.raises(ZeroDivisionError):
        part(disk, 0)
    with pytest.raises(SourceError, match="broken off"):
        part(disk, 0)
