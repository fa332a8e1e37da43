"""A point as a new VM: made, its disks written, its nvram put back, compared, kept.

Decides the order, and that a VM which did not become whole does not stay. Each way to write disks
is tried with a VM of its own. Plans come from `machine_plan` and `destination`; making and removing
is for `new_machine`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyVmomi import vim

from backpoint_agent.errors import TransportUnusable, VSphereError
from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_agent.reaping.look import RESTORE_MARK
from backpoint_agent.restoring.destination import Destination
from backpoint_agent.restoring.difference import find_differences
from backpoint_agent.restoring.machine_plan import MachinePlan
from backpoint_agent.restoring.machine_spec import boot_order
from backpoint_agent.restoring.new_machine import NewMachine, Workshop
from backpoint_agent.restoring.sides import Way, open_side
from backpoint_agent.restoring.stored_machine import StoredMachine
from backpoint_agent.restoring.write_side import WriteSide
from backpoint_agent.settings.model import Settings
from backpoint_agent.vsphere.datastore_files import DatastoreFile
from backpoint_agent.vsphere.tasks import run_task
from backpoint_repo.errors import TargetError


class Watcher(Protocol):
    """Whom a restore tells how it goes."""

    def say(self, text: str) -> None:
        """A sentence for the user."""

    def advance(self, size: int) -> None:
        """Bytes of disk dealt with; negative where they will be dealt with again."""


@dataclass(frozen=True)
class NewMachineJob:
    """verify: read every disk again and compare it with the point."""

    stored: StoredMachine
    plan: MachinePlan
    destination: Destination
    verify: bool = False


@dataclass(frozen=True)
class Restored:
    """way: how the disks were written. verified: bytes that were read again and found equal."""

    machine: Machine
    way: Way
    verified: int


def restore_to_new(
    shop: Workshop, settings: Settings, job: NewMachineJob, ways: Sequence[Way], watcher: Watcher
) -> Restored:
    """Make the VM, powered off, by the first way that reaches its disks.

    Raises TransportUnusable where none does; VSphereError, TargetError, Stopped, and what reading
    the repository raises. After any exception the VM is gone, or in the ledger.
    """
    reasons = []
    for way in ways:
        attempt = _Attempt(shop, settings, job, way, watcher)
        try:
            return attempt.run()
        except TransportUnusable as error:
            attempt.rewind()
            reasons.append(f"{way}: {error}")
            watcher.say(f"the disks cannot be written by {way}: {error}")
    raise TransportUnusable("no way to write the disks: " + "; ".join(reasons))


class _Attempt:
    """One VM, by one way."""

    def __init__(
        self,
        shop: Workshop,
        settings: Settings,
        job: NewMachineJob,
        way: Way,
        watcher: Watcher,
    ) -> None:
        self._shop = shop
        self._settings = settings
        self._job = job
        self._way = way
        self._watcher = watcher
        self._done = 0
        self._new = NewMachine(shop, job.plan, job.destination)

    def run(self) -> Restored:
        """All of it; undone where it fails."""
        try:
            if self._way == "import":
                self._import()
            else:
                self._create_and_write()
            machine = self._settle()
            verified = self._verify(machine) if self._job.verify else 0
        except BaseException:
            # Also for an interrupt: nothing half made stays behind unrecorded.
            self._watcher.say(self._new.undo())
            raise
        self._new.keep()
        return Restored(machine, self._way, verified)

    def rewind(self) -> None:
        """What was written so far does not count."""
        self._watcher.advance(-self._done)
        self._done = 0

    def _advance(self, size: int) -> None:
        self._shop.stop.check()
        self._done += size
        self._watcher.advance(size)

    def _import(self) -> None:
        lease = self._new.start_import()
        machine = self._new.look()
        for number, (key, disk) in enumerate(self._disks(machine)):
            reader = self._job.stored.reader(key)
            lease.upload(number, disk, reader, self._advance)
        lease.complete()

    def _create_and_write(self) -> None:
        self._new.create()
        machine = self._new.look()

        def fill(side: WriteSide) -> None:
            for key, disk in self._disks(machine):
                side.fill(disk, self._job.stored.reader(key), self._advance)

        self._with_side(self._way, machine, fill)

    def _with_side(self, way: Way, machine: Machine, use: Callable[[WriteSide], None]) -> None:
        side = open_side(way, self._settings, self._shop.vcenter, machine, self._shop.stop)
        try:
            use(side)
        finally:
            side.close()

    def _disks(self, machine: Machine) -> list[tuple[str, VirtualDisk]]:
        """Keys in the point and the new disks, in the plan's order. Raises TargetError."""
        by_slot = {disk.slot: disk for disk in machine.disks}
        found = []
        for planned in self._job.plan.disks:
            disk = by_slot.get(planned.disk.place)
            if disk is None or disk.size != planned.size:
                size = "none" if disk is None else f"one of {disk.size} bytes"
                raise TargetError(
                    f"vCenter was asked for a disk of {planned.size} bytes at "
                    f"{planned.disk.place}, and made {size}"
                )
            found.append((planned.key, disk))
        return found

    def _settle(self) -> Machine:
        """Put the nvram back, set what needs real device keys, and look whether all is as planned.

        The mark goes last: until then the reaper knows the VM for an unfinished one.
        """
        machine = self._new.look()
        self._put_nvram(machine)
        keys = {planned.disk.key: disk.device_key
                for planned, (_, disk) in zip(self._job.plan.disks, self._disks(machine),
                                              strict=True)}  # fmt: skip
        spec = boot_order(self._job.plan.description.boot, {**keys, **self._card_keys()})
        if spec is None:
            spec = vim.vm.ConfigSpec()
        spec.changeTrackingEnabled = False
        spec.extraConfig = [vim.option.OptionValue(key=RESTORE_MARK, value="")]
        self._new.reconfigure("the last settings", spec)
        machine = self._new.look()
        self._disks(machine)
        return machine

    def _card_keys(self) -> dict[int, int]:
        """Real keys of network cards by the origin's; in the plan's order, as they were added."""
        devices = self._shop.vcenter.call(
            "reading the new VM's devices",
            lambda: (
                self._shop.vcenter.object("VirtualMachine", self._new.moref).config.hardware.device
            ),
        )
        cards = [d.key for d in devices if isinstance(d, vim.vm.device.VirtualEthernetCard)]
        planned = [card.card.key for card in self._job.plan.cards]
        return dict(zip(planned, cards, strict=False))

    def _put_nvram(self, machine: Machine) -> None:
        data = self._job.stored.nvram
        if data is None:
            return
        path = machine.vmx.removesuffix(".vmx") + ".nvram"
        file = DatastoreFile(self._shop.vcenter, machine.datacenter, path, self._shop.stop)
        try:
            file.write(io.BytesIO(data), len(data))
        except VSphereError as error:
            # A VM boots without; what is lost are the firmware's own settings.
            self._watcher.say(f"the nvram is not restored: {error}")

    def _verify(self, machine: Machine) -> int:
        """Raises TargetError where a disk is not as the point's."""
        total = 0

        def compare(side: WriteSide) -> None:
            nonlocal total
            for key, disk in self._disks(machine):
                source = side.source(disk)
                try:
                    runs = find_differences(self._job.stored.reader(key), source, self._advance)
                finally:
                    source.close()
                if runs:
                    raise TargetError(
                        f"{disk.label} is not what was written: it differs at offset {runs[0][0]}"
                    )
                total += disk.size

        self._with_side("https" if self._way == "import" else self._way, machine, compare)
        return total


def power_on(shop: Workshop, moref: str, name: str, on_wait: Callable[[], None]) -> None:
    """Start the restored VM. Raises as `run_task`, with what stays said."""
    machine = shop.vcenter.object("VirtualMachine", moref)
    run_task(
        shop.vcenter,
        f"powering on {name}",
        machine.PowerOnVM_Task,
        limit_s=shop.waits.power_s,
        stop=shop.stop,
        on_wait=on_wait,
    )
