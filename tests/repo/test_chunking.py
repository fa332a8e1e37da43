"""Cuts: exact cover, bounds, holes, and that content alone decides."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.chunking import HOLE_BLOCKS_MAX, ChunkParameters, Cutter, Span
from backpoint_repo.errors import UsageError
from backpoint_repo.format import BLOCK_SIZE, LEAF_BLOCKS

KEY = bytes(range(32))
SMALL = ChunkParameters(avg_blocks=8, min_blocks=2, max_blocks=24, hole_blocks=4)
_RANDOM_BLOCKS = [random.Random(n).randbytes(BLOCK_SIZE) for n in range(64)]

block_kinds = st.lists(st.integers(-40, 63), min_size=1, max_size=200)


def content_of(kinds: list[int]) -> memoryview:
    """Negative: a zero block; 60 and up: zero but for one byte that no sample sees."""
    almost = bytes(9) + b"x" + bytes(BLOCK_SIZE - 10)
    blocks = [
        bytes(BLOCK_SIZE) if kind < 0 else almost if kind >= 60 else _RANDOM_BLOCKS[kind]
        for kind in kinds
    ]
    return memoryview(b"".join(blocks))


def cut_all(data: memoryview, parameters: ChunkParameters, key: bytes = KEY) -> list[Span]:
    blocks = len(data) // BLOCK_SIZE
    return Cutter(key, parameters).cut(data, 0, blocks, [(0, blocks)])


@given(block_kinds, st.integers(1, 6))
def test_spans_cover_and_keep_the_bounds(kinds: list[int], hole_blocks: int) -> None:
    parameters = ChunkParameters(8, 2, 24, hole_blocks)
    spans = cut_all(content_of(kinds), parameters)
    zero = [kind < 0 for kind in kinds]
    assert spans[0].start == 0
    assert spans[-1].end == len(kinds)
    for one, next_one in pairwise(spans):
        assert one.end == next_one.start
        assert not (one.hole and next_one.hole)
        if not one.hole and not next_one.hole:
            assert one.end - one.start >= parameters.min_blocks
    for start, end, hole in spans:
        if hole:
            assert all(zero[start:end])
            assert end - start >= hole_blocks
        else:
            assert 0 < end - start <= parameters.max_blocks
            assert longest_run(zero[start:end]) < hole_blocks


def longest_run(flags: list[bool]) -> int:
    longest = current = 0
    for flag in flags:
        current = current + 1 if flag else 0
        longest = max(longest, current)
    return longest


@given(block_kinds, st.integers(0, 30))
def test_reported_holes_change_nothing(kinds: list[int], shift: int) -> None:
    """Long zero runs may be left out, wherever the window begins; the buffer there is not read."""
    zero = [True] * shift + [kind < 0 for kind in kinds]
    clean = bytes(shift * BLOCK_SIZE) + bytes(content_of(kinds))
    soiled = bytearray(b"\xee" * len(clean))
    data: list[tuple[int, int]] = []
    position = 0
    while position < len(zero):
        end = position
        while end < len(zero) and zero[end]:
            end += 1
        if end - position <= HOLE_BLOCKS_MAX:
            while end < len(zero) and not zero[end]:
                end += 1
            start = position * BLOCK_SIZE
            soiled[start : end * BLOCK_SIZE] = clean[start : end * BLOCK_SIZE]
            if data and data[-1][1] == position:
                data[-1] = (data[-1][0], end)
            else:
                data.append((position, end))
        position = end
    blocks = len(zero)
    told = Cutter(KEY, SMALL).cut(memoryview(soiled), 0, blocks, data)
    assert told == cut_all(memoryview(clean), SMALL)


def test_a_run_behind_a_hole_is_cut_alike_wherever_it_lies() -> None:
    run = random.Random(3).randbytes(400 * BLOCK_SIZE)
    cuts = []
    for shift in (4, 5, 17, 600):
        data = memoryview(bytes(shift * BLOCK_SIZE) + run)
        spans = cut_all(data, SMALL)
        assert spans[0] == (0, shift, True)
        cuts.append([(span.start - shift, span.end - shift) for span in spans[1:]])
    assert cuts[0] == cuts[1] == cuts[2] == cuts[3]


def test_cuts_meet_again_after_other_content() -> None:
    rng = random.Random(4)
    run = rng.randbytes(600 * BLOCK_SIZE)
    borders = []
    for before in (0, 7, 50):
        data = memoryview(rng.randbytes(before * BLOCK_SIZE) + run)
        borders.append({span.start - before for span in cut_all(data, SMALL)})
    tail = [{cut for cut in cuts if cut > 150} for cuts in borders]
    assert tail[0] == tail[1] == tail[2]
    assert len(tail[0]) > 20


def test_another_key_cuts_elsewhere() -> None:
    data = memoryview(random.Random(5).randbytes(800 * BLOCK_SIZE))
    ours = {span.start for span in cut_all(data, SMALL)}
    theirs = {span.start for span in cut_all(data, SMALL, bytes(32))}
    assert len(ours & theirs) < len(ours) // 2
    assert ours == {span.start for span in cut_all(data, SMALL)}


def test_a_window_cuts_only_itself() -> None:
    data = memoryview(random.Random(6).randbytes(100 * BLOCK_SIZE))
    spans = Cutter(KEY, SMALL).cut(data, 40, 90, [(40, 90)])
    assert spans[0].start == 40
    assert spans[-1].end == 90


@pytest.mark.parametrize("average", [16 << 10, 64 << 10, 256 << 10])
def test_average_size_on_random_data(average: int) -> None:
    parameters = ChunkParameters.with_average(average)
    data = memoryview(random.Random(average).randbytes(LEAF_BLOCKS * BLOCK_SIZE))
    spans = cut_all(data, parameters)
    mean = LEAF_BLOCKS * BLOCK_SIZE / len(spans)
    assert 0.7 * average < mean < 1.3 * average


@pytest.mark.parametrize("average", [0, 1, 4096, 8192, 65_537, 100_000, 8 << 20, -65_536])
def test_impossible_averages_are_refused(average: int) -> None:
    with pytest.raises(UsageError):
        ChunkParameters.with_average(average)


@pytest.mark.parametrize("shift", range(14, 23))
def test_possible_averages_are_sane(shift: int) -> None:
    assert ChunkParameters.with_average(1 << shift).is_sane()


@pytest.mark.parametrize(
    "parameters",
    [(0, 0, 0, 0), (16, 16, 64, 4), (16, 0, 64, 4), (16, 4, 16, 4), (16, 4, 8193, 4),
     (16, 4, 64, 0), (16, 4, 64, 17)],
)  # fmt: skip
def test_parameters_of_no_writer_are_not_sane(parameters: tuple[int, int, int, int]) -> None:
    assert not ChunkParameters(*parameters).is_sane()
