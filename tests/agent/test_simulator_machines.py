"""VMs of the simulator come, go, move and are attached to each other, many at a time."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from vcsim import Simulator, running_simulator
from vcsim.client import (
    Client,
    connected,
    disks,
    done,
    flat,
    folder,
    snapshot,
    until,
)

MIB = 1 << 20
GUEST = {"username": "backup", "password": "Guest-secret-1", "interactiveSession": False}


@pytest.fixture
def client(simulator: Simulator) -> Iterator[Client]:
    with connected(simulator) as session:
        yield session


def text(client: Client, datastore_path: str) -> str:
    answer = client.request("GET", folder(datastore_path))
    assert answer.status == 200
    return answer.data.decode()


def beside(vm: Any, name: str) -> str:
    return str(vm.config.files.vmPathName).rsplit("/", 1)[0] + "/" + name


def new_vm(name: str, size: int, controller: int = -1) -> Any:
    """The specification of a VM with one new disk."""
    device = vim.vm.device
    backing = device.VirtualDisk.FlatVer2BackingInfo(
        diskMode="persistent", thinProvisioned=True, fileName=""
    )
    scsi = device.ParaVirtualSCSIController(key=controller, busNumber=0, sharedBus="noSharing")
    disk = device.VirtualDisk(
        key=-2, controllerKey=controller, unitNumber=0, capacityInKB=size // 1024, backing=backing
    )
    spec = device.VirtualDeviceSpec
    return vim.vm.ConfigSpec(
        name=name,
        guestId="otherGuest",
        numCPUs=1,
        memoryMB=64,
        files=vim.vm.FileInfo(vmPathName="[LocalDS_0]"),
        deviceChange=[
            spec(operation="add", device=scsi),
            spec(operation="add", fileOperation="create", device=disk),
        ],
    )


def test_create_and_destroy(client: Client) -> None:
    """A new VM has files of the right size and a right descriptor; destroyed, none."""
    simulator = client.simulator
    spec = new_vm("made", 3 * MIB)
    vm = done(client.datacenter.vmFolder.CreateVM_Task(spec, client.cluster.resourcePool))
    disk = disks(vm.config)[0]
    assert disk.capacityInBytes == 3 * MIB
    assert simulator.live_disk(vm._moId).stat().st_size == 3 * MIB
    described = simulator.file(disk.backing.fileName).read_text()
    assert f'RW {3 * MIB // 512} VMFS "made-flat.vmdk"' in described
    uuid = re.search('ddb.uuid = "(.*)"', described)
    assert uuid
    assert re.sub("[ -]", "", uuid[1]) == disk.backing.uuid.replace("-", "")
    done(vm.PowerOnVM_Task())
    assert vm.guest.toolsRunningStatus == "guestToolsRunning"
    done(vm.PowerOffVM_Task())
    place = simulator.live_disk(vm._moId).parent
    instance = vm.config.instanceUuid
    with pytest.raises(vim.fault.DuplicateName):
        done(client.datacenter.vmFolder.CreateVM_Task(spec, client.cluster.resourcePool))
    done(vm.Destroy_Task())
    assert not place.exists()
    vm = done(client.datacenter.vmFolder.CreateVM_Task(spec, client.cluster.resourcePool))
    assert vm.config.instanceUuid != instance


def test_import(client: Client, guest_image: Path, tmp_path: Path) -> None:
    """An imported VM's disk has what was uploaded; an aborted import leaves no VM."""
    simulator = client.simulator
    convert = ["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run([*convert, guest_image, tmp_path / "up.vmdk"], check=True)
    spec = vim.vm.VmImportSpec(configSpec=new_vm("imported", 16 * MIB))
    lease = client.cluster.resourcePool.ImportVApp(spec, client.datacenter.vmFolder)
    until(lambda: lease.state == "ready")
    vm = lease.info.entity
    url = next(d for d in lease.info.deviceUrl if d.disk).url
    assert client.request("POST", url, body=(tmp_path / "up.vmdk").read_bytes()).status == 201
    lease.Complete()
    assert simulator.live_disk(vm._moId).read_bytes() == guest_image.read_bytes()
    before = simulator.vms()
    spec.configSpec.name = "given-up"
    lease = client.cluster.resourcePool.ImportVApp(spec, client.datacenter.vmFolder)
    assert len(simulator.vms()) == len(before) + 1
    lease.Abort()
    assert simulator.vms() == before


def test_register_run_and_move(client: Client, guest_image: Path, tmp_path: Path) -> None:
    """A VM of an NFS export is registered by its .vmx, runs, and moves off; the mount goes."""
    exported = tmp_path / "export"
    (exported / "r1").mkdir(parents=True)
    shutil.copy(guest_image, exported / "r1" / "r1-flat.vmdk")
    sectors = guest_image.stat().st_size // 512
    (exported / "r1" / "r1.vmdk").write_text(
        f'# Disk DescriptorFile\ncreateType="vmfs"\nRW {sectors} VMFS "r1-flat.vmdk"\n'
    )
    (exported / "r1" / "r1.vmx").write_text(
        'displayName = "r1"\nguestOS = "debian10-64"\nscsi0.virtualDev = "pvscsi"\n'
        'memSize = "128"\nscsi0:3.fileName = "r1.vmdk"\n'
    )
    volume = vim.host.NasVolume.Specification(
        remoteHost="127.0.0.1",
        remotePath=str(exported),
        localPath="recovery",
        accessMode="readWrite",
        type="NFS",
    )
    hosts = client.cluster.host
    systems = [host.configManager.datastoreSystem for host in hosts]
    store = [s.CreateNasDatastore(volume) for s in systems][-1]
    assert {m.key._moId for m in store.host} == {h._moId for h in hosts}
    task = client.datacenter.vmFolder.RegisterVM_Task(
        "[recovery] r1/r1.vmx", "r1", False, client.cluster.resourcePool, hosts[1]
    )
    vm = done(task)
    disk = disks(vm.config)[0]
    assert disk.unitNumber == 3
    assert disk.capacityInBytes == guest_image.stat().st_size
    assert (vm.config.guestId, vm.config.hardware.memoryMB) == ("debian10_64Guest", 128)
    done(vm.PowerOnVM_Task())
    with pytest.raises(vim.fault.ResourceInUse):
        systems[1].RemoveDatastore(store)
    target = next(d for d in client.datacenter.datastore if d.name == "LocalDS_0")
    done(vm.RelocateVM_Task(vim.vm.RelocateSpec(datastore=target, host=hosts[0])))
    assert vm.runtime.host._moId == hosts[0]._moId
    assert vm.config.files.vmPathName == "[LocalDS_0] r1/r1.vmx"
    assert client.simulator.live_disk(vm._moId).read_bytes() == guest_image.read_bytes()
    assert [d.name for d in vm.datastore] == ["LocalDS_0"]
    for system in systems:
        system.RemoveDatastore(store)
    assert [d.name for d in client.datacenter.datastore] == ["LocalDS_0"]


def test_wrong_descriptor(client: Client) -> None:
    """A disk whose descriptor and content disagree is not attached."""
    vm = client.vm()
    disk = disks(vm.config)[0]
    name = beside(vm, "restored.vmdk")
    client.simulator.file(name.replace(".vmdk", "-flat.vmdk")).write_bytes(bytes(MIB))
    client.simulator.file(name).write_text('RW 1 VMFS "restored-flat.vmdk"\n')
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(diskMode="persistent", fileName=name)
    device = vim.vm.device.VirtualDisk(
        key=-1, controllerKey=disk.controllerKey, unitNumber=5, backing=backing, capacityInKB=0
    )
    change = vim.vm.device.VirtualDeviceSpec(operation="add", device=device)
    with pytest.raises(vim.fault.InvalidDiskFormat):
        done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))


