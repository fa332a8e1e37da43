"""How much of a pack is live, as the index knows it, and which packs are worth a look therefore."""

from __future__ import annotations

import numpy as np

from backpoint_repo.collecting.live_content import LiveContent
from backpoint_repo.collecting.pack_usage import indexed_usages, suspects
from backpoint_repo.collecting.plan import SMALL, PackUsage
from backpoint_repo.format import Kind
from backpoint_repo.index import ids_of
from backpoint_repo.index_segment import IndexTable, PackRef, build_table

ONE, TWO, GONE = (PackRef(Kind.DATA_PACK, bytes([number]) * 16) for number in range(3))


def content_id(number: int) -> bytes:
    return bytes([number]) * 32


def table(*rows: tuple[int, PackRef, int]) -> IndexTable:
    """Of (content, pack, length)."""
    packs = list(dict.fromkeys(pack for _, pack, _ in rows))
    return build_table(
        packs,
        ids_of([content_id(number) for number, _, _ in rows]),
        np.array([packs.index(pack) for _, pack, _ in rows], np.uint32),
        np.zeros(len(rows), np.uint32),
        np.array([length for _, _, length in rows], np.uint32),
    )


def live(*numbers: int) -> LiveContent:
    found = LiveContent()
    found.mark(ids_of([content_id(number) for number in numbers]))
    return found


ROWS = ((1, ONE, 1000), (2, ONE, 3000), (3, TWO, 500), (4, GONE, 700))
SIZES = {ONE: 4100, TWO: 600}


def test_what_the_index_says_of_packs_that_are_there() -> None:
    usages = indexed_usages(SIZES, [table(*ROWS)], live(2, 4))
    assert usages == [PackUsage(ONE, 4100, 3000, 1000), PackUsage(TWO, 600, 0, 500)]


def test_what_several_segments_list_is_there_once() -> None:
    """Which share of a pack is live is right all the same."""
    tables = [table(*ROWS), table(*ROWS[:2]), table(*ROWS)]
    one, two = indexed_usages({ONE: 4000, TWO: 600}, tables, live(2, 3))
    assert (one.live, one.waste) == (3000, 1000)
    assert 500 <= two.live <= 600
    assert two.waste == 0


def test_a_pack_that_no_segment_names_looks_dead_and_is_looked_into() -> None:
    """Only its own directory says what it holds."""
    usages = indexed_usages(SIZES, [table(), table(ROWS[0])], live(1, 2, 3))
    assert usages[1] == PackUsage(TWO, 600, 0, 0)
    assert suspects(usages, 0) == [usages[1]]
    assert indexed_usages({}, [table(*ROWS)], live(1)) == []
    assert [one.live for one in indexed_usages(SIZES, [], live(1))] == [0, 0]


def test_the_least_live_byte_keeps_a_pack_from_looking_dead() -> None:
    rows = [(1, ONE, 1), (2, ONE, 4_000_000)]
    (usage,) = indexed_usages({ONE: 4000}, [table(*rows)], live(1))
    assert usage.live == 1


def test_those_are_looked_into_first_of_which_most_is_won() -> None:
    """For each byte that is copied, not in all: as a plan takes them."""
    found = [
        PackUsage(PackRef(Kind.DATA_PACK, bytes([at]) * 16), 2 * SMALL, live_size, waste)
        for at, (live_size, waste) in enumerate([(1000, 900), (10, 90), (100, 800), (500, 500)])
    ]
    assert [one.pack.name[0] for one in suspects(found, None)] == [1, 2, 3, 0]
    assert [one.pack.name[0] for one in suspects(found, 54)] == [1, 2]
