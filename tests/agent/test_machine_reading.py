"""What vCenter tells of a VM and its disks becomes facts, whatever it tells."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pyVim.task
from hypothesis import given
from hypothesis import strategies as st
from pyVmomi import vim

from backpoint_agent.errors import ObjectGone
from backpoint_agent.fitness import disk_troubles, why_not
from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_agent.vsphere.disk_facts import DISKS_MAX, TEXT_MAX, read_disks
from backpoint_agent.vsphere.inventory import read_inventory
from backpoint_agent.vsphere.machine_reading import (
    Surroundings,
    machine_of,
    read_machine,
    snapshot_disks,
)
from backpoint_agent.vsphere.places import Places
from backpoint_agent.vsphere.property_sweep import Swept
from backpoint_agent.vsphere.vcenter import VCenter
from vcenter_login import logged_in
from vcsim import Simulator

wait_for_task: Any = pyVim.task.WaitForTask
device = vim.vm.device
Flat = device.VirtualDisk.FlatVer2BackingInfo
Raw = device.VirtualDisk.RawDiskMappingVer1BackingInfo


@pytest.fixture
def vcenter(simulator: Simulator, tmp_path: Path) -> Iterator[VCenter]:
    """Logged in to the simulator of two VMs."""
    with logged_in(simulator, tmp_path) as connected:
        yield connected


def _controller(key: int = 1000, **properties: Any) -> Any:
    return device.ParaVirtualSCSIController(key=key, busNumber=0, **properties)


def _disk(backing: Any = None, **properties: Any) -> Any:
    usual = {"key": 2000, "controllerKey": 1000, "unitNumber": 1, "capacityInBytes": 1 << 20}
    return device.VirtualDisk(backing=backing or _flat(), **(usual | properties))


def _flat(**properties: Any) -> Any:
    return Flat(**({"fileName": "[ds] a/a.vmdk", "diskMode": "persistent"} | properties))


def _raw(mode: str) -> Any:
    return Raw(fileName="[ds] a/rdm.vmdk", diskMode="persistent", compatibilityMode=mode)


def _only(*devices: Any) -> VirtualDisk:
    (disk,) = read_disks(devices)
    return disk


def test_a_disk_is_told_whole() -> None:
    """Each fact stands where it belongs."""
    parent = _flat(fileName="[ds] a/a.vmdk")
    backing = _flat(
        fileName="[ds one] a/a-000001.vmdk", uuid="6000", changeId="52 aa/3", parent=parent
    )
    disk = _disk(
        backing, deviceInfo=vim.Description(label="Hard disk 1", summary=""), diskObjectId="1-2000"
    )
    told = _only(_controller(), disk)
    assert told == VirtualDisk(
        device_key=2000,
        slot="scsi0:1",
        label="Hard disk 1",
        file="[ds one] a/a-000001.vmdk",
        size=1 << 20,
        disk_uuid="6000",
        object_id="1-2000",
        mode="persistent",
        change_id="52 aa/3",
        has_parent=True,
        unfit=None,
    )
    assert told.datastore == "ds one"


@pytest.mark.parametrize(
    ("controller", "slot"),
    [
        (device.VirtualLsiLogicSASController, "scsi2:1"),
        (device.VirtualAHCIController, "sata2:1"),
        (device.VirtualNVMEController, "nvme2:1"),
        (device.VirtualIDEController, "ide2:1"),
        (device.VirtualUSBController, "controller7:1"),
    ],
)
def test_a_slot_is_named_after_its_controller(controller: Any, slot: str) -> None:
    """As the user's own pages of vSphere call it; not a controller of disks: by its key."""
    assert _only(controller(key=7, busNumber=2), _disk(controllerKey=7)).slot == slot
    assert _only(_disk(controllerKey=7, unitNumber=None)).slot == "controller7:?"


