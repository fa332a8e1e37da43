"""The reaper against a vCenter: exactly what a dead run of ours left behind goes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_agent import snapshot_name
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine_lock import machine_lock
from backpoint_agent.reaping.reap import (
    reap_effects,
    show_effects,
)
from backpoint_agent.settings.model import (
    GuestLogin,
    Job,
    QuiesceSettings,
    ScriptSettings,
    SecretSettings,
    Selection,
)
from backpoint_agent.stopping import Stop
from dying_run import STEPS, attach
from frozen_vm import logged_in
from reaper_scene import LIMIT_S, Scene, running_scene

DAY_S = 86_400.0
TESTS = Path(__file__).parents[1]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with running_scene(tmp_path) as running:
        yield running


def test_our_snapshot_goes_and_users_stay(scene: Scene) -> None:
    """Ours lies between two of a user's; after the reaper theirs are as they were, ours is gone."""
    below = scene.user_snapshot("before the upgrade")
    ours = scene.leave_snapshot()
    above = scene.user_snapshot("after the upgrade")
    (outcome,) = scene.reap()
    assert (outcome.result, outcome.step.certainty) == ("done", "certain")
    assert outcome.step.target == ours
    assert scene.tree() == [(below, "before the upgrade", 0), (above, "after the upgrade", 1)]
    assert scene.open() == []


def test_a_snapshot_whose_moref_never_became_known_is_found_by_its_number(scene: Scene) -> None:
    """The crash came between asking and learning: the name alone finds it."""
    scene.user_snapshot("backpoint-test")
    scene.leave_snapshot(learned=False)
    (outcome,) = scene.reap()
    assert (outcome.result, outcome.step.certainty) == ("done", "by name")
    assert [name for _, name, _ in scene.tree()] == ["backpoint-test"]


def test_a_snapshot_that_was_renamed_is_somebodys(scene: Scene) -> None:
    """A user who renames our snapshot keeps it; the effect stays open and says so."""
    with scene.dying() as ledger:
        effect = scene.intend(ledger, "snapshot")
        ledger.learned(effect, {"moref": scene.our_snapshot(effect, name="keep this")})
    (outcome,) = scene.reap()
    assert outcome.result == "kept"
    assert "keep this" in outcome.said
    assert [name for _, name, _ in scene.tree()] == ["keep this"]
    assert len(scene.open()) == 1


def test_a_copy_of_our_snapshot_is_not_touched(scene: Scene) -> None:
    """A snapshot of our name that is not the one made is told, and stays."""
    with scene.dying() as ledger:
        effect = scene.intend(ledger, "snapshot")
        copy = scene.our_snapshot(effect)
        ledger.learned(effect, {"moref": "snapshot-9999"})
    (outcome,) = scene.reap()
    assert outcome.result == "kept"
    assert copy in outcome.said
    assert [moref for moref, _, _ in scene.tree()] == [copy]


def test_the_same_name_on_another_vm_is_not_touched(scene: Scene) -> None:
    """A clone may carry our snapshot's name: only the ledger's VM is dealt with."""
    with scene.dying() as ledger:
        effect = scene.intend(ledger, "snapshot")
        ledger.learned(effect, {"moref": scene.our_snapshot(effect)})
        copy = scene.our_snapshot(effect, 1)
    (outcome,) = scene.reap()
    assert outcome.result == "done"
    assert scene.tree(0) == []
    assert [moref for moref, _, _ in scene.tree(1)] == [copy]


def test_a_snapshot_that_is_still_being_made_is_waited_for(scene: Scene) -> None:
    """The dead run's task goes on in vCenter: it is waited for, then its snapshot removed."""
    scene.simulator.slow_tasks("CreateSnapshot_Task", 1.0)
    with scene.dying() as ledger:
        effect = scene.intend(ledger, "snapshot")
        name = snapshot_name.make_name(effect.number)
        scene.managed().CreateSnapshot_Task(name, "", False, False)
    (outcome,) = scene.reap()
    assert outcome.result == "done"
    assert outcome.step.action == "remove-snapshot"
    assert scene.tree() == []
    assert scene.open() == []


def test_disks_that_our_snapshot_left_unmerged_are_consolidated(scene: Scene) -> None:
    """The snapshot is gone and its delta disks are not: they are merged, then the effect closes."""
    ours = scene.leave_snapshot()
    managed = scene.vcenter.object("VirtualMachineSnapshot", ours)
    scene.run(lambda: managed.RemoveSnapshot_Task(removeChildren=False, consolidate=False))
    assert scene.machine().consolidation_needed
    scene.simulator.fault("ConsolidateVMDisks_Task", "FileLocked")
    (failed,) = scene.reap()
    assert failed.result == "failed"
    assert len(scene.open()) == 1
    (outcome,) = scene.reap()
    assert (outcome.result, outcome.step.action) == ("done", "consolidate")
    assert not scene.machine().consolidation_needed
    assert scene.open() == []


