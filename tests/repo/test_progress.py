"""How far work has come, and that nothing a guest names can act on the terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.progress import Meter, progress, steps
from backpoint_repo.terminal import printable


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_last_seconds() -> None:
    hand = Hand()
    meter = Meter(1000, hand)
    assert meter.advance(0).eta_s is None
    for _ in range(20):
        hand.now += 1
        figures = meter.advance(10)
    assert figures.rate == pytest.approx(10)
    assert figures.eta_s == pytest.approx(80)
    for _ in range(20):
        hand.now += 1
        figures = meter.advance(20)
    assert figures.rate == pytest.approx(20)
    assert figures.text() == "60% 600 B of 1000 B, 20 B/s, 20.0 s left"


def test_corrections_never_show_more_than_there_is() -> None:
    hand = Hand()
    meter = Meter(100, hand)
    hand.now += 1
    assert meter.advance(128).done_bytes == 100
    figures = meter.advance(-28)
    assert (figures.done_bytes, figures.eta_s) == (100, 0)
    assert Meter(0, hand).advance(0).text().startswith("100%")


def test_records_begin_at_nothing_and_end_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 10, as_json=True) as advance:
        advance(4)
        advance(6)
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [record["done_bytes"] for record in records] == [0, 4, 10]
    with steps("work", as_json=True) as shown:
        shown.phase("packs", 7)
    record = json.loads(capsys.readouterr().err)
    assert record == {"type": "progress", "phase": "packs", "done": 0, "total": 7}


def test_short_work_says_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 10, as_json=False) as advance:
        advance(10)
    with steps("work", as_json=False) as shown:
        shown.phase("packs", 7)
        shown.advance(7)
    assert capsys.readouterr() == ("", "")


@given(st.text())
def test_printable_text_is_one_line_and_moves_nothing(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
    assert not any(char < " " or "\x7f" <= char < "\xa0" for char in shown)


def test_what_is_harmless_stays() -> None:
    assert printable("Büro 東京 a b") == "Büro 東京 a b"
    assert printable("a\nb\x1b[2J\u202e\u2028") == "a\\nb\\x1b[2J\\u202e\\u2028"
