"""Pictures of a screen: the same but for a cursor, blank, or neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.boot.screen import Picture, parse_picture

WIDTH, HEIGHT = 160, 90


def _picture(boxes: list[tuple[int, int, int, int]] = [], ground: bytes = b"\0\0\0") -> Picture:  # noqa: B006
    pixels = bytearray(ground * (WIDTH * HEIGHT))
    for left, top, width, height in boxes:
        for row in range(top, min(top + height, HEIGHT)):
            start = 3 * (row * WIDTH + left)
            end = 3 * (row * WIDTH + min(left + width, WIDTH))
            pixels[start:end] = b"\xff\xff\xff" * ((end - start) // 3)
    return Picture(WIDTH, HEIGHT, bytes(pixels))


TEXT = [(2, 2, 60, 4), (2, 10, 80, 4)]


@given(st.integers(0, WIDTH - 10), st.integers(0, HEIGHT - 18))
def test_a_blinking_cursor_changes_nothing(left: int, top: int) -> None:
    """Wherever it is."""
    still, blinked = _picture(TEXT), _picture([*TEXT, (left, top, 9, 16)])
    assert still.same_as(blinked)
    assert blinked.same_as(still)
    assert not blinked.is_blank


@pytest.mark.parametrize("box", [(0, 20, 100, 4), (10, 20, 4, 60), (0, 0, 160, 90)])
def test_anything_larger_is_a_change(box: tuple[int, int, int, int]) -> None:
    """A line of text, a bar, a picture."""
    assert not _picture(TEXT).same_as(_picture([*TEXT, box]))


def test_two_places_are_a_change() -> None:
    """However small each is."""
    assert not _picture(TEXT).same_as(_picture([*TEXT, (0, 0, 2, 2), (150, 80, 2, 2)]))


@pytest.mark.parametrize("ground", [b"\0\0\0", b"\x10\x20\x30"])
def test_a_screen_of_one_colour_is_blank(ground: bytes) -> None:
    """With a cursor or without."""
    assert _picture(ground=ground).is_blank
    assert _picture([(0, 0, 9, 16)], ground).is_blank


def test_pictures_of_other_sizes_differ() -> None:
    """A guest that has set another mode has changed its screen."""
    assert not Picture(1, 2, bytes(6)).same_as(Picture(2, 1, bytes(6)))


def test_a_ppm_is_read() -> None:
    """As QEMU writes it."""
    assert parse_picture(b"P6\n2 1\n255\n" + bytes(6)) == Picture(2, 1, bytes(6))


@given(
    st.one_of(
        st.binary(max_size=40), st.binary(max_size=9).map(lambda end: b"P6\n2 1\n255\n" + end)
    )
)
def test_what_is_no_ppm_is_none(data: bytes) -> None:
    """Cut short, too long, of no size."""
    picture = parse_picture(data)
    assert picture is None or len(picture.pixels) == 3 * picture.width * picture.height
