"""A set of ids is a set."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.collecting.id_set import IdSet, first_of_each
from backpoint_repo.index import ids_of

# Few different words, so that ids begin alike as hostile ones do, and all parts are met.
_WORDS = st.sampled_from([bytes(8), b"\x00" * 7 + b"\x01", b"a" * 8, b"\xff" * 8])
_IDS = st.builds(lambda one, two: one + two + bytes(16), _WORDS, _WORDS)
_RANDOM = st.binary(min_size=16, max_size=16).map(lambda head: head + bytes(16))


@given(st.lists(st.lists(_IDS | _RANDOM, max_size=30), max_size=6), st.lists(_IDS | _RANDOM))
def test_it_holds_what_was_added(batches: list[list[bytes]], queries: list[bytes]) -> None:
    ids, model = IdSet(), set[bytes]()
    for batch in batches:
        ids.add(ids_of(batch))
        model.update(batch)
        asked = queries + batch
        assert ids.holds(ids_of(asked)).tolist() == [one in model for one in asked]
    assert len(ids) == len(model)


@given(st.lists(_IDS | _RANDOM, max_size=60))
def test_first_of_each(rows: list[bytes]) -> None:
    expected = [at for at, row in enumerate(rows) if row not in rows[:at]]
    assert first_of_each(ids_of(rows)).tolist() == expected


def test_many() -> None:
    """More than are sorted at once."""
    rows = np.random.default_rng(1).integers(0, 256, (300_000, 32), np.uint8)
    ids = IdSet()
    for _ in range(5):
        ids.add(rows[: 3 * len(rows) // 4])
        ids.add(rows[len(rows) // 4 :: 2])
    assert ids.holds(rows)[: 3 * len(rows) // 4].all()
    assert ids.holds(rows)[3 * len(rows) // 4 :].mean() == 0.5
    assert len(ids) == 3 * len(rows) // 4 + len(rows) // 8
