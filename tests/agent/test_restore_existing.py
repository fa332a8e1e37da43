"""A point goes over an existing VM: only what differs, only where it is safe, never unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVmomi import vim

from backpoint_agent.errors import MachineUnfit, Stopped
from backpoint_agent.reaping.look import RESTORE_MARK
from backpoint_agent.restoring.difference import GRAIN
from backpoint_agent.restoring.sides import Way
from backpoint_repo.errors import TargetError, UsageError
from stored_vm import Notes, Scene, running_scene, with_vddk
from vddk_writable import bytes_written

CHANGED = (GRAIN - 10, 3 * GRAIN + 5, (8 << 20) + 7, (15 << 20))
"""Where the guest writes after the point: five grains, for the first write crosses a border; some
where the point has data, some where it has a hole."""


@pytest.fixture
def scene(tmp_path: Path, guest_image: Path) -> Iterator[Scene]:
    """The VM is off, tracks changes, and five grains of its first disk differ from the point."""
    with running_scene(tmp_path, guest_image) as scene:
        vm = scene.vm.machine.moref
        spec = vim.vm.ConfigSpec(changeTrackingEnabled=True)
        scene.run(vm, "ReconfigVM_Task", spec)
        scene.run(vm, "PowerOffVM_Task")
        for offset in CHANGED:
            scene.simulator.write(vm, offset, b"written since")
        yield scene


def moref(scene: Scene) -> str:
    return scene.vm.machine.moref


def images(scene: Scene) -> list[bytes]:
    return list(scene.vm.images.values())


def mark(scene: Scene) -> str:
    """The last value of the mark in the VM's settings."""
    values = [o.value for o in scene.config(moref(scene)).extraConfig if o.key == RESTORE_MARK]
    return str(values[-1]) if values else ""


def differing(scene: Scene) -> int:
    """Bytes of all grains in which the first disk is not as in the point, by a plain compare."""
    there, wanted = scene.disk_bytes(moref(scene))[0], images(scene)[0]
    starts = range(0, len(wanted), GRAIN)
    return sum(GRAIN for at in starts if there[at : at + GRAIN] != wanted[at : at + GRAIN])


