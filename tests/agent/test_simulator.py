"""The simulator measures the agent, so its disks, snapshots and changed blocks are shown to be so.

See also the other `test_simulator_*`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from vcsim import Simulator, SimulatorError, running_simulator
from vcsim.client import (
    Client,
    change_id,
    changes,
    connected,
    covers,
    disks,
    done,
    drop,
    flat,
    snapshot,
    track,
)

MIB = 1 << 20
UNIT = 64 << 10


@pytest.fixture
def client(simulator: Simulator) -> Iterator[Client]:
    with connected(simulator) as session:
        yield session


def test_full_and_incremental(client: Client, guest_image: Path) -> None:
    """A full by allocated areas and an incremental by changed areas give the disk of each time."""
    simulator, vm = client.simulator, client.vm()
    live = simulator.attach(vm._moId, guest_image)
    track(vm)
    first = snapshot(vm)
    disk = disks(first.config)[0]
    assert disk.capacityInBytes == guest_image.stat().st_size
    simulator.write(vm._moId, 5 * MIB, b"written after the snapshot")
    areas, _ = changes(vm, first, "*")
    assert 0 < sum(length for _, length in areas) < disk.capacityInBytes
    copy = bytearray(disk.capacityInBytes)
    for start, length in areas:
        copy[start : start + length] = client.read(flat(disk), start, length).data
    assert bytes(copy) == guest_image.read_bytes()
    since = change_id(first)
    drop(first)
    assert vm.snapshot is None
    assert simulator.live_disk(vm._moId) == live

    for at in range(10):
        simulator.write(vm._moId, 8 * MIB + at * 3 * UNIT, os.urandom(100))
    second = snapshot(vm)
    simulator.area_cap(4)
    areas, answers = changes(vm, second, since)
    assert len(areas) == 11
    assert answers == 3
    for start, length in areas:
        copy[start : start + length] = client.read(flat(disk), start, length).data
    assert bytes(copy) == simulator.live_disk(vm._moId).read_bytes()


def test_nested_snapshots(client: Client, guest_image: Path) -> None:
    """Snapshots of different times keep their content, whichever is removed first."""
    simulator, vm = client.simulator, client.vm()
    simulator.attach(vm._moId, guest_image)
    first = snapshot(vm)
    simulator.write(vm._moId, MIB, b"second")
    second = snapshot(vm)
    simulator.write(vm._moId, MIB, b"third!")
    assert client.read(flat(disks(second.config)[0]), MIB, 6).data == b"second"
    drop(first)
    assert vm.snapshot.currentSnapshot._moId == second._moId
    assert client.read(flat(disks(second.config)[0]), MIB, 6).data == b"second"
    drop(second)
    assert vm.snapshot is None
    assert disks(vm.config)[0].backing.parent is None
    assert simulator.live_disk(vm._moId).read_bytes()[MIB : MIB + 6] == b"third!"


def test_revert(client: Client, guest_image: Path) -> None:
    """Reverting gives the disk its old content again, and the snapshot stays."""
    simulator, vm = client.simulator, client.vm()
    simulator.attach(vm._moId, guest_image)
    point = snapshot(vm)
    simulator.write(vm._moId, 0, b"changed")
    done(point.RevertToSnapshot_Task())
    assert simulator.live_disk(vm._moId).read_bytes() == guest_image.read_bytes()
    assert vm.snapshot.currentSnapshot._moId == point._moId
    drop(point)
    assert simulator.live_disk(vm._moId).read_bytes() == guest_image.read_bytes()


@pytest.mark.parametrize("how", ["consolidate=False", "leave_delta", "orphan_delta"])
def test_consolidation(client: Client, how: str) -> None:
    """A delta without a snapshot is shown as such, and merged by a consolidation."""
    simulator, vm = client.simulator, client.vm()
    if how == "orphan_delta":
        simulator.orphan_delta(vm._moId)
    else:
        if how == "leave_delta":
            simulator.leave_delta(vm._moId)
        point = snapshot(vm)
        done(point.RemoveSnapshot_Task(False, how == "leave_delta"))
    simulator.write(vm._moId, 0, b"on the delta")
    assert vm.snapshot is None
    assert vm.runtime.consolidationNeeded
    assert disks(vm.config)[0].backing.parent is not None
    done(vm.ConsolidateVMDisks_Task())
    assert not vm.runtime.consolidationNeeded
    assert disks(vm.config)[0].backing.parent is None
    assert simulator.live_disk(vm._moId).read_bytes().startswith(b"on the delta")


def test_changes_refused(client: Client) -> None:
    """Offsets at the end, unknown keys and ids, and snapshots from before tracking are faults."""
    vm = client.vm()
    before = snapshot(vm)
    key = disks(before.config)[0].key
    with pytest.raises(vim.fault.FileFault):
        vm.QueryChangedDiskAreas(before, key, 0, "*")
    track(vm)
    point = snapshot(vm)
    for disk, offset in ((key, MIB), (key, -1), (99, 0)):
        with pytest.raises(vmodl.fault.InvalidArgument):
            vm.QueryChangedDiskAreas(point, disk, offset, "*")
    for since in ("52 de/1", change_id(point).rsplit("/", 1)[0] + "/99", "nonsense"):
        with pytest.raises(vim.fault.FileFault):
            vm.QueryChangedDiskAreas(point, key, 0, since)


@pytest.mark.parametrize("how", ["reset", "crash", "revert", "relocate", "off and on"])
def test_tracking_lost(tmp_path: Path, how: str) -> None:
    """What loses tracking makes a new epoch in which the old changeId is a FileFault."""
    with (
        running_simulator(tmp_path / "two-stores", datastores=2) as simulator,
        connected(simulator) as client,
    ):
        vm = client.vm()
        track(vm)
        first = snapshot(vm)
        since = change_id(first)
        if how == "reset":
            simulator.reset_cbt(vm._moId)
        elif how == "crash":
            simulator.crash(vm._moId)
            assert vm.runtime.powerState == "poweredOff"
        elif how == "revert":
            done(first.RevertToSnapshot_Task())
        elif how == "relocate":
            mine = vm.datastore[0]._moId
            other = next(d for d in client.datacenter.datastore if d._moId != mine)
            done(vm.RelocateVM_Task(vim.vm.RelocateSpec(datastore=other)))
        else:
            done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=False)))
            track(vm)
        second = snapshot(vm)
        assert change_id(second).split("/")[0] != since.split("/")[0]
        with pytest.raises(vim.fault.FileFault):
            changes(vm, second, since)
        changes(vm, second, "*")


def test_lies(client: Client, guest_image: Path) -> None:
    """A lie hides the changes made before the next snapshot, and only those."""
    simulator, vm = client.simulator, client.vm()
    simulator.attach(vm._moId, guest_image)
    track(vm)
    first = snapshot(vm)
    ids = [change_id(first)]
    drop(first)
    simulator.lie(vm._moId, 8 * MIB, UNIT)
    simulator.write(vm._moId, 8 * MIB, b"hidden")
    simulator.write(vm._moId, 9 * MIB, b"seen")
    second = snapshot(vm)
    ids.append(change_id(second))
    areas, _ = changes(vm, second, ids[0])
    assert covers(areas, 9 * MIB, 4)
    assert not covers(areas, 8 * MIB, 6)
    assert covers(changes(vm, second, "*")[0], 8 * MIB, 6)
    drop(second)
    simulator.write(vm._moId, 8 * MIB, b"honest")
    third = snapshot(vm)
    assert covers(changes(vm, third, ids[1])[0], 8 * MIB, 6)
    simulator.lie(vm._moId, 8 * MIB, UNIT, allocated=True)
    assert not covers(changes(vm, third, "*")[0], 8 * MIB, 6)


def test_forms_of_answers(client: Client, guest_image: Path) -> None:
    """Areas may be unaligned, of another granularity, or include what did not change."""
    simulator, vm = client.simulator, client.vm()
    simulator.attach(vm._moId, guest_image)
    track(vm)
    first = snapshot(vm)
    since = change_id(first)
    drop(first)
    offsets = [3 * MIB + 512, 9 * MIB + 7 * 512, 12 * MIB - 512]
    for offset in offsets:
        simulator.write(vm._moId, offset, os.urandom(512))
    point = snapshot(vm)
    simulator.granularity(MIB)
    areas, _ = changes(vm, point, since)
    assert areas == [(3 * MIB, MIB), (9 * MIB, MIB), (11 * MIB, MIB)]
    simulator.granularity(UNIT, unaligned=True)
    areas, _ = changes(vm, point, since)
    assert all(covers(areas, offset, 512) for offset in offsets)
    assert any(start % UNIT for start, _ in areas)
    assert all(start % 512 == length % 512 == 0 for start, length in areas)
    simulator.granularity(UNIT)
    simulator.false_positives(16)
    areas, _ = changes(vm, point, since)
    assert all(covers(areas, offset, 512) for offset in offsets)
    assert len(areas) > 10


WRONG: dict[str, Callable[[Any], bool]] = {
    "discontinuous": lambda a: a.startOffset != 0,
    "zero": lambda a: a.length == 0,
    "negative": lambda a: a.length < 0,
    "short": lambda a: 0 < a.length < MIB,
    "endless": lambda a: a.length == 512,
    "beyond": lambda a: any(x.start >= MIB for x in a.changedArea),
    "outside": lambda a: any(x.start >= a.startOffset + a.length for x in a.changedArea),
    "overlap": lambda a: sum(x.length for x in a.changedArea) > a.length,
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_areas(client: Client, kind: str) -> None:
    """Each kind of wrong answer is wrong in its way, when it is asked for."""
    vm = client.vm()
    track(vm)
    point = snapshot(vm)
    key = disks(point.config)[0].key
    client.simulator.wrong_areas(kind, after=1)
    assert vm.QueryChangedDiskAreas(point, key, 0, "*").length == MIB
    assert WRONG[kind](vm.QueryChangedDiskAreas(point, key, 0, "*"))


def test_disks_of_all_kinds(client: Client, guest_image: Path) -> None:
    """Disks that can be backed up, and those that cannot, look as in vSphere; each has identity."""
    simulator, vm = client.simulator, client.vm()
    add = simulator.add_disk
    copy = add(vm._moId, guest_image)
    independent = add(vm._moId, MIB, mode="independent_persistent")
    raw = add(vm._moId, MIB, kind="rdm-physical")
    writers = add(vm._moId, MIB, sharing="multiwriter")
    bus = add(vm._moId, MIB, sharing="bus")
    secret = add(vm._moId, MIB, encrypted=True)
    by_key = {d.key: d for d in disks(vm.config)}
    assert len(by_key) == 7
    assert simulator.live_disk(vm._moId, copy).read_bytes() == guest_image.read_bytes()
    assert by_key[independent].backing.diskMode == "independent_persistent"
    assert by_key[raw].backing.compatibilityMode == "physicalMode"
    assert by_key[writers].backing.sharing == "sharingMultiWriter"
    assert by_key[secret].backing.keyId.keyId
    controllers = {d.key: d for d in vm.config.hardware.device}
    assert controllers[by_key[bus].controllerKey].sharedBus == "physicalSharing"
    assert len({d.backing.uuid for d in by_key.values()}) == 7
    assert len({d.diskObjectId for d in by_key.values()}) == 7
    point = snapshot(vm)
    frozen = {d.key: d for d in disks(point.config)}
    now = {d.key: d for d in disks(vm.config)}
    assert now[independent].backing.fileName == frozen[independent].backing.fileName
    assert now[copy].backing.fileName != frozen[copy].backing.fileName
    assert now[copy].backing.uuid == frozen[copy].backing.uuid


def test_disks_change(client: Client) -> None:
    """A disk grows, two exchange their keys, one goes."""
    simulator, vm = client.simulator, client.vm()
    first = disks(vm.config)[0].key
    second = simulator.add_disk(vm._moId, 2 * MIB)
    simulator.write(vm._moId, 0, b"first")
    simulator.swap_disks(vm._moId, first, second)
    assert simulator.live_disk(vm._moId, second).read_bytes().startswith(b"first")
    disk = next(d for d in disks(vm.config) if d.key == second)
    disk.capacityInKB, disk.capacityInBytes = 4096, 4 * MIB
    change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=disk)
    done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))
    assert simulator.live_disk(vm._moId, second).stat().st_size == 4 * MIB
    simulator.extend(vm._moId, 8 * MIB, second)
    assert {d.key: d.capacityInBytes for d in disks(vm.config)}[second] == 8 * MIB
    live = simulator.live_disk(vm._moId, first)
    simulator.remove_disk(vm._moId, first)
    assert [d.key for d in disks(vm.config)] == [second]
    assert not live.exists()
    with pytest.raises(SimulatorError, match="has no disk"):
        simulator.live_disk(vm._moId, first)
