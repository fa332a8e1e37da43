"""Disks attached to the proxy VM: read as block devices, and detached whatever happens."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from backpoint_agent.errors import Stopped, TransportUnusable
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.settings.model import HotAddSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.transport import attached_disk
from backpoint_agent.transport.choose import choose_transport
from backpoint_agent.transport.hotadd import HotAddTransport
from backpoint_agent.transport.proxy_disks import hex_of
from backpoint_agent.vsphere.tasks import run_task
from backpoint_repo.backup_session import DiskJob
from backpoint_repo.errors import SourceError, UsageError
from backpoint_repo.source.contract import ImageSource
from frozen_vm import DISK_SIZE, FAULT_AT, Trial, frozen, guest_disk, running_trial
from small_repository import assert_clean

DEADLINE_S = 30


@dataclass
class Scene:
    """A trial whose second VM is the proxy."""

    trial: Trial
    ledger: Ledger
    by_id: Path
    proxy: str
    instance: str

    def transport(self, stop: Stop | None = None, **changes: Any) -> HotAddTransport:
        settings = HotAddSettings(proxy=self.instance, by_id=self.by_id, appear_s=10)
        settings = settings.model_copy(update=changes)
        return HotAddTransport(settings, self.trial.vcenter, self.ledger, stop or Stop())

    def attached(self) -> list[str]:
        """Files of the disks that the proxy has and that are not its own."""
        hardware = self.trial.vcenter.object("VirtualMachine", self.proxy).config.hardware
        files = [d.backing.fileName for d in hardware.device if hasattr(d, "capacityInBytes")]
        return [file for file in files if "VM1/" not in file]

    def assert_nothing_left(self) -> None:
        assert self.attached() == []
        assert list(self.by_id.iterdir()) == []
        assert self.ledger.all_open() == []


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(attached_disk, "_PAUSE_S", 0.01)
    by_id = tmp_path / "by-id"
    with (
        running_trial(tmp_path, vms=2, hotadd_folder=by_id) as trial,
        Ledger(tmp_path / "ledger") as ledger,
    ):
        proxy = trial.simulator.vms()[1]
        trial.simulator.proxy(proxy)
        instance = trial.vcenter.object("VirtualMachine", proxy).config.instanceUuid
        yield Scene(trial, ledger, by_id, proxy, instance)


def test_a_full_and_an_incremental(scene: Scene) -> None:
    """Both hold what the disk held at their snapshot, and nothing stays attached."""
    scene.trial.carry_full_and_incremental(scene.transport())
    scene.assert_nothing_left()


def test_a_read_error_makes_no_point(scene: Scene) -> None:
    """The device gives EIO from one place on: no point, and the disk is detached all the same."""
    trial = scene.trial
    trial.simulator.write(trial.vm, 0, random.Random(9).randbytes(DISK_SIZE))
    with frozen(trial.vcenter, trial.vm) as machine:
        disk = machine.disks[0]
        flat = trial.simulator.file(disk.file.replace(".vmdk", "-flat.vmdk"))
        whole = flat.read_bytes()
        with (
            closing(scene.transport().prepare(machine)) as ready,
            trial.repository.begin_backup("web") as session,
        ):
            source = ready.open(disk)
            os.truncate(flat, FAULT_AT)
            with pytest.raises(SourceError, match=r"at offset \d+: Input/output error"):
                session.store_disk(DiskJob(disk.key, source), lambda _: None)
            with pytest.raises(UsageError, match="has failed"):
                session.publish(time=None, label="")
        flat.write_bytes(whole)
    scene.assert_nothing_left()
    assert trial.points() == 0
    assert_clean(trial.repository)


def test_the_disk_is_attached_nonpersistent_and_in_the_ledger(scene: Scene) -> None:
    """While it is attached: the frozen file, by a mode that lets nobody write it, on a free unit;
    the ledger knows device and file; the live disk is not touched."""
    with frozen(scene.trial.vcenter, scene.trial.vm) as machine:
        disk = machine.disks[0]
        with closing(scene.transport().prepare(machine)) as ready:
            assert scene.attached() == []
            ready.open(disk)
            assert scene.attached() == [disk.file]
            hardware = scene.trial.vcenter.object("VirtualMachine", scene.proxy).config.hardware
            disks = [d for d in hardware.device if hasattr(d, "capacityInBytes")]
            (device,) = (d for d in disks if d.backing.fileName == disk.file)
            assert device.backing.diskMode == "independent_nonpersistent"
            (effect,) = scene.ledger.all_open()
            assert (effect.kind, effect.vm) == ("hotadd", scene.trial.vm)
            assert effect.facts == {
                "proxy": scene.proxy,
                "file": disk.file,
                "device_key": str(device.key),
            }
        scene.assert_nothing_left()
        assert scene.trial.simulator.file(disk.file).exists()
        ready.close()
        assert ready.warnings == []


def test_the_ledger_knows_before_vcenter_is_asked(scene: Scene) -> None:
    """While the task hangs, the effect is written down already; a stop takes all of it back."""
    stop = Stop()
    scene.trial.simulator.hang_tasks("ReconfigVM_Task")
    with frozen(scene.trial.vcenter, scene.trial.vm) as machine, ThreadPoolExecutor(1) as pool:
        with closing(scene.transport(stop).prepare(machine)) as ready:
            opening = pool.submit(ready.open, machine.disks[0])
            wait_until(lambda: [e.kind for e in scene.ledger.all_open()] == ["hotadd"])
            stop.request("test")
            assert isinstance(opening.exception(DEADLINE_S), Stopped)
        scene.trial.simulator.release_tasks()
        assert scene.attached() == []
        # Whether the task took effect was not certain then: that is for the reaper to see.
        assert [effect.kind for effect in scene.ledger.all_open()] == ["hotadd"]


def test_two_vms_and_two_disks_at_once(tmp_path: Path) -> None:
    """Each disk gets a unit of its own and is read as itself."""
    by_id = tmp_path / "by-id"
    with (
        running_trial(tmp_path, vms=3, hotadd_folder=by_id) as trial,
        Ledger(tmp_path / "ledger") as ledger,
    ):
        first, proxy, other = trial.simulator.vms()
        trial.simulator.proxy(proxy)
        instance = trial.vcenter.object("VirtualMachine", proxy).config.instanceUuid
        scene = Scene(trial, ledger, by_id, proxy, instance)
        trial.simulator.add_disk(first, guest_disk(tmp_path, 2 << 20, seed=3))
        trial.simulator.attach(other, guest_disk(tmp_path, 3 << 20, seed=4))
        transport = scene.transport()
        together = threading.Barrier(2)

        def carry(vm: str) -> list[tuple[VirtualDisk, bytes]]:
            with (
                frozen(trial.vcenter, vm) as machine,
                closing(transport.prepare(machine)) as ready,
            ):
                together.wait(DEADLINE_S)
                sources = [(disk, ready.open(disk)) for disk in machine.disks]
                together.wait(DEADLINE_S)
                assert len(scene.attached()) == 3
                together.wait(DEADLINE_S)
                return [(disk, content(source)) for disk, source in sources]

        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(carry, [first, other], timeout=DEADLINE_S))
        expected = [
            guest_disk(tmp_path),
            guest_disk(tmp_path, 2 << 20, 3),
            guest_disk(tmp_path, 3 << 20, 4),
        ]
        found = [data for result in results for _, data in result]
        assert found == [image.read_bytes() for image in expected]
        scene.assert_nothing_left()


def content(source: ImageSource) -> bytes:
    buffer = bytearray(source.size)
    source.read_into(0, memoryview(buffer))
    return bytes(buffer)


def test_a_busy_proxy_is_asked_again(scene: Scene) -> None:
    """Somebody else reconfigures it: coming and going both wait."""
    simulator = scene.trial.simulator
    with frozen(scene.trial.vcenter, scene.trial.vm) as machine:
        simulator.fault("ReconfigVM_Task", "TaskInProgress", vm=scene.proxy, count=2)
        with closing(scene.transport().prepare(machine)) as ready:
            assert content(ready.open(machine.disks[0])) == scene.trial.content()
            simulator.fault("ReconfigVM_Task", "TaskInProgress", vm=scene.proxy, count=2)
    scene.assert_nothing_left()
    assert ready.warnings == []


def test_a_refusal_of_vcenter_is_a_reason_for_another_transport(scene: Scene) -> None:
    """The proxy's host does not see the datastore, say: the reason is told, nothing is left."""
    simulator = scene.trial.simulator
    with frozen(scene.trial.vcenter, scene.trial.vm) as machine:
        simulator.fault(
            "ReconfigVM_Task",
            "FileFault",
            vm=scene.proxy,
            message="not accessible",
            count=-1,
            file="x",
        )
        with pytest.raises(TransportUnusable, match=r"hotadd: .*attaching .*not accessible"):
            choose_transport(["hotadd"], [scene.transport()], machine)
    scene.assert_nothing_left()


