"""`prune`: what it shows and does, for whom, and that what is left is whole."""

from __future__ import annotations

from typing import Any

import pytest

from backpoint_repo.check import check_repository
from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import Kind
from backpoint_repo.point_hold import Hold, put_hold
from backpoint_repo.point_note import PointNote, put_note
from backpoint_repo.point_proof import put_proof
from backpoint_repo.policy import Policy, put_policy
from backpoint_repo.proof import Level, Proof, Step
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from backpoint_repo.retention.prune import apply_prune, chosen_vms, plan_prune
from backpoint_repo.retention.rules import Rules
from backpoint_repo.store.memory import MemoryStore
from command_line import CommandLine, opened
from small_repository import NOON, StandingClock, assert_clean, back_up, new_repository, reopened
from synthetic_disk import random_disk

DAY = 86400.0
LAST = {"web": [Rules(last=1)]}


def made(days: int = 5, vm: str = "web") -> tuple[Repository, StandingClock, list[bytes]]:
    """A point a day, oldest first; the clock stands at the last one."""
    clock = StandingClock()
    repository = new_repository(MemoryStore(), clock)
    ids = []
    for day in range(days):
        clock.now = NOON + day * DAY
        ids.append(back_up(repository, vm, random_disk(1 << 13, day)).point_id)
    return repository, clock, ids


def kept(repository: Repository) -> set[bytes]:
    plan = plan_prune(reopened(repository), LAST)
    return {verdict.point.point_id for verdict in plan.verdicts if verdict.keep}


def proof_of(point_id: bytes, *, ok: bool, at: float = NOON) -> Proof:
    return Proof(point_id, at, (Step(Level.STRUCTURE, ok, 1.0),), "", "", 1.0)


def test_a_dry_run_shows_and_removes_nothing(owner: CommandLine, agent: CommandLine) -> None:
    """The agent's credential is enough for both."""
    repository = opened(owner)
    for day in range(1, 5):
        back_up(repository, "web01", random_disk(1 << 14, day), time=NOON + day * DAY)
    back_up(repository, "db", random_disk(1 << 14, 9), time=NOON)
    words = ("prune", "web*", "--keep-last", "1", "--keep-daily", "2")
    said = agent.run(*words, "--dry-run")
    rows = [line.rstrip().split(maxsplit=4) for line in said.out.splitlines()]
    assert [row[3] for row in rows[1:5]] == ["remove", "remove", "keep", "keep"]
    assert rows[1][4] == "no rule keeps it"
    assert rows[4][4] == "last 1 of 1, daily 1 of 2, newest of its VM"
    assert said.out.endswith("2 points would be removed, 2 kept\n")
    record = agent.run(*words, "--dry-run", "--json").record
    assert [point["keep"] for point in record["points"]] == [False, False, True, True]
    assert (record["removed"], record["dry_run"]) == (0, True)
    assert len(agent.run("points", "--json").record["points"]) == 5
    said = agent.run(*words)
    assert said.out.endswith("2 points removed, 2 kept; `backpoint collect` frees their space\n")
    assert [line.split()[0] for line in said.out.splitlines()[1:3]] == ["web01", "web01"]
    left = agent.run("points", "--json").record["points"]
    assert [point["vm"] for point in left] == ["db", "web01", "web01"]
    record = agent.run(*words, "--json").record
    assert (record["removed"], len(record["points"])) == (0, 2)
    assert_clean(repository)


def test_without_a_rule_or_a_vm_nothing_is_done(owner: CommandLine) -> None:
    back_up(opened(owner), "web01", random_disk(1 << 14, 1))
    assert "say what to keep" in owner.run("prune", code=2).error
    assert "say what to keep" in owner.run("prune", "--keep-last", "0", code=2).error
    assert "no number" in owner.run("prune", "--keep-last", "-1", code=2).err
    assert "no duration" in owner.run("prune", "--keep-within", "soon", code=2).error
    said = owner.run("prune", "mail*", "--keep-last", "1", code=2)
    assert "no points of a VM named 'mail*'" in said.error


def test_patterns_choose_vms() -> None:
    """A name is a name first, also where it looks like a pattern."""
    repository, _, _ = made(1, "web[1]")
    back_up(repository, "web1", random_disk(1 << 13, 1))
    points = repository.catalog.refresh()
    assert chosen_vms(points, []) == ["web1", "web[1]"]
    assert chosen_vms(points, ["web[1]"]) == ["web[1]"]
    assert chosen_vms(points, ["web?", "w*"]) == ["web1", "web[1]"]
    assert chosen_vms([], []) == []


def test_the_newest_good_proof_is_found_behind_bad_ones() -> None:
    """What is older and proven goes; where a proof cannot be read, the point stays."""
    repository, _, ids = made()
    sealed = repository.sealed
    put_proof(sealed, proof_of(ids[0], ok=True))
    put_proof(sealed, proof_of(ids[1], ok=True))
    put_proof(sealed, proof_of(ids[2], ok=True, at=NOON))
    put_proof(sealed, proof_of(ids[2], ok=False, at=NOON + 1))
    topic = f"proof{0:012x}{1:012x}"
    put_note(sealed, PointNote(ids[3], topic, NOON, {}))
    assert kept(repository) == {ids[1], ids[3], ids[4]}