def test_what_is_not_there_any_more_is_closed(scene: Scene) -> None:
    """Somebody has removed the snapshot, somebody else the VM: nothing is left to do."""
    with scene.dying() as ledger:
        scene.intend(ledger, "snapshot")
        scene.intend(ledger, "change-tracking", 1)
        scene.intend(ledger, "snapshot", 1)
    scene.run(scene.managed(1).PowerOffVM_Task)
    scene.run(scene.managed(1).Destroy_Task)
    outcomes = scene.reap()
    assert [outcome.result for outcome in outcomes] == ["done"] * 3
    assert [outcome.said for outcome in outcomes].count("the VM is gone") == 2
    assert scene.open() == []


def test_one_vm_that_fails_does_not_stop_the_others(scene: Scene) -> None:
    """vCenter refuses one removal: the other VM is cleared all the same, the first stays open."""
    for number in range(2):
        scene.leave_snapshot(number)
    scene.simulator.fault("RemoveSnapshot_Task", "FileLocked", vm=scene.vm(0))
    outcomes = scene.reap()
    assert sorted(outcome.result for outcome in outcomes) == ["done", "failed"]
    assert [effect.vm for effect in scene.open()] == [scene.vm(0)]
    assert (len(scene.tree(0)), len(scene.tree(1))) == (1, 0)


def test_an_attached_disk_is_detached_before_its_snapshot_goes(scene: Scene) -> None:
    """The proxy loses the disk and nothing else, the file stays, and the snapshot goes after it."""
    own = [disk.device_key for disk in scene.machine(1).disks]
    with scene.dying() as ledger:
        snapshot = scene.intend(ledger, "snapshot")
        file = scene.machine().disks[0].file
        ledger.learned(snapshot, {"moref": scene.our_snapshot(snapshot)})
        scene.intend(ledger, "hotadd", proxy=scene.vm(1), file=file)
    attach(scene.vcenter, scene.vm(1), file)
    assert file in [disk.file for disk in scene.machine(1).disks]
    scene.simulator.forget_calls()
    outcomes = scene.reap()
    assert [outcome.step.action for outcome in outcomes] == ["detach", "remove-snapshot"]
    assert {outcome.result for outcome in outcomes} == {"done"}
    assert [disk.device_key for disk in scene.machine(1).disks] == own
    acts = [act for act in scene.acts() if act.endswith("_Task")]
    assert acts == ["ReconfigVM_Task", "RemoveSnapshot_Task"]
    assert scene.simulator.live_disk(scene.vm()).exists()


def test_an_export_lease_is_aborted(scene: Scene) -> None:
    """A lease that a dead run holds is given back, and one that is gone is closed."""
    scene.run(scene.managed().PowerOffVM_Task)
    lease = scene.managed().ExportVm()
    with scene.dying() as ledger:
        ledger.learned(scene.intend(ledger, "export-lease"), {"moref": lease._moId})
        scene.intend(ledger, "export-lease", moref="session[1]lease-gone")
        scene.intend(ledger, "export-lease")
    outcomes = scene.reap()
    assert [outcome.step.action for outcome in outcomes] == ["abort-lease", "close", "close"]
    assert {outcome.result for outcome in outcomes} == {"done"}
    assert scene.open() == []


def test_change_tracking_is_switched_on_again(scene: Scene) -> None:
    """A run died while it had it off."""
    with scene.dying() as ledger:
        scene.intend(ledger, "change-tracking")
    assert not scene.machine().change_tracking
    (outcome,) = scene.reap()
    assert outcome.result == "done"
    assert scene.machine().change_tracking


def thawing_job(scene: Scene, folder: Path, program: str) -> Job:
    """A job that can log in to the guest."""
    secret = folder / "guest-password"
    secret.write_text("Guest-secret-1\n")
    secret.chmod(0o600)
    scene.simulator.guest(scene.vm(), user="backup", password="Guest-secret-1")
    return Job(
        select=Selection(everything=True),
        quiesce=QuiesceSettings(
            guest=GuestLogin(user="backup", password=SecretSettings(file=secret)),
            pre_freeze=ScriptSettings(program="/freeze"),
            post_thaw=ScriptSettings(program=program),
        ),
    )


def test_a_frozen_guest_is_thawed(scene: Scene, tmp_path: Path) -> None:
    """The post-thaw script runs in the guest, with the arguments that the ledger has."""
    with scene.dying() as ledger:
        scene.intend(ledger, "freeze", program="/thaw", arguments="--all")
    scene.simulator.forget_calls()
    (outcome,) = scene.reap(night=thawing_job(scene, tmp_path, "/thaw"))
    assert outcome.result == "done"
    programs = [c.detail for c in scene.simulator.calls() if c.method == "guest program"]
    assert programs == ["/thaw --all"]