@pytest.mark.parametrize(
    ("backing", "bus", "word"),
    [
        (_flat(), "noSharing", None),
        (_flat(sharing="sharingNone"), None, None),
        (_raw("virtualMode"), "noSharing", None),
        (device.VirtualDisk.SeSparseBackingInfo(fileName="", diskMode="persistent"), None, None),
        (device.VirtualDisk.SparseVer2BackingInfo(fileName="", diskMode="persistent"), None, None),
        (_raw("physicalMode"), None, "physical mode"),
        (_flat(diskMode="independent_persistent"), None, "independent:"),
        (_flat(diskMode="independent_nonpersistent"), None, "nonpersistent"),
        (_flat(diskMode="undoable"), None, "undoable"),
        (_flat(diskMode="\x07"), None, "its mode is"),
        (_flat(sharing="sharingMultiWriter"), None, "multi-writer"),
        (_flat(), "physicalSharing", "bus is shared"),
        (_flat(), "virtualSharing", "bus is shared"),
        (_flat(keyId=vim.encryption.CryptoKeyId(keyId="k")), None, "encrypted"),
        (device.VirtualDisk.RawDiskVer2BackingInfo(deviceName="d"), None, "device of its host"),
        (
            device.VirtualDisk.PartitionedRawDiskVer2BackingInfo(deviceName="d"),
            None,
            "device of its host",
        ),
        (device.VirtualDisk.LocalPMemBackingInfo(fileName=""), None, "persistent memory"),
        (device.VirtualDevice.FileBackingInfo(fileName="x"), None, "kind is not known"),
    ],
)
def test_what_no_snapshot_covers_is_unfit(backing: Any, bus: str | None, word: str | None) -> None:
    """And what is covered is fit."""
    controller = _controller() if bus is None else _controller(sharedBus=bus)
    unfit = _only(controller, _disk(backing)).unfit
    if word is None:
        assert unfit is None
    else:
        assert unfit is not None
        assert word in unfit


def test_a_disk_without_a_backing_is_unfit() -> None:
    """vCenter may leave it out."""
    disk = device.VirtualDisk(key=1, controllerKey=1000, capacityInBytes=512)
    assert "does not tell" in str(_only(disk).unfit)


@pytest.mark.parametrize(
    ("given_sizes", "size"),
    [
        ({"capacityInBytes": 1536, "capacityInKB": 1}, 1536),
        ({"capacityInBytes": None, "capacityInKB": 3}, 3072),
        ({"capacityInBytes": 0, "capacityInKB": 3}, 3072),
    ],
)
def test_sizes_are_bytes_where_vcenter_gives_them(given_sizes: dict[str, Any], size: int) -> None:
    """KiB are for old servers."""
    told = _only(_controller(), _disk(**given_sizes))
    assert (told.size, told.unfit) == (size, None)


@pytest.mark.parametrize(
    "given_sizes",
    [
        {"capacityInBytes": -512},
        {"capacityInBytes": (1 << 63) - 1},
        {"capacityInBytes": None, "capacityInKB": 0},
        {"capacityInBytes": None, "capacityInKB": -1},
    ],
)
def test_impossible_sizes_are_no_disks_to_read(given_sizes: dict[str, Any]) -> None:
    """Nothing below reads or allocates by such a number unasked."""
    told = _only(_controller(), _disk(**given_sizes))
    assert told.size >= 0
    assert "impossible size" in str(told.unfit)


def test_two_disks_with_one_key_cannot_be_told_apart() -> None:
    """Both are unfit: points name disks by their keys."""
    disks = read_disks([_controller(), _disk(), _disk(unitNumber=2), _disk(key=2001)])
    assert ["same device key" in str(disk.unfit) for disk in disks] == [True, True, False]


def test_ten_thousand_devices_are_bounded() -> None:
    """And the VM says that something is wrong with it."""
    devices = [_disk(key=number) for number in range(10_000)]
    assert len(read_disks(devices)) == DISKS_MAX
    machine = _machine({"config.hardware.device": devices})
    assert why_not(machine) == [f"vCenter lists more than {DISKS_MAX} disks, which no VM can have"]


numbers = st.one_of(st.none(), st.integers(-(1 << 31), (1 << 31) - 1))


@given(
    st.lists(
        st.builds(
            _disk,
            st.builds(
                _flat,
                fileName=st.text(),
                diskMode=st.text(max_size=30),
                uuid=st.one_of(st.none(), st.text(max_size=8000)),
                changeId=st.one_of(st.none(), st.text()),
            ),
            key=st.integers(-(1 << 31), (1 << 31) - 1),
            controllerKey=numbers,
            unitNumber=numbers,
            capacityInBytes=st.integers(-(1 << 63), (1 << 63) - 1),
            diskObjectId=st.one_of(st.none(), st.text()),
        ),
        max_size=4,
    )
)
def test_no_answer_breaks_the_reading_of_disks(disks: list[Any]) -> None:
    """Every device gives one disk, bounded, with a size that can be asked for or a reason."""
    told = read_disks([_controller(), *disks])
    assert len(told) == len(disks)
    for disk in told:
        assert disk.unfit or (0 < disk.size <= 1 << 60 and disk.mode == "persistent")
        assert max(map(len, (disk.file, disk.disk_uuid, disk.object_id))) <= TEXT_MAX
    fit = [disk.key for disk in told if disk.unfit is None]
    assert len(set(fit)) == len(fit)


def _machine(properties: dict[str, Any], refused: dict[str, str] | None = None) -> Machine:
    usual = {"name": "web", "runtime.connectionState": "connected"}
    swept = Swept("VirtualMachine", "vm-1", usual | properties, refused or {})
    return machine_of(swept, Surroundings("vc", Places([]), {1: "Backup"}), (), None)


