"""The outside effects of a VM's run, in order, by a process that kills itself after one of them.

python dying_run.py STEP STATE ACCOUNT-AS-JSON VM PROXY
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pyVmomi import vim

from backpoint_agent import snapshot_name
from backpoint_agent.ledger import Ledger
from backpoint_agent.settings.model import VCenterSettings
from backpoint_agent.state_folder import make_state_folder
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.snapshots import SnapshotOrder, create_snapshot, remove_snapshot
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter

STEPS = ("intended", "made", "learned", "attached", "detached", "removed")
LIMIT_S = 20.0
OLD_S = 3600.0


def main(step: str, state: Path, account: VCenterSettings, vm: str, proxy: str) -> None:
    """Do it all, or as far as the step."""

    def after(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    vcenter = VCenter(account, Stop())
    ledger = Ledger(make_state_folder(state).ledger, clock=lambda: time.time() - OLD_S)
    file = read_machine(vcenter, vm).disks[0].file
    snapshot = ledger.intend("snapshot", vcenter.uuid, vm, "the VM", {})
    after("intended")
    order = SnapshotOrder(snapshot_name.make_name(snapshot.number), "", quiesce=False)
    made = create_snapshot(vcenter, vm, order, limit_s=LIMIT_S, stop=Stop())
    after("made")
    ledger.learned(snapshot, {"moref": made.moref})
    after("learned")
    disk = ledger.intend("hotadd", vcenter.uuid, vm, "the VM", {"proxy": proxy, "file": file})
    attach(vcenter, proxy, file)
    after("attached")
    detach(vcenter, proxy, file)
    after("detached")
    ledger.undone(disk, "detached")
    remove_snapshot(vcenter, made.moref, limit_s=LIMIT_S)
    after("removed")


def attach(vcenter: VCenter, proxy: str, file: str) -> None:
    """Hot-add a file to the proxy, as a transport does."""
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=file, diskMode="independent_nonpersistent"
    )
    disk = vim.vm.device.VirtualDisk(
        key=-1, controllerKey=1000, unitNumber=9, backing=backing, capacityInKB=1024
    )
    _reconfigure(vcenter, proxy, "add", disk)


def detach(vcenter: VCenter, proxy: str, file: str) -> None:
    """Take it off again, leaving the file."""
    devices = vcenter.object("VirtualMachine", proxy).config.hardware.device
    disk = next(d for d in devices if getattr(d.backing, "fileName", None) == file)
    _reconfigure(vcenter, proxy, "remove", disk)


def _reconfigure(vcenter: VCenter, vm: str, operation: str, device: Any) -> None:
    change = vim.vm.device.VirtualDeviceSpec(operation=operation, device=device)
    spec = vim.vm.ConfigSpec(deviceChange=[change])
    machine = vcenter.object("VirtualMachine", vm)
    run_task(
        vcenter, "attaching", lambda: machine.ReconfigVM_Task(spec=spec), limit_s=LIMIT_S, stop=None
    )


if __name__ == "__main__":
    main(
        sys.argv[1],
        Path(sys.argv[2]),
        VCenterSettings.model_validate_json(sys.argv[3]),
        *sys.argv[4:],
    )
