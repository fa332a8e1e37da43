"""Whether a point may be written over a VM, and which of its disks goes over which of the VM's.

Pure. A disk belongs where it was: the same slot, the same size, and on the VM it came from the same
device. Anything else is refused with all that does not match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backpoint_agent.errors import MachineUnfit
from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_agent.restoring.stored_machine import StoredMachine
from backpoint_repo.errors import UsageError


@dataclass(frozen=True)
class MatchedDisk:
    """key: of the point's disk. disk: the VM's, which it belongs on."""

    key: str
    disk: VirtualDisk


def plan_over(
    stored: StoredMachine, machine: Machine, wanted: Sequence[str] | None
) -> tuple[MatchedDisk, ...]:
    """Pure. Raises MachineUnfit where the VM must not be written, UsageError listing what does not
    match."""
    _refuse_unfit(machine)
    places = {f"disk-{disk.key}": disk.place for disk in stored.description.disks}
    same = machine.identity.instance == stored.instance
    keys = list(stored.disks) if wanted is None else list(wanted)
    matched, mismatches = [], []
    for key in keys:
        if key not in stored.disks or key not in places:
            raise UsageError(f"the point has no disk {key!r}; its disks: {', '.join(stored.disks)}")
        disk = next((disk for disk in machine.disks if disk.slot == places[key]), None)
        problem = _mismatch(key, stored.disks[key].size, disk, same)
        if disk is None or problem:
            mismatches.append(f"{key} at {places[key]}: {problem}")
        else:
            matched.append(MatchedDisk(key, disk))
    if mismatches:
        raise UsageError(
            f"the disks of {machine.name} are not those of the point: {'; '.join(mismatches)}"
        )
    if not matched:
        raise UsageError("there is no disk to restore")
    return tuple(matched)


def _mismatch(key: str, size: int, disk: VirtualDisk | None, same: bool) -> str | None:
    if disk is None:
        return "the VM has no disk there"
    if disk.size != size:
        return f"the VM's has {disk.size} bytes and the point's {size}"
    if same and disk.key != key:
        return f"the VM's is another device, {disk.key}"
    if disk.unfit:
        return disk.unfit
    return None


def _refuse_unfit(machine: Machine) -> None:
    name = machine.name
    if machine.hindrances or not machine.connected:
        why = "; ".join(machine.hindrances) or "its host is not connected"
        raise MachineUnfit(f"{name} cannot be restored over: {why}")
    if machine.template:
        raise MachineUnfit(f"{name} is a template: convert it to a VM before it is restored over")
    if machine.power != "poweredOff":
        raise MachineUnfit(f"{name} is {machine.power}: shut it down before it is restored over")
    if machine.snapshots or machine.consolidation_needed:
        raise MachineUnfit(
            f"{name} has snapshots: remove them (and consolidate) before it is restored over, or "
            "restore to a new VM"
        )
    deltas = [disk.slot for disk in machine.disks if disk.has_parent]
    if deltas:
        raise MachineUnfit(f"{name} runs on delta disks ({', '.join(deltas)}): consolidate first")
