"""What no ledger knows: told, and dealt with only where a user asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_agent import snapshot_name
from backpoint_agent.ledger import Ledger
from backpoint_agent.reaping.reap import reap_strays
from backpoint_agent.reaping.strays import Wishes
from reaper_scene import Scene, running_scene

DAY_S = 86_400.0


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with running_scene(tmp_path) as running:
        yield running


def stray_outcomes(scene: Scene, *, days: float = 0, **wishes: bool) -> dict[str, str]:
    """What becomes of strays on all VMs so many days later: action by what it is about."""
    with Ledger(scene.state.ledger) as ledger:
        now = Wishes(time.time() + days * DAY_S, **wishes)
        machines = [scene.machine(number) for number in range(2)]
        outcomes = list(reap_strays(scene.means(ledger), scene.state.locks, machines, now))
    return {f"{o.step.vm_name}: {o.step.what}": o.result for o in outcomes}


def test_a_snapshot_that_no_ledger_knows_goes_only_when_asked_for_and_old(scene: Scene) -> None:
    """The state folder was lost: ours is told, and removed with --orphans after a day."""
    with scene.dying() as ledger:
        effect = scene.intend(ledger, "snapshot")
        scene.our_snapshot(effect)
        scene.user_snapshot(snapshot_name.make_name(effect.number[:-1] + "7"))
        ledger.undone(effect, "the ledger is lost")
    name = scene.machine().name
    ours = f"{name}: remove snapshot {snapshot_name.make_name(effect.number)}"
    users = f"{name}: remove snapshot {snapshot_name.make_name(effect.number[:-1] + '7')}"
    assert stray_outcomes(scene) == {ours: "told", users: "told"}
    assert stray_outcomes(scene, orphans=True) == {ours: "told", users: "told"}
    assert stray_outcomes(scene, days=2) == {ours: "told", users: "told"}
    assert len(scene.tree()) == 2
    assert stray_outcomes(scene, days=2, orphans=True) == {ours: "done", users: "told"}
    assert [name for _, name, _ in scene.tree()] == [users.rpartition(" ")[2]]


def test_a_snapshot_of_a_living_process_is_no_orphan(scene: Scene) -> None:
    """What a run has open now is nobody's to remove, however old it looks."""
    with Ledger(scene.state.ledger) as running:
        scene.our_snapshot(scene.intend(running, "snapshot"))
        assert stray_outcomes(scene, days=2, orphans=True, consolidate=True) == {}


def test_a_vm_on_a_delta_disk_without_snapshot_is_told_and_merged_when_asked(scene: Scene) -> None:
    """The state that nobody notices until the datastore is full."""
    scene.simulator.orphan_delta(scene.vm())
    what = f"{scene.machine().name}: consolidate its disks"
    assert stray_outcomes(scene) == {what: "told"}
    assert scene.machine().consolidation_needed
    assert stray_outcomes(scene, consolidate=True) == {what: "done"}
    assert stray_outcomes(scene) == {}
    assert not scene.machine().disks[0].has_parent


def test_users_snapshots_are_no_strays(scene: Scene) -> None:
    """A VM with snapshots of a user's runs on a delta disk, and that is as it should be."""
    scene.user_snapshot("before the upgrade")
    assert stray_outcomes(scene, days=400, orphans=True, consolidate=True) == {}
    assert len(scene.tree()) == 1