def test_what_cannot_be_detached_is_told_and_stays_in_the_ledger(scene: Scene) -> None:
    """Closing raises nothing, and the reaper finds it."""
    simulator = scene.trial.simulator
    with frozen(scene.trial.vcenter, scene.trial.vm) as machine:
        ready = scene.transport().prepare(machine)
        ready.open(machine.disks[0])
        simulator.fault(
            "ReconfigVM_Task",
            "GenericVmConfigFault",
            vm=scene.proxy,
            message="stuck",
            count=-1,
            reason="stuck",
        )
        ready.close()
        (warning,) = ready.warnings
        assert "stuck" in warning
        assert "may still be attached" in warning
        (effect,) = scene.ledger.all_open()
        assert effect.facts["file"] == machine.disks[0].file
        assert scene.attached() == [machine.disks[0].file]
        # A next run does not read a device that is there already.
        with pytest.raises(TransportUnusable, match="is attached to the proxy VM"):
            choose_transport(["hotadd"], [scene.transport()], machine)
        simulator.clear()


def test_somebody_elses_disk_is_never_detached(scene: Scene) -> None:
    """Our disk was taken out by hand and another put in its place: that one stays."""
    simulator, proxy = (
        scene.trial.simulator,
        scene.trial.vcenter.object("VirtualMachine", scene.proxy),
    )
    with frozen(scene.trial.vcenter, scene.trial.vm) as machine:
        ready = scene.transport().prepare(machine)
        ready.open(machine.disks[0])
        key = int(scene.ledger.all_open()[0].facts["device_key"])
        device = next(d for d in proxy.config.hardware.device if d.key == key)
        kinds: Any = vim.vm
        change = kinds.device.VirtualDeviceSpec(operation="remove", device=device)
        run_task(
            scene.trial.vcenter,
            "by hand",
            lambda: proxy.ReconfigVM_Task(spec=kinds.ConfigSpec(deviceChange=[change])),
            limit_s=DEADLINE_S,
            stop=None,
        )
        simulator.add_disk(scene.proxy, 1 << 20)
        disks = len(disks_of(proxy))
        ready.close()
        assert ready.warnings == []
        assert len(disks_of(proxy)) == disks
    assert scene.ledger.all_open() == []