def test_the_minimum_age_holds_and_a_broken_policy_stops() -> None:
    repository, clock, ids = made()
    put_policy(repository.sealed, Policy(2 * DAY), clock)
    assert kept(repository) == set(ids[3:])
    clock.now += 1
    assert kept(repository) == set(ids[3:])
    clock.now += DAY
    assert kept(repository) == {ids[4]}
    repository.sealed.put(Kind.POLICY, "ab" * 16, encode_record({}))
    with pytest.raises(ObjectDamaged):
        kept(repository)


def test_holds_count_until_they_end_and_a_broken_one_holds() -> None:
    """It may say that its point must stay; nothing of the others."""
    repository, clock, ids = made()
    holder = "00112233445566ff"
    put_hold(repository.sealed, Hold(ids[0], holder, "", NOON, clock.now + DAY))
    put_hold(repository.sealed, Hold(ids[1], holder, "", NOON))
    assert kept(repository) == {ids[0], ids[1], ids[4]}
    clock.now += DAY
    assert kept(repository) == {ids[1], ids[4]}
    put_note(repository.sealed, PointNote(ids[2], f"hold{holder}", NOON, {}))
    assert kept(repository) == {ids[1], ids[2], ids[4]}
    plan = plan_prune(repository, LAST)
    (reason,) = next(one.reasons for one in plan.verdicts if one.point.point_id == ids[2])
    assert reason.startswith("a hold on it cannot be read")


def forge_catalogue(repository: Repository, rows: list[list[Any]]) -> None:
    # Only where many points are not known yet is a catalogue read.
    rows += [[n.to_bytes(16, "big")] for n in range(100)]
    for n in range(100):
        void = encode_record({"revoked": NOON, "by": bytes(16)})
        repository.sealed.put(Kind.VOID, n.to_bytes(16, "big").hex(), void)
    repository.sealed.put(Kind.CATALOG, "ab" * 16, encode_record({"points": rows}))


def test_a_lying_catalogue_makes_no_point_go() -> None:
    """It claims that the newest points are from 1970, and that a forged one is the newest."""
    repository, _, ids = made()
    real = {point.point_id: point for point in repository.catalog.refresh()}
    rows = [list(real[own]._replace(time=1.0, created=1.0, generation=0)) for own in ids[2:]]
    rows += [list(real[ids[0]]._replace(generation=99))]
    forge_catalogue(repository, rows)
    claimed = {p.point_id: p.time for p in reopened(repository).catalog.refresh()}
    assert claimed[ids[4]] == 1.0
    (note,) = [note for note in check_repository(reopened(repository)).notes if "otherwise" in note]
    assert "lists 4 points otherwise than they are" in note
    assert kept(repository) == {ids[4]}


def test_a_lying_catalogue_puts_no_old_point_in_the_place_of_newer_ones() -> None:
    """It claims that the two oldest were made just before the newest, which is as it says."""
    repository, _, ids = made()
    real = {point.point_id: point for point in repository.catalog.refresh()}
    newest = real[ids[4]]
    rows = []
    for at, own in enumerate(ids[:2]):
        moved = real[own]._replace(time=newest.time - 1 - at, created=newest.created - 1)
        rows.append(list(moved._replace(generation=newest.generation)))
    forge_catalogue(repository, rows)
    plan = plan_prune(reopened(repository), {"web": [Rules(last=3)]})
    assert {point.point_id for point in plan.doomed} == set(ids[:2])


def test_a_rotten_newest_point_is_not_counted_on() -> None:
    """The catalogue still knows it; the newest that can be read stays beside it."""
    repository, _, ids = made()
    store = repository.sealed.store
    plan = repository.catalog.refresh()  # known here from before the rot
    assert len(plan) == 5
    key = f"points/{ids[4].hex()}"
    data = store.get(key)
    store.delete(key)
    store.put(key, [data[:-1]])
    found = plan_prune(repository, LAST)
    assert {one.point.point_id for one in found.verdicts if one.keep} == {ids[3]}
    assert list(found.unreadable) == [ids[4].hex()]
    apply_prune(repository, found)
    assert ids[4].hex() in {key.key.removeprefix("points/") for key in store.list("points/")}


def test_rules_of_one_vm_leave_others_alone_and_add_up() -> None:
    repository, _, ids = made()
    other = back_up(repository, "db", random_disk(1 << 13, 1)).point_id
    plan = plan_prune(repository, {"web": [Rules(last=1), Rules(daily=3)], "gone": [Rules(1)]})
    assert {point.point_id for point in plan.doomed} == set(ids[:2])
    removal = apply_prune(repository, plan)
    assert set(removal.removed) == set(ids[:2])
    left = {point.point_id for point in reopened(repository).catalog.refresh()}
    assert left == {other, *ids[2:]}
    assert_clean(repository)


def test_the_catalogue_does_not_miss_what_was_removed() -> None:
    """`check` tells of points that are gone from the catalogue: those were lost."""
    repository, clock, _ = made(1)
    for day in range(1, 70):
        clock.now = NOON + day * DAY
        back_up(repository, "web", random_disk(1 << 12, 1))
    assert list(repository.sealed.names(Kind.CATALOG))
    apply_prune(repository, plan_prune(repository, {"web": [Rules(last=2)]}))
    assert reopened(repository).catalog.gone() == []
    lost = repository.catalog.refresh()[0]
    repository.sealed.delete(Kind.POINT, lost.point_id.hex())
    apply_prune(repository, plan_prune(repository, {"web": [Rules(last=1)]}))
    assert reopened(repository).catalog.gone() == [lost.point_id.hex()]