@pytest.mark.parametrize("way", ["datastore", "https", "vddk"])
def test_the_disks_become_the_points(
    scene: Scene, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every way; change tracking is off afterwards, no mark stays, the ledger is closed."""
    if way == "vddk":
        with_vddk(scene, monkeypatch)
    restored = scene.write_over(way, verify=True)
    assert scene.disk_bytes(moref(scene)) == images(scene)
    assert scene.config(moref(scene)).changeTrackingEnabled is False
    assert mark(scene) == ""
    assert scene.open_effects() == []
    assert [disk.differing for disk in restored.disks] == [5 * GRAIN, 0]


def test_only_what_differs_is_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that takes the writes counts as many bytes as a plain compare finds, and nothing
    when it is done again."""
    written = with_vddk(scene, monkeypatch)
    expected = differing(scene)
    assert expected == 5 * GRAIN
    scene.write_over("vddk")
    assert bytes_written(written) == expected
    again = scene.write_over("vddk")
    assert [disk.written for disk in again.disks] == [0, 0]
    assert bytes_written(written) == expected


def test_https_writes_a_differing_disk_whole_and_says_so(scene: Scene) -> None:
    """A PUT has no ranges; a disk that does not differ is left alone."""
    scene.simulator.forget_calls()
    restored = scene.write_over("https")
    assert [disk.written for disk in restored.disks] == [len(images(scene)[0]), 0]
    assert len([call for call in scene.simulator.calls() if call.method == "PUT /folder"]) == 1
    assert any("written whole" in said for said in scene.notes.said)


def test_a_dry_run_compares_and_changes_nothing(scene: Scene) -> None:
    """It says per disk how many bytes differ; nothing reaches disks, settings or the ledger."""
    before = scene.disk_bytes(moref(scene))
    restored = scene.write_over("datastore", dry_run=True)
    assert [disk.differing for disk in restored.disks] == [differing(scene), 0]
    assert [disk.written for disk in restored.disks] == [0, 0]
    assert scene.disk_bytes(moref(scene)) == before
    assert scene.config(moref(scene)).changeTrackingEnabled is True
    assert scene.open_effects() == []


def test_one_disk_alone(scene: Scene) -> None:
    """What was not asked for stays as it is."""
    second = list(scene.vm.images)[1]
    before = scene.disk_bytes(moref(scene))[0]
    scene.simulator.write(moref(scene), 5, b"written since", scene.vm.machine.disks[1].device_key)
    scene.write_over("datastore", disks=[second])
    assert scene.disk_bytes(moref(scene)) == [before, images(scene)[1]]


def test_a_running_vm_is_refused(scene: Scene) -> None:
    """Its guest would write on top."""
    scene.run(moref(scene), "PowerOnVM_Task")
    with pytest.raises(MachineUnfit, match="is poweredOn: shut it down"):
        scene.write_over("datastore")


def test_a_vm_with_snapshots_is_refused(scene: Scene) -> None:
    """Writing below a snapshot would change it."""
    scene.run(moref(scene), "CreateSnapshot_Task", "mine", "", False, False)
    with pytest.raises(MachineUnfit, match="has snapshots: remove them"):
        scene.write_over("datastore")


def test_a_template_is_refused(scene: Scene) -> None:
    """vCenter would refuse to change it, in words of its own."""
    scene.vcenter.object("VirtualMachine", moref(scene)).MarkAsTemplate()
    with pytest.raises(MachineUnfit, match="is a template"):
        scene.write_over("datastore")


def test_disks_that_do_not_match_are_all_listed(scene: Scene) -> None:
    """A disk that grew and one that is gone are both named, and nothing is written."""
    first, second = (disk.device_key for disk in scene.vm.machine.disks)
    scene.simulator.extend(moref(scene), 32 << 20, first)
    scene.simulator.remove_disk(moref(scene), second)
    with pytest.raises(UsageError) as caught:
        scene.write_over("datastore")
    assert f"disk-{first} at scsi0:0: the VM's has {32 << 20} bytes" in str(caught.value)
    assert f"disk-{second} at scsi0:1: the VM has no disk there" in str(caught.value)
    assert scene.open_effects() == []


def test_another_vm_with_such_disks_can_be_named(scene: Scene) -> None:
    """A copy takes the point as the original does."""
    copy = scene.make("datastore").machine
    scene.simulator.write(copy.moref, 0, b"changed", copy.disks[0].device_key)
    scene.write_over("datastore", moref=copy.moref)
    assert scene.disk_bytes(copy.moref) == images(scene)


def test_a_break_off_is_marked_and_completed_by_another_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage fails from the second megabyte on: the error, the ledger and the VM's own settings
    say that it is half done; the next run makes it whole and clears all three."""
    with_vddk(scene, monkeypatch)
    monkeypatch.setenv("VDDK_STAND_IN_FAIL_BEHIND", str(1 << 20))
    with pytest.raises(TargetError, match="do not power it on, run the same restore again"):
        scene.write_over("vddk")
    assert differing(scene) == 2 * GRAIN
    (effect,) = scene.open_effects()
    assert (effect.kind, effect.vm) == ("restore-over", moref(scene))
    assert mark(scene) == effect.number
    assert scene.config(moref(scene)).changeTrackingEnabled is False
    assert [outcome.result for outcome in scene.reap()] == ["kept"]
    scene.write_over("datastore")
    assert scene.disk_bytes(moref(scene)) == images(scene)
    assert scene.open_effects() == []
    assert mark(scene) == ""


def test_a_stop_before_the_first_write_leaves_nothing_behind(scene: Scene) -> None:
    """While it only compared, nothing needs to be told."""
    scene.notes = Notes(lambda: scene.stop.request("the test says so"))
    before = scene.disk_bytes(moref(scene))
    with pytest.raises(Stopped) as caught:
        scene.write_over("datastore")
    assert "power it on" not in str(caught.value)
    assert scene.disk_bytes(moref(scene)) == before
    assert scene.open_effects() == []
    assert mark(scene) == ""
