"""What the simulator serves besides its inventory: files, exports, tags, guests."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from pyVmomi import vim

from vcsim import Simulator
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


@pytest.mark.parametrize("cut", [False, True])
def test_read_fault(client: Client, guest_image: Path, cut: bool) -> None:
    """One byte cannot be read; all others can."""
    simulator, vm = client.simulator, client.vm()
    simulator.attach(vm._moId, guest_image)
    simulator.read_fault("disk1-flat", 2 * MIB, cut=cut)
    path = flat(disks(vm.config)[0])
    assert client.read(path, 0, 2 * MIB).status == 206
    assert client.read(path, 2 * MIB + 1, MIB).data == guest_image.read_bytes()[2 * MIB + 1 :][:MIB]
    if cut:
        with pytest.raises(urllib3.exceptions.ProtocolError):
            client.read(path, MIB, 2 * MIB)
    else:
        assert client.read(path, MIB, 2 * MIB).status == 500


def test_slow_files(client: Client) -> None:
    """Answers can be late, and files refused while SOAP works."""
    path = folder(client.vm().config.files.vmPathName)
    client.simulator.slow_calls(0.5, 1, "GET /folder")
    with pytest.raises(urllib3.exceptions.TimeoutError):
        client.request("GET", path, timeout=0.1)
    client.simulator.http_status(507, 1, "PUT /folder")
    assert client.request("PUT", path + ".new", body=b"x").status == 507
    assert client.request("GET", path).status == 200


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
    until(lambda: lease.state == "ready")
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


def test_lease_times_out(client: Client) -> None:
    """A lease whose client tells no progress ends in an error, and its address with it."""
    client.simulator.lease_timeout(0.1)
    lease = snapshot(client.vm()).ExportSnapshot()
    until(lambda: lease.state == "ready")
    url = lease.info.deviceUrl[0].url
    lease.Progress(1)
    until(lambda: lease.state == "error")
    assert isinstance(lease.error, vim.fault.Timedout)
    assert client.request("GET", url).status == 404


def test_live_files_locked(client: Client) -> None:
    """If files are locked as on VMFS, a running VM's disk is read only below a snapshot."""
    vm = client.vm()
    client.simulator.lock_live_files()
    name = flat(disks(vm.config)[0])
    assert client.read(name, 0, 512).status == 500
    snapshot(vm)
    assert client.read(name, 0, 512).status == 206


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
