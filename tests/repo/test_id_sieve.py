"""What narrows a search: never a "no" for what is there, and the same row as a plain search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.format import Kind
from backpoint_repo.id_sieve import IdSieve
from backpoint_repo.index_segment import IndexTable, PackRef, build_table
from backpoint_repo.map_node import Ids
from backpoint_repo.prefix_fence import PrefixFence

PACK = PackRef(Kind.DATA_PACK, bytes(16))


def random_ids(count: int, seed: int) -> Ids:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


def table_of(ids: Ids) -> IndexTable:
    numbers = np.zeros(len(ids), np.uint32)
    return build_table([PACK], ids, numbers, numbers, numbers)


@pytest.mark.parametrize("count", [0, 1, 5000, 40_000])
def test_what_is_there_is_never_denied_and_little_else_is_affirmed(count: int) -> None:
    ids, others = random_ids(count, 1), random_ids(20_000, 2)
    sieve = IdSieve([table_of(ids)])
    assert sieve.may_hold(ids).all()
    assert sieve.may_hold(others).mean() < 0.05


def test_tables_that_come_later_are_taken_in() -> None:
    first, second, third = (random_ids(3000, seed) for seed in range(3))
    tables = [table_of(first), table_of(second)]
    sieve = IdSieve(tables[:1])
    assert sieve.covers(tables)
    assert sieve.covers(tables)
    assert sieve.may_hold(np.concatenate([first, second])).all()
    assert sieve.may_hold(third).mean() < 0.05
    assert not sieve.covers([*tables, table_of(random_ids(10_000, 3))]), "there is no room"


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=60))
def test_any_ids_at_all(rows: list[bytes]) -> None:
    """A forged segment need not be evenly spread."""
    ids = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)
    assert IdSieve([table_of(ids)]).may_hold(ids).all()


@given(
    st.lists(st.integers(0, 300) | st.integers(0, 2**64 - 1), min_size=1, max_size=700),
    st.lists(st.integers(0, 301) | st.integers(0, 2**64 - 1), max_size=5),
)
def test_a_fence_finds_the_row_that_a_search_finds(column: list[int], wanted: list[int]) -> None:
    prefixes = np.sort(np.array(column, np.uint64))
    queries = np.array(wanted + column[:5], np.uint64)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("backpoint_repo.prefix_fence.FENCED_FROM", 1)
        found = PrefixFence(prefixes).first_rows(queries)
    assert found.tolist() == np.searchsorted(prefixes, queries).tolist()


def test_a_large_table_answers_as_a_small_one() -> None:
    ids, others = random_ids(70_000, 4), random_ids(500, 5)
    table = table_of(ids)
    usable = np.ones(1, np.bool_)
    queries = np.concatenate([ids[::150], others])
    rows = table.find(queries, usable)
    assert (rows[: -len(others)] >= 0).all()
    assert (table.ids(rows[: -len(others)]) == queries[: -len(others)]).all()
    assert (rows[-len(others) :] == -1).all()