@pytest.mark.parametrize("state", ["disconnected", "orphaned", "inaccessible", "invalid", "odd"])
def test_a_vm_that_no_host_describes_says_so(state: str) -> None:
    """It keeps the identity that vCenter remembers, and its name."""
    machine = _machine(
        {
            "runtime.connectionState": state,
            "summary.config.instanceUuid": "i",
            "summary.config.uuid": "u",
            "summary.config.template": True,
            "summary.config.vmPathName": "[ds] a/a.vmx",
        }
    )
    (reason,) = why_not(machine)
    assert reason
    assert (machine.identity.instance, machine.uuid, machine.vmx) == ("i", "u", "[ds] a/a.vmx")
    assert machine.template
    assert not machine.connected
    assert machine.disks == ()


def test_a_vm_being_made_and_one_that_may_not_be_read_are_told_apart() -> None:
    """The second is for the administrator."""
    assert "being made" in why_not(_machine({}))[0]
    (reason,) = why_not(_machine({}, {"config.hardware.device": "NoPermission System.Read"}))
    assert reason == "the account may not read its configuration (NoPermission System.Read)"
    (reason,) = why_not(_machine({}, {"config": "NoPermission"}))
    assert reason == "the account may not read its configuration (NoPermission)"


def test_a_fault_tolerant_secondary_is_its_primarys_affair() -> None:
    """Both have the same instanceUuid: one history must not hold two VMs."""
    devices = {"config.hardware.device": [_controller(), _disk()]}
    primary = _machine({"config.ftInfo": vim.vm.FaultToleranceConfigInfo(role=1)} | devices)
    assert why_not(primary) == []
    secondary = _machine({"config.ftInfo": vim.vm.FaultToleranceConfigInfo(role=2)} | devices)
    assert "primary" in why_not(secondary)[0]


def test_odd_facts_of_a_vm_become_plain_ones() -> None:
    """Escapes, strange versions, unknown attributes, missing places."""
    value = vim.CustomFieldsManager.StringValue
    machine = _machine(
        {
            "name": "a%2fb%25" + "x" * 10_000,
            "config.version": "vmx-nineteen",
            "runtime.powerState": "exploded",
            "customValue": [value(key=1, value="yes"), value(key=2, value="no")],
            "parent": vim.Folder("group-v9"),
            "datastore": [vim.Datastore("datastore-9")],
            "runtime.question": vim.vm.QuestionInfo(id="1", text="why?"),
        }
    )
    assert machine.name.startswith("a/b%x")
    assert len(machine.name) <= TEXT_MAX
    assert (machine.hardware_version, machine.power, machine.folder) == (0, "poweredOff", "")
    assert machine.attributes == {"Backup": "yes"}
    assert machine.datastores == ()
    assert machine.question == "why?"


def _place(kind: Any, moref: str, name: str, **references: Any) -> Swept:
    return Swept(kind._wsdlName, moref, {"name": name, **references}, {})


def test_a_vm_in_a_vapp_stands_below_the_vapps_folder() -> None:
    """vCenter gives it no folder of its own; vApps may stand in vApps."""
    root = _place(vim.Folder, "group-d1", "Datacenters")
    center = _place(vim.Datacenter, "datacenter-2", "DC", parent=vim.Folder("group-d1"))
    vms = _place(vim.Folder, "group-v3", "vm", parent=vim.Datacenter("datacenter-2"))
    pool = _place(
        vim.ResourcePool, "resgroup-8", "Resources", parent=vim.Datacenter("datacenter-2")
    )
    outer = _place(
        vim.VirtualApp,
        "resgroup-v1",
        "shop",
        parent=vim.ResourcePool("resgroup-8"),
        parentFolder=vim.Folder("group-v3"),
    )
    inner = _place(vim.VirtualApp, "resgroup-v2", "till", parent=vim.VirtualApp("resgroup-v1"))
    places = Places([root, center, vms, pool, outer, inner])
    assert places.folder_of_vapp("resgroup-v2") == "DC/vm/shop/till"
    assert places.path("resgroup-v2") == "DC/Resources/shop/till"
    swept = Swept("VirtualMachine", "vm-1", {"parentVApp": vim.VirtualApp("resgroup-v2")}, {})
    machine = machine_of(swept, Surroundings("vc", places, {}), (), None)
    assert (machine.folder, machine.datacenter) == ("DC/vm/shop/till", "DC")


def test_a_ring_of_parents_ends() -> None:
    """No server should, and any could."""
    one = _place(vim.Folder, "group-1", "a", parent=vim.Folder("group-2"))
    two = _place(vim.Folder, "group-2", "b", parent=vim.Folder("group-1"))
    assert Places([one, two]).path("group-1").startswith("b/a/b/a")
    assert Places([one, two]).datacenter("group-1") == ""


