"""Where a volume's bytes are: the same as a naive model says, and nothing that the disks lack."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.volume import Piece, Volume
from backpoint_fusefs.guest.volume_places import MIN_UNIT, check_volume, places
from backpoint_fusefs.guest.volume_record import from_record, to_record

_DISKS = [4096, 3000, 5000]


def _volume(*pieces: Piece, problem: str = "") -> Volume:
    return Volume("v", sum(piece.length for piece in pieces), pieces, "ext", problem=problem)


@st.composite
def _volumes(draw: st.DrawFn) -> Volume:
    pieces: list[Piece] = []
    start = 0
    for _ in range(draw(st.integers(1, 5))):
        count = draw(st.integers(1, 4))
        unit = draw(st.integers(1, 64))
        rows = 1 if count == 1 else draw(st.integers(1, 6))
        stripes = []
        for _ in range(count):
            disk = draw(st.integers(0, len(_DISKS) - 1))
            stripes.append((disk, draw(st.integers(0, _DISKS[disk] - unit * rows))))
        pieces.append(Piece(start, unit * rows * count, unit, tuple(stripes)))
        start += pieces[-1].length
    return _volume(*pieces)


def _model(volume: Volume) -> list[tuple[int, int]]:
    """Of every byte its disk and offset, stripe unit by stripe unit."""
    found: list[tuple[int, int]] = []
    for piece in volume.pieces:
        for row in range(piece.length // piece.unit // len(piece.stripes)):
            for disk, offset in piece.stripes:
                found += [(disk, offset + row * piece.unit + at) for at in range(piece.unit)]
    return found


@given(_volumes(), st.data())
def test_every_byte_is_where_the_model_has_it(volume: Volume, data: st.DataObject) -> None:
    """Of any range, in order, and neighbours are joined."""
    offset = data.draw(st.integers(0, volume.size))
    length = data.draw(st.integers(0, volume.size - offset))
    found = places(volume, offset, length)
    every = [(disk, at + n) for disk, at, count in found for n in range(count)]
    assert every == _model(volume)[offset : offset + length]
    for before, after in itertools.pairwise(found):
        assert (before.disk, before.offset + before.length) != (after.disk, after.offset)


@given(_volumes())
def test_a_record_is_the_volume(volume: Volume) -> None:
    """There and back, also as tuples, as msgpack may give lists."""
    named = dataclasses.replace(volume, label="l", uuid="u", devices=("/dev/a", "/dev/b"))
    assert from_record(to_record(named)) == named
    assert from_record(tuple(to_record(named))) == named


_K = MIN_UNIT
_LARGE = [_K * size for size in _DISKS]


def _piece(start: int, length: int, unit: int, *stripes: tuple[int, int]) -> Piece:
    """In units of 4 KiB."""
    places = tuple((disk, offset * _K) for disk, offset in stripes)
    return Piece(start * _K, length * _K, unit * _K, places)


_GOOD = _volume(_piece(0, 64, 64, (0, 0)), _piece(64, 64, 16, (0, 64), (1, 0)))


@pytest.mark.parametrize(
    ("offset", "length"),
    [(-1, 1), (0, -1), (0, _GOOD.size + 1), (_GOOD.size + 1, 0), (_GOOD.size, 1)],
)
def test_bytes_outside_are_refused(offset: int, length: int) -> None:
    """Before, behind, and of negative length."""
    with pytest.raises(GuestDamaged):
        places(_GOOD, offset, length)


def test_the_end_is_inside() -> None:
    """Nothing is nowhere."""
    assert places(_GOOD, _GOOD.size, 0) == []


_BAD = {
    "gap": _volume(_piece(0, 64, 64, (0, 0)), _piece(65, 64, 64, (0, 64))),
    "overlap": _volume(_piece(0, 64, 64, (0, 0)), _piece(63, 64, 64, (0, 64))),
    "not from the beginning": _volume(_piece(1, 64, 64, (0, 0))),
    "no bytes": _volume(_piece(0, 0, 0, (0, 0))),
    "negative": _volume(_piece(0, -64, -64, (0, 0))),
    "no stripes": _volume(_piece(0, 64, 64)),
    "no unit": _volume(_piece(0, 64, 0, (0, 0), (1, 0))),
    "linear in units": _volume(_piece(0, 64, 16, (0, 0))),
    "half a row": _volume(_piece(0, 48, 16, (0, 0), (1, 0))),
    "no such disk": _volume(_piece(0, 64, 64, (3, 0))),
    "negative disk": _volume(_piece(0, 64, 64, (-1, 0))),
    "before the disk": _volume(_piece(0, 64, 64, (0, -1))),
    "behind the disk": _volume(_piece(0, 64, 64, (0, 4033))),
    "one stripe behind": _volume(_piece(0, 128, 16, (0, 0), (1, 2937))),
    "narrow": _volume(Piece(0, 64 * _K, 512, ((0, 0), (1, 0)))),
    "size": dataclasses.replace(_GOOD, size=_GOOD.size - 1),
}


@pytest.mark.parametrize("name", list(_BAD))
def test_impossible_pieces_are_refused(name: str) -> None:
    """Whatever a worker says is checked against the disks."""
    check_volume(_GOOD, _LARGE)
    with pytest.raises(GuestDamaged):
        check_volume(_BAD[name], _LARGE)


def test_only_a_volume_with_a_problem_may_be_nowhere() -> None:
    """And an empty one, of which nothing can be read."""
    nowhere = Volume("v", 100, (), "ext")
    with pytest.raises(GuestDamaged):
        check_volume(nowhere, _DISKS)
    check_volume(dataclasses.replace(nowhere, problem="its disk is missing"), _DISKS)
    with pytest.raises(GuestDamaged):
        places(nowhere, 0, 1)


_RECORD = to_record(dataclasses.replace(_GOOD, devices=("/dev/a",)))


def _with(at: int, value: object) -> list[object]:
    return [*_RECORD[:at], value, *_RECORD[at + 1 :]]


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        [],
        _RECORD[:-1],
        [*_RECORD, ""],
        *(_with(0, name) for name in ("", ".", "..", "a/b", "a\0", "a\n", "\ud800", "x" * 256, 1)),
        *(_with(0, name) for name in ("\N{SNOWMAN}" * 86, b"disk0")),
        *(_with(1, size) for size in (-1, 1 << 63, True, 1.0, "1", None)),
        *(_with(2, pieces) for pieces in (1, [1], [[0, 1, 1]], [[0, 1, 1, 1]])),
        *(
            _with(2, [[0, 1, 1, stripes]])
            for stripes in ([[0]], [[0, -1]], [[5000, 0]], [[0, "0"]])
        ),
        _with(2, [[0, 1, 1, [[0, 0]]]] * 65537),
        _with(2, [[0, 1, 1, [[0, 0]] * 65536]] * 5),
        *(_with(at, 1) for at in (3, 4, 5, 6, 7, 8, 9)),
        *(_with(at, "x" * 4097) for at in (3, 4, 5, 7, 8, 9)),
        _with(6, ["/dev/a"] * 65),
        _with(6, [1]),
        _with(4, "\udcff"),
    ],
)
def test_impossible_records_are_refused(record: object) -> None:
    """No type, length, number or name is believed."""
    assert from_record(_RECORD).devices == ("/dev/a",)
    with pytest.raises(GuestDamaged):
        from_record(record)
