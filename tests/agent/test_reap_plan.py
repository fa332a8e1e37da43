"""What the reaper decides from what it sees: never more than the ledger proves."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.effect import Effect, EffectKind
from backpoint_agent.machine import SnapshotNote
from backpoint_agent.reaping.plan import Sight, in_order, plan_effect
from backpoint_agent.reaping.strays import Wishes, plan_strays
from backpoint_agent.snapshot_name import SnapshotMark, make_description, make_name
from some_machine import VCENTER, some_disk, some_machine

NUMBER = "20261121T170312Z-4711-9f3a1c2b-3"
OTHER = "20261121T170312Z-4711-9f3a1c2b-4"
KINDS: tuple[EffectKind, ...] = (
    "snapshot",
    "freeze",
    "change-tracking",
    "hotadd",
    "export-lease",
    "restored-machine",
    "restore-over",
    "live-machine",
    "live-datastore",
)


def effect(kind: EffectKind, **facts: str) -> Effect:
    """An effect of long ago on "web"."""
    return Effect(NUMBER, kind, VCENTER, "vm-1", "web", facts, 0.0)


def note(moref: str, name: str, description: str = "", created: float = 0.0) -> SnapshotNote:
    """A snapshot in a tree."""
    return SnapshotNote(moref, name, description, created, 0)


def sight(machine: Any = None, **changes: Any) -> Sight:
    """A look long after the effect."""
    return dataclasses.replace(Sight(machine, age_s=3600.0), **changes)


MOREFS = st.sampled_from(["snapshot-1", "snapshot-2", "snapshot-3"])
NAMES = st.sampled_from([make_name(NUMBER), make_name(OTHER), "backpoint-", "before", NUMBER])
TREES = st.lists(st.builds(note, MOREFS, NAMES), max_size=3, unique_by=lambda each: each.moref)


@given(tree=TREES, moref=st.none() | MOREFS, merging=st.booleans(), fresh=st.booleans())
def test_a_snapshot_is_removed_only_by_number_and_moref(
    tree: list[SnapshotNote], moref: str | None, merging: bool, fresh: bool
) -> None:
    """Whatever the tree looks like: what is removed has our number's name, and the moref that was
    learned if one was; what is closed is not there under either."""
    machine = some_machine(snapshots=tuple(tree), consolidation_needed=merging)
    ours = effect("snapshot", **({"moref": moref} if moref else {}))
    step = plan_effect(ours, sight(machine, fresh=fresh))
    named = {each.moref for each in tree if each.name == make_name(NUMBER)}
    if step.action == "remove-snapshot":
        assert step.target in named
        assert moref in (None, step.target)
    elif step.action in ("close", "consolidate"):
        assert not named
        assert moref not in {each.moref for each in tree}
        assert merging == (step.action == "consolidate")
        assert moref is not None or not fresh
    else:
        assert step.action == "keep"


@pytest.mark.parametrize("kind", KINDS)
def test_of_what_cannot_be_seen_nothing_is_concluded(kind: EffectKind) -> None:
    """While its host is away a VM shows no snapshots and no disks: the effect stays open."""
    away = some_machine(connected=False, power="poweredOff")
    seen = Sight(away, 3600.0, proxy=away, made=away, lease="unknown")
    assert plan_effect(effect(kind, program="/thaw", file="f"), seen).action == "keep"
    closed = some_machine(hindrances=("the account may not read its configuration",))
    seen = Sight(closed, 3600.0, proxy=closed, made=closed)
    assert plan_effect(effect(kind, program="/thaw", file="f"), seen).action == "keep"


@pytest.mark.parametrize("kind", ["snapshot", "freeze", "change-tracking", "restore-over"])
def test_with_its_vm_an_effect_is_gone(kind: EffectKind) -> None:
    """A VM that was deleted took it along."""
    assert plan_effect(effect(kind), sight(None)).action == "close"


@pytest.mark.parametrize("kind", ["snapshot", "freeze", "change-tracking", "hotadd"])
def test_while_a_task_runs_nothing_is_concluded(kind: EffectKind) -> None:
    """What vCenter still makes may be what is looked for."""
    machine = some_machine()
    step = plan_effect(effect(kind, file="f"), sight(machine, proxy=machine, tasks=("create",)))
    assert step.action == "keep"
    assert "create" in step.why


def test_what_was_asked_for_just_now_may_still_appear() -> None:
    """An effect that nothing is known of is not closed before it can have arrived."""
    machine = some_machine()
    for each in (effect("snapshot"), effect("hotadd", file="f"), effect("restored-machine")):
        assert plan_effect(each, sight(machine, proxy=machine, fresh=True)).action == "keep"
        assert plan_effect(each, sight(machine, proxy=machine)).action == "close"
    assert plan_effect(effect("export-lease"), sight(age_s=100.0)).action == "keep"
    assert plan_effect(effect("export-lease"), sight()).action == "close"


def test_a_disk_is_detached_by_its_file() -> None:
    """The proxy's other disks are no concern, whatever their keys."""
    proxy = some_machine("proxy", 2, disks=(some_disk(0), some_disk(1, file="[ds1] db/db.vmdk")))
    step = plan_effect(
        effect("hotadd", file="[ds1] db/db.vmdk", device_key="2000"), sight(proxy=proxy)
    )
    assert (step.action, step.vm, step.target) == ("detach", "vm-2", "2001")
    step = plan_effect(effect("hotadd", file="[ds1] db/other.vmdk"), sight(proxy=proxy))
    assert step.action == "close"