def disks_of(machine: Any) -> list[Any]:
    return [d for d in machine.config.hardware.device if hasattr(d, "capacityInBytes")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"proxy": "503d2f25-0000-0000-0000-000000000000"}, "has no VM with the instanceUuid"),
        ({"proxy": "no uuid"}, "hotadd"),
        ({"by_id": Path("/nonexistent/by-id")}, "there is no folder /nonexistent"),
    ],
)
def test_a_wrong_configuration_says_what_to_put_right(
    scene: Scene, changes: dict[str, Any], said: str
) -> None:
    """The proxy must be a VM of this vCenter; the kernel must name disks."""
    with (
        frozen(scene.trial.vcenter, scene.trial.vm) as machine,
        pytest.raises(TransportUnusable, match=said),
    ):
        scene.transport(**changes).prepare(machine)
    assert scene.ledger.all_open() == []


def test_a_proxy_that_is_off_is_not_where_the_agent_runs(scene: Scene) -> None:
    """The configuration names another VM than the one the agent is in."""
    proxy = scene.trial.vcenter.object("VirtualMachine", scene.proxy)
    run_task(scene.trial.vcenter, "off", proxy.PowerOffVM_Task, limit_s=DEADLINE_S, stop=None)
    with (
        frozen(scene.trial.vcenter, scene.trial.vm) as machine,
        pytest.raises(TransportUnusable, match="is poweredOff, so this agent does not run"),
    ):
        scene.transport().prepare(machine)


def test_the_proxy_itself_is_not_read_by_hotadd(scene: Scene) -> None:
    """Its own disk under a snapshot cannot be attached to it."""
    with (
        frozen(scene.trial.vcenter, scene.proxy) as machine,
        pytest.raises(TransportUnusable, match="cannot attach its own disks"),
    ):
        scene.transport().prepare(machine)


def test_a_disk_that_does_not_appear_is_detached(scene: Scene, tmp_path: Path) -> None:
    """The message names the setting that makes the kernel name disks by uuid."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with (
        frozen(scene.trial.vcenter, scene.trial.vm) as machine,
        pytest.raises(TransportUnusable, match=r"did not appear .* disk\.EnableUUID = TRUE"),
    ):
        choose_transport(["hotadd"], [scene.transport(by_id=empty, appear_s=0.1)], machine)
    scene.assert_nothing_left()


def test_a_device_of_another_size_is_not_the_disk(scene: Scene) -> None:
    """What appeared under the name is something else."""
    with frozen(scene.trial.vcenter, scene.trial.vm) as machine:
        disk = replace(machine.disks[0], size=DISK_SIZE + 512)
        with (
            closing(scene.transport(appear_s=0.1).prepare(machine)) as ready,
            pytest.raises(TransportUnusable, match=f"has {DISK_SIZE} bytes"),
        ):
            ready.open(disk)
    scene.assert_nothing_left()


def test_a_name_that_is_there_already_is_not_trusted(scene: Scene) -> None:
    """What an earlier disk left behind would be read instead of ours."""
    with frozen(scene.trial.vcenter, scene.trial.vm) as machine:
        disk = machine.disks[0]
        (scene.by_id / f"scsi-3{hex_of(disk.disk_uuid)}").symlink_to("/dev/null")
        with (
            closing(scene.transport().prepare(machine)) as ready,
            pytest.raises(TransportUnusable, match="is there although no such disk"),
        ):
            ready.open(disk)
    assert scene.attached() == []
    assert scene.ledger.all_open() == []


def wait_until(condition: Callable[[], bool]) -> None:
    """Fail after a while."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        Stop().wait(0.01)