def test_a_snapshot_tree_is_read_to_its_depth() -> None:
    """Depth first; a tree without end is cut off."""
    made = datetime(2026, 1, 2, tzinfo=UTC)

    def node(number: int, *children: Any) -> Any:
        return vim.vm.SnapshotTree(
            snapshot=vim.vm.Snapshot(f"snapshot-{number}"),
            name=f"s{number}",
            description="d",
            createTime=made,
            childSnapshotList=list(children),
        )

    info = vim.vm.SnapshotInfo(
        currentSnapshot=vim.vm.Snapshot("snapshot-3"),
        rootSnapshotList=[node(1, node(2), node(3, node(4))), node(5)],
    )
    machine = _machine({"snapshot": info})
    assert [(note.name, note.depth) for note in machine.snapshots] == [
        ("s1", 0),
        ("s2", 1),
        ("s3", 1),
        ("s4", 2),
        ("s5", 0),
    ]
    assert machine.current_snapshot == "snapshot-3"
    assert machine.snapshots[0].created == made.timestamp()
    many = vim.vm.SnapshotInfo(rootSnapshotList=[node(number) for number in range(5000)])
    assert len(_machine({"snapshot": many}).snapshots) == 1024


def test_one_look_costs_one_exchange_and_says_what_the_sweep_says(
    simulator: Simulator, vcenter: VCenter
) -> None:
    """Tags apart, which only the sweep asks for."""
    swept = read_inventory(vcenter).machines
    for machine in swept:
        simulator.forget_calls()
        again = read_machine(vcenter, machine.moref)
        assert [call.method for call in simulator.calls()] == ["RetrievePropertiesEx"]
        assert again.no_tags is not None
        assert dataclasses.replace(again, no_tags=machine.no_tags) == machine
        assert machine.folder == "DC0/vm"
        assert machine.pool == "DC0/host/DC0_C0/Resources"
        assert machine.cluster == "DC0/host/DC0_C0"
        assert machine.datacenter == "DC0"
        assert machine.identity.vcenter == vcenter.uuid


def test_the_simulators_unfit_disks_are_told(simulator: Simulator, vcenter: VCenter) -> None:
    """Through the wire, beside one that is fit."""
    vm = simulator.vms()[0]
    for kind in (
        {"mode": "independent_persistent"},
        {"kind": "rdm-physical"},
        {"kind": "rdm-virtual"},
        {"sharing": "multiwriter"},
        {"sharing": "bus"},
        {"encrypted": True},
    ):
        simulator.add_disk(vm, 1 << 20, **kind)
    machine = read_machine(vcenter, vm)
    told = [disk.unfit for disk in machine.disks]
    assert [unfit is None for unfit in told] == [True, False, False, True, False, False, False]
    words = ("independent", "physical mode", "multi-writer", "bus is shared", "encrypted")
    for word, trouble in zip(words, disk_troubles(machine), strict=True):
        assert word in trouble
    assert why_not(machine) == []
    assert all(disk.size == 1 << 20 for disk in machine.disks)


def test_a_snapshots_disks_are_the_frozen_ones(simulator: Simulator, vcenter: VCenter) -> None:
    """With change ids and the file that nobody writes any more; the live disk is a delta on it."""
    moref = simulator.vms()[0]
    before = read_machine(vcenter, moref)
    vm = vcenter.object("VirtualMachine", moref)
    wait_for_task(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    task = vm.CreateSnapshot_Task("mine", "", memory=False, quiesce=False)
    wait_for_task(task)
    machine = read_machine(vcenter, moref)
    assert machine.change_tracking
    assert [note.name for note in machine.snapshots] == ["mine"]
    assert machine.current_snapshot == machine.snapshots[0].moref
    (frozen,) = snapshot_disks(vcenter, machine.snapshots[0].moref)
    assert frozen.change_id
    assert frozen.file == before.disks[0].file
    assert frozen.key == machine.disks[0].key
    assert not frozen.has_parent
    assert machine.disks[0].has_parent
    assert machine.disks[0].file != frozen.file


def test_what_is_gone_is_said_to_be_gone(simulator: Simulator, vcenter: VCenter) -> None:
    """A VM that was deleted, and a snapshot that never was."""
    moref = simulator.vms()[0]
    vm = vcenter.object("VirtualMachine", moref)
    wait_for_task(vm.PowerOffVM_Task())
    wait_for_task(vm.Destroy_Task())
    with pytest.raises(ObjectGone, match=moref):
        read_machine(vcenter, moref)
    with pytest.raises(ObjectGone, match="snapshot-999"):
        snapshot_disks(vcenter, "snapshot-999")
