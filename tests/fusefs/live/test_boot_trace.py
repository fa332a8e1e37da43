"""A boot's trace: what was read is in it once and in order, and is fetched in that order again."""

from __future__ import annotations

from pathlib import Path

import trio
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.decode_workers import DecodeWorkers
from backpoint_fusefs.live.boot_trace.boot_prefetch import BootPrefetch
from backpoint_fusefs.live.boot_trace.read_trace import ReadTrace, TracedBase
from backpoint_fusefs.live.boot_trace.trace_files import (
    ask_for_trace,
    is_trace_wanted,
    put_ranges_ahead,
    put_trace,
    ranges_ahead,
    recorded_trace,
)
from backpoint_repo.boot_trace import TracedRange

UNIT = 64 << 10
READS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 40 * UNIT), st.integers(1, 3 * UNIT)), max_size=30
)


class _Base:
    size = 10 * UNIT

    def read_cached(self, offset: int, length: int) -> bytes | None:
        return None if offset else b"x" * min(length, self.size)

    def read(self, offset: int, length: int) -> bytes:
        return b"x" * max(0, min(length, self.size - offset))


def _units(ranges: list[TracedRange]) -> list[tuple[int, int]]:
    return [
        (disk, unit)
        for disk, offset, length in ranges
        for unit in range(offset // UNIT, (offset + length) // UNIT)
    ]


@given(READS)
def test_what_was_read_is_in_the_trace_once_and_in_order(reads: list[tuple[int, int, int]]) -> None:
    """Every unit touched is there, at the place of its first read."""
    trace, expected = ReadTrace(), dict[tuple[int, int], None]()
    for disk, offset, length in reads:
        trace.saw(disk, offset, length)
        for unit in range(offset // UNIT, -(-(offset + length) // UNIT)):
            expected.setdefault((disk, unit))
    assert _units(trace.ranges()) == list(expected)


def test_reads_of_a_base_are_traced_whichever_way_they_are_answered() -> None:
    """From memory and from the store; a question that memory cannot answer is no read."""
    trace = ReadTrace()
    base = TracedBase(_Base(), 1, trace)
    assert base.read_cached(UNIT, 10) is None
    assert trace.ranges() == []
    base.read(4 * UNIT, 10)
    base.read_cached(0, 10)
    base.read(20 * UNIT, 10)
    assert base.size == 10 * UNIT
    assert trace.ranges() == [TracedRange(1, 4 * UNIT, UNIT), TracedRange(1, 0, UNIT)]


def test_two_processes_tell_each_other_by_files(tmp_path: Path) -> None:
    """Wanted, recorded, fetched ahead; damaged files are no trace."""
    assert not is_trace_wanted(tmp_path)
    ask_for_trace(tmp_path)
    assert is_trace_wanted(tmp_path)
    assert recorded_trace(tmp_path) == []
    ranges = [TracedRange(0, UNIT, UNIT), TracedRange(1, 0, 5 * UNIT)]
    put_trace(tmp_path, ranges)
    put_ranges_ahead(tmp_path, ranges)
    assert recorded_trace(tmp_path) == ranges_ahead(tmp_path) == ranges
    (tmp_path / "ahead").write_bytes(b"\xff" * 27)
    assert ranges_ahead(tmp_path) == []


def test_the_last_boots_reads_are_fetched_in_order_and_bounded() -> None:
    """As many bytes as the cache has room for, and no more; trouble with one stops none."""
    fetched: list[tuple[int, int, int]] = []

    def fetch(disk: int, offset: int, length: int) -> None:
        fetched.append((disk, offset, length))
        if offset == 0:
            raise OSError("gone")

    async def main() -> None:
        workers = DecodeWorkers(1)
        ranges = [
            TracedRange(0, 0, UNIT),
            TracedRange(1, UNIT, 3 << 20),
            TracedRange(0, UNIT, UNIT),
        ]
        BootPrefetch(workers, fetch, ranges, UNIT + (2 << 20)).start()
        with trio.fail_after(10):
            while len(fetched) < 3:
                await trio.lowlevel.checkpoint()
        workers.close()

    trio.run(main)
    assert fetched == [(0, 0, UNIT), (1, UNIT, 1 << 20), (1, UNIT + (1 << 20), 1 << 20)]