def test_moves_and_names(client: Client) -> None:
    """VMs are renamed, migrated, put into folders and pools, and keep their identity."""
    vm, other = client.vm(0), client.vm(1)
    identity = vm.config.instanceUuid
    assert other.config.instanceUuid != identity
    assert other.config.uuid != vm.config.uuid
    hosts = client.cluster.host
    assert vm.runtime.host._moId != other.runtime.host._moId
    target = next(h for h in hosts if h._moId != vm.runtime.host._moId)
    done(vm.MigrateVM_Task(None, target, "defaultPriority"))
    assert vm.runtime.host._moId == target._moId
    assert vm._moId in [v._moId for v in target.vm]
    done(vm.Rename_Task("renamed"))
    assert 'displayName = "renamed"' in text(client, vm.config.files.vmPathName)
    branch = client.datacenter.vmFolder.CreateFolder("branch")
    done(branch.MoveIntoFolder_Task([vm]))
    assert vm.parent.name == "branch"
    shares = vim.SharesInfo(level="normal", shares=0)
    allocation = vim.ResourceAllocationInfo(
        reservation=0, limit=-1, expandableReservation=True, shares=shares
    )
    pool = client.cluster.resourcePool.CreateResourcePool(
        "gold", vim.ResourceConfigSpec(cpuAllocation=allocation, memoryAllocation=allocation)
    )
    done(vm.RelocateVM_Task(vim.vm.RelocateSpec(pool=pool)))
    assert vm.resourcePool.name == "gold"
    field = client.content.customFieldsManager.AddCustomFieldDef("backup", vim.VirtualMachine)
    client.content.customFieldsManager.SetField(vm, field.key, "gold")
    assert [(v.key, v.value) for v in vm.customValue] == [(field.key, "gold")]
    done(other.PowerOffVM_Task())
    other.MarkAsTemplate()
    assert other.config.template
    client.simulator.connection_state(vm._moId, "inaccessible")
    assert vm.runtime.connectionState == "inaccessible"
    assert vm.config.instanceUuid == identity


