"""What restores that were cut off leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVmomi import vim

from backpoint_agent.ledger import Ledger
from backpoint_agent.reaping.reap import forget, settle_restore
from reaper_scene import Scene, running_scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with running_scene(tmp_path) as running:
        yield running


def make_unfinished(scene: Scene, name: str, instance: str = "", **settings: str) -> str:
    """A restore makes a VM, of this instanceUuid if it says so; its moref."""
    folder = scene.vcenter.content.searchIndex.FindByInventoryPath("DC0/vm")
    options = [vim.option.OptionValue(key=k, value=v) for k, v in settings.items()]
    spec = vim.vm.ConfigSpec(
        name=name,
        guestId="otherGuest",
        instanceUuid=instance or None,
        files=vim.vm.FileInfo(vmPathName="[LocalDS_0]"),
        extraConfig=options,
    )
    pool = scene.managed().resourcePool
    made = scene.run(lambda: folder.CreateVM_Task(config=spec, pool=pool))
    return str(made._moId)


def test_an_unfinished_restored_vm_is_deleted(scene: Scene) -> None:
    """One whose moref is known by that, one that carries our mark by the mark, and no other."""
    with scene.dying() as ledger:
        known = scene.intend(ledger, "restored-machine", name="known", folder="DC0/vm")
        ledger.learned(known, {"moref": make_unfinished(scene, "known")})
        marked = scene.intend(ledger, "restored-machine", name="marked", folder="DC0/vm")
        make_unfinished(scene, "marked", **{"backpoint.restore": marked.number})
        scene.intend(ledger, "restored-machine", name="somebodys", folder="DC0/vm")
        make_unfinished(scene, "somebodys", **{"backpoint.restore": known.number})
        scene.intend(ledger, "restored-machine", name="never made", folder="DC0/vm")
    results = {outcome.step.what: outcome.result for outcome in scene.reap()}
    assert results == {
        "delete the VM DC0/vm/known": "done",
        "delete the VM DC0/vm/marked": "done",
        "the VM being restored stays in the ledger": "kept",
        "nothing to undo of the VM being restored": "done",
    }
    names = {scene.machine(number).name for number in range(len(scene.simulator.vms()))}
    assert "somebodys" in names
    assert not names & {"known", "marked"}


def test_an_unfinished_restored_vm_is_found_by_the_uuid_that_was_chosen(scene: Scene) -> None:
    """Wherever it is; where it was renamed it is kept, and nothing else is taken for it."""
    chosen = "52f0f0f0-0000-1111-2222-333344445555"
    with scene.dying() as ledger:
        facts = {"name": "new", "folder": "DC0/vm", "instance": chosen}
        effect = scene.intend(ledger, "restored-machine", 0, **facts)
    make_unfinished(scene, "new")
    mark = {"backpoint.restore": effect.number}
    moref = make_unfinished(scene, "other", chosen, **mark)
    (outcome,) = scene.reap()
    assert outcome.result == "kept"
    assert "DC0/vm/other" in outcome.said
    scene.run(scene.vcenter.object("VirtualMachine", scene.vm(2)).Destroy_Task)
    made = scene.vcenter.object("VirtualMachine", moref)
    scene.run(lambda: made.ReconfigVM_Task(spec=vim.vm.ConfigSpec(name="new")))
    (outcome,) = scene.reap()
    assert (outcome.result, outcome.step.vm) == ("done", moref)
    assert moref not in scene.simulator.vms()


def test_a_restored_vm_that_somebody_uses_is_kept(scene: Scene) -> None:
    """Renamed or powered on it is not ours to delete any more."""
    with scene.dying() as ledger:
        for name in ("renamed", "started"):
            effect = scene.intend(ledger, "restored-machine", name=name, folder="DC0/vm")
            ledger.learned(effect, {"moref": make_unfinished(scene, name)})
    renamed, started = (
        scene.vcenter.object("VirtualMachine", m) for m in scene.simulator.vms()[2:]
    )
    scene.run(lambda: renamed.ReconfigVM_Task(spec=vim.vm.ConfigSpec(name="production")))
    scene.run(started.PowerOnVM_Task)
    scene.simulator.forget_calls()
    assert [outcome.result for outcome in scene.reap()] == ["kept", "kept"]
    assert scene.acts() == []


def test_a_half_done_restore_is_an_alarm_until_one_finishes(scene: Scene) -> None:
    """Nothing can be undone; a restore that finishes, or a user's word, closes it."""
    with scene.dying() as ledger:
        for number in range(2):
            scene.intend(ledger, "restore-over", number)
    assert [outcome.result for outcome in scene.reap()] == ["kept", "kept"]
    with Ledger(scene.state.ledger) as ledger:
        settle_restore(ledger, scene.vcenter.uuid, scene.vm(0))
        (left,) = ledger.open_effects()
        assert left.vm == scene.vm(1)
        assert forget(ledger, left.number)
        assert forget(ledger, left.number) is None
    assert scene.reap() == []