def test_a_guest_that_cannot_be_thawed_is_an_alarm(scene: Scene, tmp_path: Path) -> None:
    """No login, or a script that fails: the effect stays open, and says that it may be frozen."""
    with scene.dying() as ledger:
        scene.intend(ledger, "freeze", program="/thaw")
    (outcome,) = scene.reap()
    assert outcome.result == "failed"
    assert "may be frozen" in outcome.said
    scene.simulator.guest_program(scene.vm(), "/thaw", exit_code=3)
    (outcome,) = scene.reap(night=thawing_job(scene, tmp_path, "/thaw"))
    assert outcome.result == "failed"
    assert len(scene.open()) == 1


def test_showing_changes_nothing(scene: Scene) -> None:
    """A dry run plans the same and calls no method that has an effect."""
    scene.leave_snapshot()
    with scene.dying() as ledger:
        scene.intend(ledger, "change-tracking", 1)
    before = scene.tree()
    scene.simulator.forget_calls()
    with Ledger(scene.state.ledger) as ledger:
        planned = [outcome.step for outcome in show_effects(scene.means(ledger))]
    assert scene.acts() == []
    assert scene.tree() == before
    assert [outcome.step for outcome in scene.reap()] == planned


def test_two_reapers_at_once_remove_once(scene: Scene) -> None:
    """Both end, one alone asks vCenter to remove, and nothing is left."""
    scene.leave_snapshot()
    scene.simulator.forget_calls()
    at_once = threading.Barrier(2)

    def reap() -> None:
        with Ledger(scene.state.ledger) as ledger:
            at_once.wait(LIMIT_S)
            list(reap_effects(scene.means(ledger), scene.state.locks))

    threads = [threading.Thread(target=reap) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert scene.acts().count("RemoveSnapshot_Task") == 1
    assert scene.tree() == []
    assert scene.open() == []


def test_a_vm_that_is_being_worked_on_is_left_alone(scene: Scene) -> None:
    """Who holds the VM's lock clears up itself: the reaper keeps off and says who it is."""
    scene.leave_snapshot()
    machine = scene.machine()
    with machine_lock(
        scene.state.locks, machine.identity, machine.name, "backup", limit_s=0, stop=Stop()
    ):
        (outcome,) = scene.reap()
        assert outcome.result == "kept"
        assert "backup" in outcome.said
        assert len(scene.tree()) == 1
        (outcome,) = scene.reap_before()
        assert outcome.result == "done"
    assert scene.tree() == []


def test_before_a_run_only_its_own_vm_is_cleared(scene: Scene) -> None:
    """The short form leaves other VMs to whoever works on them."""
    for number in range(2):
        scene.leave_snapshot(number)
    (outcome,) = scene.reap_before(1)
    assert outcome.result == "done"
    assert (len(scene.tree(0)), len(scene.tree(1))) == (1, 0)


def test_while_vcenter_is_down_all_stays_open(scene: Scene) -> None:
    """Nothing is closed for want of an answer; when it is back, all is done."""
    scene.leave_snapshot()
    with scene.dying() as ledger:
        scene.intend(ledger, "restore-over", 1)
    impatient = scene.account.model_copy(update={"request_limit_s": 1})
    with logged_in(impatient) as vcenter, Ledger(scene.state.ledger) as ledger:
        scene.simulator.drop_connections(-1)
        means = dataclasses.replace(scene.means(ledger), vcenter=vcenter)
        outcomes = list(reap_effects(means, scene.state.locks))
    assert [outcome.result for outcome in outcomes] == ["kept", "kept"]
    scene.simulator.clear()
    assert [outcome.result for outcome in scene.reap()] == ["done", "kept"]


@pytest.mark.parametrize("step", STEPS)
def test_after_a_kill_at_any_step_exactly_ours_is_removed(scene: Scene, step: str) -> None:
    """A run is killed; users' snapshots and the proxy's disks are as they were before it."""
    users = [scene.user_snapshot("before"), scene.user_snapshot("between")]
    tree, disks = scene.tree(), [disk.file for disk in scene.machine(1).disks]
    died = subprocess.run(
        [
            *(sys.executable, TESTS / "dying_run.py", step, scene.state.path),
            *(scene.account.model_dump_json(), scene.vm(0), scene.vm(1)),
        ],
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert died.returncode == -signal.SIGKILL
    assert scene.open()
    assert {outcome.result for outcome in scene.reap()} == {"done"}
    assert scene.tree() == tree
    assert [moref for moref, _, _ in scene.tree()] == users
    assert [disk.file for disk in scene.machine(1).disks] == disks
    assert scene.open() == []
