"""Whether a VM can be backed up at all, and what makes its backup worse than it could be.

Pure: out of the facts of one look at a VM, in words for the user. What a job makes of an unfit disk
is for `selection.py`.
"""

from __future__ import annotations

from typing import Final

from backpoint_agent.machine import Machine

TRACKING_SINCE: Final = 7
"""Virtual hardware version that change tracking needs."""


def why_not(machine: Machine) -> list[str]:
    """What stops every backup of this VM, empty if nothing; reads after "cannot be backed up:"."""
    reasons = list(machine.hindrances)
    if not machine.connected and not reasons:
        reasons.append("its host is not connected to vCenter")
    if not machine.disks and not reasons:
        reasons.append("it has no disk")
    return reasons


def disk_troubles(machine: Machine) -> list[str]:
    """The disks that no snapshot covers, each with the reason: "scsi0:1: ..."."""
    return [f"{disk.slot}: {disk.unfit}" for disk in machine.disks if disk.unfit]


def remarks(machine: Machine) -> list[str]:
    """What does not stop a backup and is worth knowing before it."""
    found = []
    if machine.template:
        found.append("it is a template: vCenter makes no snapshots of templates")
    if machine.hardware_version < TRACKING_SINCE:
        found.append(
            f"no change tracking before virtual hardware version {TRACKING_SINCE} (it has "
            f"{machine.hardware_version}): each backup reads its disks whole"
        )
    elif not machine.change_tracking_supported:
        found.append("its host offers no change tracking: each backup reads its disks whole")
    if machine.question is not None:
        found.append(f"it waits for an answer: {machine.question}")
    if machine.consolidation_needed:
        found.append("its disks need consolidation")
    if machine.snapshots:
        count = len(machine.snapshots)
        found.append("it has a snapshot already" if count == 1 else f"it has {count} snapshots")
    return found
