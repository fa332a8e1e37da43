"""What the simulator offers besides snapshots: files, exports, guests, moves, restores, tags."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from vcsim import Simulator, running_simulator
from vcsim.client import (
    Client,
    connected,
    disks,
    done,
    drop,
    flat,
    folder,
    snapshot,
    until,
    vim,
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


def test_files_of_a_vm(client: Client) -> None:
    """The .vmx says what the VM is, .nvram has content, the log says how long it was stopped."""
    vm = client.vm()
    client.simulator.stun(vm._moId, 654321)
    drop(snapshot(vm))
    vmx = text(client, vm.config.files.vmPathName)
    assert f'displayName = "{vm.name}"' in vmx
    assert 'scsi0:0.fileName = "disk1.vmdk"' in vmx
    assert vm.config.instanceUuid.replace("-", "")[:2] in vmx
    assert 'firmware = "bios"' in vmx
    nvram = client.request("GET", folder(beside(vm, f"{vm.name}.nvram"))).data
    assert len(nvram) == 8684
    log = text(client, beside(vm, "vmware.log"))
    stun = r"T[\d:.]+Z In\(05\) vcpu-0 - Checkpoint_Unstun: vm stopped for 654321 us"
    assert len(re.findall(stun, log)) == 2
    names = [f.name for f in vm.layoutEx.file]
    assert vm.config.files.vmPathName in names
    assert disks(vm.config)[0].backing.fileName in names


def test_file_requests(client: Client) -> None:
    """Files are read, measured, written, and refused without a session or a privilege."""
    vm = client.vm()
    path = folder(beside(vm, "new.bin"))
    assert client.request("PUT", path, body=b"0123456789").status == 201
    assert client.request("HEAD", path).headers["Content-Length"] == "10"
    assert client.read(beside(vm, "new.bin"), 2, 3).data == b"234"
    assert client.request("GET", folder(beside(vm, "none"))).status == 404
    assert client.request("GET", path, headers={"Cookie": ""}).status == 401
    client.simulator.refuse_privilege("Datastore.Browse")
    assert client.request("GET", path).status == 403
    calls = [c for c in client.simulator.calls() if c.method.endswith("/folder")]
    assert [c.method.split()[0] for c in calls] == ["PUT", "HEAD", "GET", "GET", "GET", "GET"]
    assert calls[2].detail == "bytes=2-4"


def test_calls_are_recorded(client: Client) -> None:
    """Calls are listed in order, with the VM and what names them."""
    vm = client.vm()
    client.simulator.forget_calls()
    point = snapshot(vm)
    drop(point)
    calls = [c for c in client.simulator.calls() if c.method.endswith("_Task")]
    assert [(c.method, c.vm) for c in calls] == [
        ("CreateSnapshot_Task", vm._moId),
        ("RemoveSnapshot_Task", vm._moId),
    ]
    assert calls[0].detail == "backup"
    assert calls[1].target == point._moId


def export(client: Client, lease: Any, folder: Path) -> bytes:
    assert lease.state == "ready"
    data = client.request("GET", lease.info.deviceUrl[0].url).data
    lease.Complete()
    (folder / "e.vmdk").write_bytes(data)
    convert = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw"]
    subprocess.run([*convert, folder / "e.vmdk", folder / "e.raw"], check=True)
    return (folder / "e.raw").read_bytes()


def test_export(client: Client, guest_image: Path, tmp_path: Path) -> None:
    """A snapshot's disk is exported while the VM runs; the VM itself only when it is off."""
    simulator, vm = client.simulator, client.vm()
    simulator.attach(vm._moId, guest_image)
    point = snapshot(vm)
    simulator.write(vm._moId, 0, b"later")
    lease = point.ExportSnapshot()
    assert lease.info.totalDiskCapacityInKB == 16 * 1024
    assert lease.info.deviceUrl[0].key.endswith("ParaVirtualSCSIController0:0")
    assert export(client, lease, tmp_path) == guest_image.read_bytes()
    with pytest.raises(vim.fault.InvalidPowerState):
        vm.ExportVm()
    done(vm.PowerOffVM_Task())
    assert export(client, vm.ExportVm(), tmp_path).startswith(b"later")


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


