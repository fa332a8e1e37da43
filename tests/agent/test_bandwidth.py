"""The pace of a job's reads: shared, in order, and heard by a stop."""

from __future__ import annotations

import threading

import pytest

from backpoint_agent.errors import Stopped
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.bandwidth import PIECE, Bandwidth, Paced
from backpoint_repo.errors import SourceError
from synthetic_disk import SyntheticDisk

START = 1000.0


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def test_reads_wait_for_what_was_read_before_them() -> None:
    """At 100 bytes a second, the third hundred bytes begins two seconds after the first."""
    clock = Hand()
    bandwidth = Bandwidth(100, clock)
    clock.now += 0.25
    bandwidth.reserve(25)  # what may be saved is spent
    assert [bandwidth.reserve(100) for _ in range(3)] == [0, 1, 2]
    clock.now += 2.5
    assert bandwidth.reserve(100) == pytest.approx(0.5)


def test_a_long_pause_does_not_allow_a_burst() -> None:
    """After an hour of silence no more than a quarter of a second's bytes come for nothing."""
    clock = Hand()
    bandwidth = Bandwidth(100, clock)
    clock.now += 3600
    assert bandwidth.reserve(25) == 0
    assert bandwidth.reserve(100) == 0
    assert bandwidth.reserve(1) == pytest.approx(1)


def test_threads_share_one_pace() -> None:
    """Whatever threads reserve at once, the waits are those of one queue: nobody shares a turn."""
    bandwidth = Bandwidth(10, Hand())
    waits: list[float] = []
    gate = threading.Barrier(8)

    def reader() -> None:
        gate.wait()
        waits.append(bandwidth.reserve(10))

    threads = [threading.Thread(target=reader) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == pytest.approx([max(0, number - 0.25) for number in range(8)])


def test_paced_reads_are_the_sources_and_are_counted() -> None:
    """A read of several pieces fills the whole buffer; the bytes are counted."""
    disk = SyntheticDisk(3 * PIECE + 4096)
    disk.write(PIECE - 10, b"across two pieces")
    disk.write(disk.size - 5, b"end!!")
    paced = Paced(disk, None, Stop())
    buffer = bytearray(disk.size)
    paced.read_into(0, memoryview(buffer))
    assert bytes(buffer) == disk.content(0, disk.size)
    assert (paced.bytes_read, paced.size, paced.name) == (disk.size, disk.size, disk.name)
    assert list(paced.extents(0, disk.size)) == list(disk.extents(0, disk.size))


def test_a_stop_is_heard_between_two_pieces() -> None:
    """The piece under way is read to its end, and no further one."""
    stop = Stop()
    disk = SyntheticDisk(2 * PIECE)
    paced = Paced(disk, Bandwidth(1 << 40), stop)
    paced.read_into(0, memoryview(bytearray(PIECE)))
    stop.request("end of the window")
    with pytest.raises(Stopped, match="end of the window"):
        paced.read_into(PIECE, memoryview(bytearray(PIECE)))
    with pytest.raises(Stopped):
        list(paced.extents(0, disk.size))
    assert paced.bytes_read == PIECE


def test_a_stop_ends_the_wait_for_a_turn() -> None:
    """A reader whose turn comes in a day is stopped now."""
    stop = Stop()
    bandwidth = Bandwidth(1)
    bandwidth.reserve(86_400)
    paced = Paced(SyntheticDisk(PIECE), bandwidth, stop)
    ended: list[type[BaseException]] = []

    def reader() -> None:
        try:
            paced.read_into(0, memoryview(bytearray(4096)))
        except Stopped as error:
            ended.append(type(error))

    thread = threading.Thread(target=reader)
    thread.start()
    stop.request("somebody asked")
    thread.join(20)
    assert ended == [Stopped]
    assert paced.bytes_read == 0


def test_the_sources_error_comes_through() -> None:
    """Neither swallowed nor counted."""
    disk = SyntheticDisk(1 << 20)
    disk.fails_at = 4096
    paced = Paced(disk, None, Stop())
    with pytest.raises(SourceError):
        paced.read_into(0, memoryview(bytearray(8192)))
    assert paced.bytes_read == 0