def test_a_vm_with_somebody_elses_disk_is_not_deleted() -> None:
    """Deleting a VM deletes its disks: one that lies in another VM's folder keeps it."""
    facts = {"name": "new", "folder": "DC0/vm", "moref": "vm-1"}
    made = some_machine("new", power="poweredOff", disks=(some_disk(file="[ds2] new_1/new.vmdk"),))
    assert plan_effect(effect("restored-machine", **facts), sight(made=made)).action == "destroy"
    shared = dataclasses.replace(made, disks=(*made.disks, some_disk(1, file="[ds1] db/db.vmdk")))
    step = plan_effect(effect("restored-machine", **facts), sight(made=shared))
    assert step.action == "keep"
    assert "[ds1] db/db.vmdk" in step.why


@given(st.permutations(KINDS))
def test_effects_of_a_vm_are_undone_in_the_right_order(kinds: list[EffectKind]) -> None:
    """Guests are thawed first, and disks are detached before their snapshot goes."""
    order = [each.kind for each in in_order(effect(kind) for kind in kinds)]
    assert order[:4] == ["freeze", "hotadd", "export-lease", "snapshot"]


def test_a_linked_clone_is_told_only() -> None:
    """Its disks have a parent and it has no snapshot: nothing is wrong with that, perhaps."""
    clone = some_machine(disks=(some_disk(has_parent=True),))
    (step,) = plan_strays([clone], (), (), Wishes(0.0))
    assert step.action == "tell"


def test_what_a_snapshot_says_of_itself_is_not_believed_alone() -> None:
    """An old snapshot whose mark is of today, or that has our mark and another name, stays."""
    day = 86_400.0
    mark = SnapshotMark("host", "run", 0.0)
    lying = dataclasses.replace(mark, at=9 * day)
    tree = (
        note("snapshot-1", make_name(NUMBER), make_description(lying)),
        note("snapshot-2", make_name(OTHER), make_description(mark), created=9.5 * day),
        note("snapshot-3", "before", make_description(mark)),
    )
    wishes = Wishes(now=9.9 * day, orphans=True)
    steps = plan_strays([some_machine(snapshots=tree)], (), (), wishes)
    assert [(step.action, step.target) for step in steps] == [
        ("tell", "snapshot-1"),
        ("tell", "snapshot-2"),
    ]
