"""Changed block tracking as the API has it: switched on and off, and asked until it has answered
for the whole disk.

Decides what of an answer can be believed: it must begin where it was asked to, go on without gaps,
end with the disk, and name only areas inside what it covers. Alignment is not looked at. Whether
there should be a full is for `tracked_disk.py`.
Source: QueryChangedDiskAreas in the vSphere Web Services API; the loop is what incomplete
incrementals of others were mended with (Bareos 24.0.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from backpoint_agent.errors import ChangeTrackingLost, TaskFailed
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter

Areas = tuple[tuple[int, int], ...]
"""(offset, length) in bytes, in order, disjoint."""

_ANSWERS_MAX: Final = 100_000
_AREAS_MAX: Final = 4_000_000
"""2000 areas an answer were seen: both are far above what a disk of 64 TiB can need."""


@dataclass(frozen=True)
class TrackedSnapshot:
    """Whose areas are asked for: a VM and its snapshot, by moref."""

    vm: str
    snapshot: str


def query_changed_areas(
    vcenter: VCenter, tracked: TrackedSnapshot, disk: VirtualDisk, change_id: str, stop: Stop
) -> Areas:
    """What changed on `disk` between `change_id` and the snapshot.

    Raises ChangeTrackingLost where vCenter does not know the change id or contradicts itself, and
    as `VCenter.call` for what has nothing to do with change tracking.
    """
    machine = vcenter.object("VirtualMachine", tracked.vm)
    snapshot = vcenter.object("VirtualMachineSnapshot", tracked.snapshot)

    def ask(offset: int) -> Any:
        stop.check()
        try:
            return vcenter.call(
                f"asking for the changed areas of {disk.label}",
                lambda: machine.QueryChangedDiskAreas(
                    snapshot=snapshot,
                    deviceKey=disk.device_key,
                    startOffset=offset,
                    changeId=change_id,
                ),
            )
        except TaskFailed as error:
            raise ChangeTrackingLost(f"{disk.label}: {error}") from error

    found: list[tuple[int, int]] = []
    offset = 0
    for _ in range(_ANSWERS_MAX):
        if offset >= disk.size:
            return tuple(_joined(found))
        answer = ask(offset)
        found += _believable(answer, disk, offset)
        if len(found) > _AREAS_MAX:
            found = list(_joined(found))
            if len(found) > _AREAS_MAX:
                break
        offset += answer.length
    raise ChangeTrackingLost(f"{disk.label}: vCenter's answers about changed areas do not end")


def set_change_tracking(
    vcenter: VCenter, vm: str, *, on: bool, limit_s: float, stop: Stop | None
) -> None:
    """Takes effect with the VM's next stun; our snapshot is one. Raises as `run_task`."""
    from pyVmomi import vim

    machine = vcenter.object("VirtualMachine", vm)
    spec = vim.vm.ConfigSpec(changeTrackingEnabled=on)
    run_task(
        vcenter,
        f"switching change tracking {'on' if on else 'off'} for {vm}",
        lambda: machine.ReconfigVM_Task(spec=spec),
        limit_s=limit_s,
        stop=stop,
    )


def _believable(answer: Any, disk: VirtualDisk, asked: int) -> Iterator[tuple[int, int]]:
    start, length = answer.startOffset, answer.length
    if start != asked:
        raise ChangeTrackingLost(
            f"{disk.label}: asked from {asked} on, vCenter answers for {start}"
        )
    if length <= 0:
        raise ChangeTrackingLost(f"{disk.label}: vCenter's answer for {start} covers nothing")
    if start + length > disk.size:
        raise ChangeTrackingLost(
            f"{disk.label}: vCenter's answer covers {start + length} bytes of a disk of {disk.size}"
        )
    for area in answer.changedArea or ():
        inside = start <= area.start and area.start + area.length <= start + length
        if area.length <= 0 or not inside:
            raise ChangeTrackingLost(
                f"{disk.label}: a changed area at {area.start} of {area.length} bytes lies outside "
                f"the answer it came with"
            )
        yield area.start, area.length


def _joined(areas: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    at = end = 0
    for start, length in sorted(areas):
        if start > end:
            if end > at:
                yield at, end - at
            at = start
        end = max(end, start + length)
    if end > at:
        yield at, end - at
