"""What the detector plans for readers of different habits."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.readahead import FAR, NEAR, SequentialDetector, depth_of

WINDOW = NEAR.window
SIZE = 64 << 20
AHEAD = 8 << 20


def test_a_sequential_reader_gets_every_byte_planned_once_and_before_it_asks() -> None:
    detector, planned = SequentialDetector(SIZE), bytearray(SIZE // 4096)
    step = 128 << 10
    for offset in range(0, SIZE, step):
        if offset >= 4 * step:
            assert all(planned[offset // 4096 : (offset + step) // 4096])
        for window in detector.saw(offset, step, AHEAD):
            assert window.length <= WINDOW
            assert window.offset + window.length <= min(SIZE, offset + step + AHEAD)
            for page in range(window.offset // 4096, (window.offset + window.length) // 4096):
                assert not planned[page]
                planned[page] = 1


def test_a_random_reader_plans_nothing() -> None:
    detector, draw = SequentialDetector(SIZE), random.Random(1)
    for _ in range(10_000):
        assert detector.saw(draw.randrange(SIZE // 4096) * 4096, 4096, AHEAD) == []


def test_requests_that_overtake_one_another_are_still_a_sequence() -> None:
    detector, windows = SequentialDetector(SIZE), 0
    for base in range(0, SIZE, 4 << 20):
        for part in (0, 2, 1, 3) if base else (0, 1, 2, 3):
            windows += len(detector.saw(base + part * WINDOW, WINDOW, AHEAD))
            assert detector.sequential
    assert windows >= SIZE // WINDOW - 8


def test_a_jump_ends_the_sequence() -> None:
    detector = SequentialDetector(SIZE)
    for offset in range(0, 1 << 20, 1 << 18):
        detector.saw(offset, 1 << 18, AHEAD)
    assert detector.sequential
    assert detector.saw(32 << 20, 4096, AHEAD) == []
    assert not detector.sequential


@given(st.lists(st.tuples(st.integers(0, 1 << 22), st.integers(1, 1 << 20)), max_size=50))
def test_nothing_beyond_the_end_is_planned(reads: list[tuple[int, int]]) -> None:
    size = (1 << 22) + 12345
    detector = SequentialDetector(size)
    for offset, length in reads:
        for window in detector.saw(offset, length, AHEAD):
            assert 0 <= window.offset < window.offset + window.length <= size


def test_who_reads_on_from_far_is_led_further_the_more_he_has_read() -> None:
    """A reader of the first part of a file does not make a store send all of it."""
    size, step = 1 << 30, 128 << 10
    detector = SequentialDetector(size, FAR.window)
    planned = reach = 0
    for offset in range(0, size, step):
        for window in detector.saw(offset, step, FAR.ahead):
            assert window.offset == max(planned, offset + step)
            planned = window.offset + window.length
        reach = max(reach, planned - offset - step)
        assert planned <= min(size, offset + step + FAR.ahead)
        if offset == 4 * step:
            assert 0 < planned - offset <= 2 * NEAR.ahead
    assert planned == size
    assert reach > FAR.ahead - FAR.window


def test_a_near_store_is_read_as_ever() -> None:
    assert depth_of(1) == NEAR
    assert depth_of(16) == FAR
    assert FAR.ahead > NEAR.ahead
