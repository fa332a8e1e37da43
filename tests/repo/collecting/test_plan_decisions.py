"""Which packs go, at the very edges: what a mutant of the plan would decide otherwise."""

from __future__ import annotations

from dataclasses import replace

from backpoint_repo.collecting.pack_usage import suspects
from backpoint_repo.collecting.plan import (
    SMALL,
    SMALL_MANY,
    CollectionPlan,
    PackUsage,
    Verdict,
    plan_collection,
    worth_merging,
)
from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.pack import PACK_SIZE
from backpoint_repo.verbatim_copy import KEYS_MAX

LARGE = 2 * SMALL


def usage(
    number: int,
    live: int,
    waste: int,
    size: int = LARGE,
    keys: int = 1,
    kind: Kind = Kind.DATA_PACK,
    judged: bool = True,
) -> PackUsage:
    return PackUsage(PackRef(kind, bytes([number]) * 16), size, live, waste, keys, judged)


def reasons(verdicts: tuple[Verdict, ...]) -> list[tuple[int, str]]:
    return [(one.usage.pack.name[0], one.reason) for one in verdicts]


def test_a_pack_is_sparse_from_a_quarter_of_waste() -> None:
    plan = plan_collection([usage(1, 7500, 2500), usage(2, 7501, 2499)], None)
    assert reasons(plan.repack) == [(1, "25 % of it is waste")]
    assert reasons(plan.kept) == [(2, "in use")]


def test_a_pack_without_waste_is_not_sparse() -> None:
    """Nor one of which the index knows nothing at all."""
    assert not usage(1, 0, 0).sparse
    assert not usage(1, 5, 0).sparse
    plan = plan_collection([usage(1, 0, 0, judged=False)], None)
    assert reasons(plan.kept) == [(1, "in use")]


def test_a_pack_is_small_below_a_size_and_a_number_of_keys() -> None:
    assert usage(1, 9, 0, SMALL - 1).small
    assert not usage(1, 9, 0, SMALL).small
    assert usage(1, 9, 0, SMALL - 1, KEYS_MAX // 2 - 1).small
    assert not usage(1, 9, 0, SMALL - 1, KEYS_MAX // 2).small
    # What it lists may be merged with as much again, and one pack lists no more.
    assert 2 * (KEYS_MAX // 2) <= KEYS_MAX


def test_what_only_the_index_knows_does_not_go() -> None:
    """It may be forged: a pack goes when its own directory was read."""
    known = PackUsage(PackRef(Kind.DATA_PACK, bytes(16)), LARGE, 0, 100)
    assert not known.judged
    plan = plan_collection([known], None)
    assert (plan.dead, plan.repack) == ((), ())


def test_what_was_not_looked_into_is_told_why() -> None:
    found = [
        usage(1, 100, 300, judged=False),
        usage(2, 100, 0, SMALL - 1, judged=False),
        usage(3, 100, 0, judged=False),
    ]
    assert reasons(plan_collection(found, None).kept) == [
        (1, "75 % of it is waste, beyond what may be copied"),
        (2, "small, but there are too few to merge"),
        (3, "in use"),
    ]


def test_what_a_plan_frees_and_copies() -> None:
    dead = Verdict(usage(1, 0, 400, size=500), "")
    repack = Verdict(usage(2, 30, 70, size=100), "")
    kept = Verdict(usage(3, 1000, 1000, size=3000), "")
    plan = CollectionPlan((dead, dead), (repack,), (kept,))
    assert (plan.freed, plan.copied) == (2 * 500 + 70, 30)


def test_small_packs_fill_one_together_or_are_a_crowd() -> None:
    assert worth_merging([usage(1, PACK_SIZE - 1, 0), usage(2, 1, 0)])
    assert not worth_merging([usage(1, PACK_SIZE - 2, 0), usage(2, 1, 0)])
    assert worth_merging([usage(1, 1, 0)] * SMALL_MANY)
    assert not worth_merging([usage(1, 1, 0)] * (SMALL_MANY - 1))


def test_small_packs_are_merged_with_those_of_their_kind() -> None:
    """A pack is of one kind: a crowd of both may be two of which neither is one."""
    data = [usage(n, 9, 0, 500) for n in range(SMALL_MANY)]
    nodes = [usage(n, 9, 0, 500, kind=Kind.NODE_PACK) for n in range(SMALL_MANY - 1)]
    plan = plan_collection([*data, *nodes], None)
    assert {one.usage for one in plan.repack} == set(data)
    assert {one.usage for one in plan.kept} == set(nodes)
    assert {one.reason for one in plan.kept} == {"small, but there are too few to merge"}


def test_the_most_is_won_for_each_byte_first_and_one_that_does_not_fit_bars_nobody() -> None:
    found = [
        usage(1, 100, 100),
        usage(2, 1000, 9000),
        usage(3, 100, 200),
        usage(4, 100, 200),
        usage(5, 1, 3),
    ]
    assert [at for at, _ in reasons(plan_collection(found, None).repack)] == [2, 5, 3, 4, 1]
    plan = plan_collection(found, 301)
    assert [at for at, _ in reasons(plan.repack)] == [5, 3, 4, 1]
    assert reasons(plan.kept) == [(2, "90 % of it is waste, beyond what may be copied")]
    assert plan.copied == 301
    assert [at for at, _ in reasons(plan_collection(found, 300).repack)] == [5, 3, 4]
    assert plan_collection(found, 0).repack == ()


def test_what_trash_that_is_over_names_is_copied_first() -> None:
    """However little of it is waste: no writer uses it, and nobody deletes it."""
    stranded = replace(usage(7, 300, 0), stranded=True)
    held = replace(usage(8, 300, 0), stranded=True, held="somebody writes to it")
    dead = replace(usage(9, 0, 300), stranded=True)
    found = [usage(1, 100, 900), stranded, held, dead]
    assert [one.pack.name[0] for one in suspects(found, 0)] == [9, 7]
    assert [one.pack.name[0] for one in suspects(found, None)] == [9, 7, 8, 1]
    plan = plan_collection(found, 300)
    assert reasons(plan.dead) == [(9, "nothing needs it")]
    assert reasons(plan.repack) == [(7, "trash that is over names it")]
    assert [at for at, _ in reasons(plan.kept)] == [8, 1]
    assert [at for at, _ in reasons(plan_collection(found, 400).repack)] == [7, 1]


def test_twice_what_may_be_copied_is_looked_into() -> None:
    """Some turn out to be held; and all that looks dead, whatever the limit is."""
    found = [usage(n, 100, 900 - n) for n in range(1, 7)] + [usage(9, 0, 5)]
    assert [one.pack.name[0] for one in suspects(found, 100)] == [9, 1, 2, 3]
    assert [one.pack.name[0] for one in suspects(found, 99)] == [9, 1, 2]
    assert [one.pack.name[0] for one in suspects(found, 0)] == [9, 1]
    assert len(suspects(found, None)) == 7