def test_tags(client: Client) -> None:
    """The tagging service wants the password, and a session that has not expired."""
    vm, simulator = client.vm(), client.simulator
    login = urllib3.make_headers(basic_auth=f"{simulator.user}:{simulator.password}")
    wrong = urllib3.make_headers(basic_auth=f"{simulator.user}:wrong")
    session = "/rest/com/vmware/cis/session"
    assert client.request("POST", session, headers=wrong).status == 401
    key = client.request("POST", session, headers=login).json()["value"]

    def ask(path: str, body: Any) -> urllib3.BaseHTTPResponse:
        return client.request(
            "POST",
            "/rest/com/vmware/cis/tagging/" + path,
            headers={"vmware-api-session-id": key, "Content-Type": "application/json"},
            body=json.dumps(body),
        )

    category = {"name": "tier", "cardinality": "SINGLE", "associable_types": [], "description": ""}
    made = ask("category", {"create_spec": category}).json()["value"]
    spec = {"name": "gold", "category_id": made, "description": ""}
    tag = ask("tag", {"create_spec": spec}).json()["value"]
    target = {"id": vm._moId, "type": "VirtualMachine"}
    assert ask(f"tag-association/id:{tag}?~action=attach", {"object_id": target}).status == 200
    attached = ask(f"tag-association/id:{tag}?~action=list-attached-objects", {}).json()["value"]
    assert attached == [target]
    simulator.expire_sessions()
    assert ask(f"tag-association/id:{tag}?~action=list-attached-objects", {}).status == 401


def test_guest_programs(client: Client) -> None:
    """Programs run in the guest with an exit code after a time, in the order of all calls."""
    simulator, vm = client.simulator, client.vm()
    guest = client.content.guestOperationsManager
    auth = vim.vm.guest.NamePasswordAuthentication(**GUEST)
    guest.authManager.ValidateCredentialsInGuest(vm, auth)
    wrong = vim.vm.guest.NamePasswordAuthentication(**{**GUEST, "password": "wrong"})
    with pytest.raises(vim.fault.InvalidGuestLogin):
        guest.authManager.ValidateCredentialsInGuest(vm, wrong)

    def run(path: str) -> int:
        spec = vim.vm.guest.ProcessManager.ProgramSpec(programPath=path, arguments="--now")
        return int(guest.processManager.StartProgramInGuest(vm, auth, spec))

    def state(pid: int) -> Any:
        return guest.processManager.ListProcessesInGuest(vm, auth, [pid])[0]

    simulator.guest_program(vm._moId, "/freeze", exit_code=3, seconds=0.05)
    pid = run("/freeze")
    ended = until(lambda: (now := state(pid)).endTime and now)
    assert ended.exitCode == 3
    drop(snapshot(vm))
    assert state(run("/thaw")).exitCode == 0
    simulator.guest_program(vm._moId, "/forever", seconds=-1)
    pid = run("/forever")
    assert state(pid).endTime is None
    guest.processManager.TerminateProcessInGuest(vm, auth, pid)
    assert state(pid).exitCode == 137
    order = [
        c.detail
        for c in simulator.calls()
        if c.method in ("guest program", "CreateSnapshot_Task") and c.vm == vm._moId
    ]
    assert order == ["/freeze --now", "backup", "/thaw --now", "/forever --now"]
    simulator.guest(vm._moId, tools=False)
    assert vm.guest.toolsRunningStatus == "guestToolsNotRunning"
    with pytest.raises(vim.fault.GuestOperationsUnavailable):
        run("/thaw")


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


def test_two_hundred_vms(tmp_path: Path) -> None:
    """Many VMs are spread over hosts and datastores, and their snapshots cost no space."""
    options = {"vms": 200, "hosts": 4, "datastores": 3}
    with running_simulator(tmp_path / "s", **options) as simulator, connected(simulator) as client:
        vms = [client.vm(n) for n in range(2)]
        assert len(simulator.vms()) == 200
        per_host = [len(h.vm) for h in client.cluster.host]
        assert per_host == [50] * 4
        assert {len(d.vm) for d in client.datacenter.datastore} == {66, 67}
        simulator.add_disk(vms[0]._moId, 1 << 40)
        snapshot(vms[0])
        used = sum(f.stat().st_blocks * 512 for f in tmp_path.rglob("*") if f.is_file())
        assert used < 32 * MIB


def test_parallel_sessions(tmp_path: Path) -> None:
    """Sessions that work at the same time do not disturb each other."""
    with running_simulator(tmp_path / "s", vms=4) as simulator:

        def cycle(number: int) -> int:
            with connected(simulator) as client:
                vm = client.vm(number)
                for turn in range(5):
                    simulator.write(vm._moId, turn * 512, os.urandom(512))
                    drop(snapshot(vm))
                return len([v.name for v in client.datacenter.vmFolder.childEntity])

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(cycle, range(4))) == [4] * 4


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """The simulator ends when the process that drives it is killed."""
    tests = str(Path(__file__).resolve().parents[1])
    script = (
        "import sys, time; from pathlib import Path; from vcsim import Simulator\n"
        "s = Simulator(Path(sys.argv[1])); print(s._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": tests},
        text=True,
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists())
