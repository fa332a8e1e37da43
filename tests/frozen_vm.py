"""A VM of the simulator with a disk worth carrying, frozen by a real snapshot, and what a transport
made of it in a repository.

Plays the guest that writes between snapshots and while one is read. Knows no transport: each is
tried by the same two points and the same fault.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backpoint_agent.machine import VirtualDisk
from backpoint_agent.settings.model import Settings, TransportSettings, VCenterSettings
from backpoint_agent.settings.secret import SecretSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.contract import FrozenMachine, Transport
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.backup_session import DiskJob
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import assert_clean, new_repository, read_disk
from some_machine import some_machine
from vcsim import Simulator, running_simulator

DISK_SIZE = 6 << 20
FAULT_AT = DISK_SIZE // 2 - (48 << 10)
"""A place in the data in the middle of a `guest_disk`."""
START_LIMIT_S = 20
Areas = Sequence[tuple[int, int]]


def account_of(simulator: Simulator, folder: Path, **changes: Any) -> VCenterSettings:
    """How to log in to it as "vc1"; the password is in a file of `folder`."""
    secret = folder / "vcenter-password"
    secret.touch(0o600)
    secret.write_text(simulator.password + "\n")
    account = VCenterSettings(
        name="vc1",
        address=f"{simulator.host}:{simulator.port}",
        user=simulator.user,
        password=SecretSettings(file=secret),
        ca_file=simulator.ca_file,
        request_limit_s=20,
    )
    return account.model_copy(update=changes)


def settings_of(account: VCenterSettings, folder: Path, **transports: Any) -> Settings:
    """A configuration with this vCenter and these transports."""
    return Settings.model_validate(
        {
            "repository": {"path": str(folder / "repository")},
            "vcenters": {"vc1": account},
            "transports": TransportSettings(**transports),
        }
    )


@contextmanager
def logged_in(account: VCenterSettings, stop: Stop | None = None) -> Iterator[VCenter]:
    """A vCenter, and the end of its session."""
    vcenter = VCenter(account, stop or Stop())
    try:
        yield vcenter
    finally:
        vcenter.close()


def guest_disk(folder: Path, size: int = DISK_SIZE, seed: int = 1) -> Path:
    """An image with data at both ends and in the middle, and holes between."""
    image = folder / f"guest-{seed}.img"
    noise = random.Random(seed)
    with image.open("wb") as disk:
        disk.truncate(size)
        for offset in (0, size // 2 - 70_000, size - 50_000):
            disk.seek(offset)
            disk.write(noise.randbytes(50_000))
    return image


@contextmanager
def frozen(vcenter: VCenter, vm: str) -> Iterator[FrozenMachine]:
    """Take a snapshot of the VM; remove it again."""
    machine = vcenter.object("VirtualMachine", vm)
    snapshot = _done(vcenter, machine.CreateSnapshot_Task("backpoint-test", "", False, False))
    try:
        yield FrozenMachine(
            replace(some_machine(name=machine.name), moref=vm),
            snapshot._moId,
            tuple(_disks(snapshot.config)),
        )
    finally:
        _done(vcenter, snapshot.RemoveSnapshot_Task(False))


def _done(vcenter: VCenter, task: Any) -> Any:
    deadline = time.monotonic() + START_LIMIT_S
    while (info := task.info).state not in ("success", "error"):
        assert time.monotonic() < deadline, "the simulator's task does not end"
        time.sleep(0.01)
    assert info.state == "success", info.error
    return info.result


def _disks(config: Any) -> Iterator[VirtualDisk]:
    disks = [device for device in config.hardware.device if hasattr(device, "capacityInBytes")]
    for number, device in enumerate(disks, 1):
        backing = device.backing
        yield VirtualDisk(
            device_key=device.key,
            slot=f"scsi0:{device.unitNumber}",
            label=f"Hard disk {number}",
            file=backing.fileName,
            size=device.capacityInBytes,
            disk_uuid=backing.uuid or "",
            object_id=device.diskObjectId or "",
            mode=backing.diskMode,
            change_id=backing.changeId,
            has_parent=backing.parent is not None,
        )


def store(
    repository: Repository,
    transport: Transport,
    frozen_machine: FrozenMachine,
    changed: Areas | None = None,
) -> Point:
    """One point of all disks through the transport."""
    opened = transport.prepare(frozen_machine)
    try:
        with repository.begin_backup(frozen_machine.machine.name) as session:
            for disk in frozen_machine.disks:
                source = opened.open(disk)
                try:
                    session.store_disk(DiskJob(disk.key, source, changed), lambda _: None)
                finally:
                    source.close()
            return session.publish(time=None, label="")
    finally:
        opened.close()


@dataclass
class Trial:
    """A simulator with one VM that has a `guest_disk`, and an empty repository."""

    simulator: Simulator
    account: VCenterSettings
    vcenter: VCenter
    vm: str
    repository: Repository

    def content(self) -> bytes:
        """What the guest reads now."""
        return self.simulator.live_disk(self.vm).read_bytes()

    def carry_full_and_incremental(self, transport: Transport) -> None:
        """Both points hold what the disk held at their snapshot, whatever the guest wrote since;
        the second one's reads are the changed areas alone."""
        expected = self.content()
        with frozen(self.vcenter, self.vm) as machine:
            self.simulator.write(self.vm, 4096, b"not in the first point")
            full = store(self.repository, transport, machine)
        assert read_disk(self.repository, full.disks[0]) == expected
        changed = [(0, 65536), (3 << 20, 131072), (DISK_SIZE - 65536, 65536)]
        for offset, length in changed:
            data = random.Random(offset).randbytes(length // 2)
            self.simulator.write(self.vm, offset + 777, data)
        expected = self.content()
        with frozen(self.vcenter, self.vm) as machine:
            self.simulator.write(self.vm, 3 << 20, b"not in the second point")
            incremental = store(self.repository, transport, machine, changed)
        assert read_disk(self.repository, incremental.disks[0]) == expected
        assert incremental.generation == full.generation + 1
        assert incremental.traffic.read < DISK_SIZE // 4
        assert_clean(self.repository)

    def points(self) -> int:
        """How many the repository has."""
        return len(self.repository.catalog.refresh())


@contextmanager
def running_trial(folder: Path, stop: Stop | None = None, **options: Any) -> Iterator[Trial]:
    """options: of the simulator."""
    with running_simulator(folder / "vcsim", **{"vms": 1, **options}) as simulator:
        account = account_of(simulator, folder)
        with logged_in(account, stop) as vcenter:
            vm = simulator.vms()[0]
            simulator.attach(vm, guest_disk(folder))
            repository = new_repository(MemoryStore())
            yield Trial(simulator, account, vcenter, vm, repository)


@contextmanager
def failing_at(file: Path, offset: int) -> Iterator[None]:
    """Let every read of the sector at `offset` of this file fail with EIO, for everybody: the file
    is covered by a FUSE mount of qemu's, which reads the one below."""
    node = {
        "driver": "blkdebug",
        "node-name": "faulty",
        "image": {"driver": "file", "filename": str(file)},
        "inject-error": [
            {"event": "none", "iotype": "read", "errno": 5, "sector": offset // 512, "once": False}
        ],
    }
    export = {"type": "fuse", "id": "e", "node-name": "faulty", "mountpoint": str(file)}
    covered = os.stat(file).st_dev
    daemon = subprocess.Popen(
        ["qemu-storage-daemon", "--blockdev", json.dumps(node), "--export", json.dumps(export)]
    )
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while os.stat(file).st_dev == covered:
            assert daemon.poll() is None, "qemu-storage-daemon ended"
            assert time.monotonic() < deadline, "the faulty file does not appear"
            time.sleep(0.01)
        yield
    finally:
        daemon.terminate()
        daemon.wait(START_LIMIT_S)


def gone(pid: int) -> bool:
    """Whether no such process runs any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie whose parent was killed waits for whoever adopts orphans here.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