def test_hot_add(tmp_path: Path, guest_image: Path) -> None:
    """A frozen disk attached to the proxy is a block device there, until it is detached."""
    devices = tmp_path / "by-id"
    with (
        running_simulator(tmp_path / "s", hotadd_folder=devices) as simulator,
        connected(simulator) as client,
    ):
        vm, proxy = client.vm(0), client.vm(1)
        simulator.proxy(proxy._moId)
        simulator.attach(vm._moId, guest_image)
        frozen = disks(snapshot(vm).config)[0]
        backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            diskMode="independent_nonpersistent", fileName=frozen.backing.fileName
        )
        device = vim.vm.device.VirtualDisk(
            key=-1, controllerKey=1000, unitNumber=9, backing=backing, capacityInKB=0
        )
        spec = vim.vm.device.VirtualDeviceSpec
        change = vim.vm.ConfigSpec(deviceChange=[spec(operation="add", device=device)])
        done(proxy.ReconfigVM_Task(change))
        link = devices / ("wwn-0x" + frozen.backing.uuid.replace("-", "").lower())
        assert link.is_block_device()
        assert link.read_bytes() == guest_image.read_bytes()
        with link.open("r+b", buffering=0) as disk, pytest.raises(PermissionError):
            disk.write(bytes(512))
        attached = disks(proxy.config)[-1]
        change = vim.vm.ConfigSpec(deviceChange=[spec(operation="remove", device=attached)])
        done(proxy.ReconfigVM_Task(change))
        assert not link.is_symlink()
        assert simulator.file(flat(frozen)).exists()
        device.key = -1
        change = vim.vm.ConfigSpec(deviceChange=[spec(operation="add", device=device)])
        done(proxy.ReconfigVM_Task(change))
        loop = link.resolve()
    assert not link.is_symlink()
    listed = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True)
    assert str(tmp_path) not in listed.stdout, loop
