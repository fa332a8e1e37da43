"""A VM in the making, and what of it is undone if it does not become whole.

Decides how it is made (CreateVM_Task, or ImportVApp with its lease), how it is found again when
nobody knows whether it was made (by the instanceUuid that we chose), and that it is removed only
when it is surely that one. What is written into it is for `to_new.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyVmomi import vim

from backpoint_agent.effect import Effect
from backpoint_agent.errors import Busy, ObjectGone, PermissionMissing, TaskFailed, VSphereError
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import Machine
from backpoint_agent.reaping.look import RESTORE_MARK
from backpoint_agent.restoring.destination import Destination
from backpoint_agent.restoring.import_side import ImportLease, start_import
from backpoint_agent.restoring.machine_plan import MachinePlan
from backpoint_agent.restoring.machine_spec import machine_spec
from backpoint_agent.settings.model import Waits
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter

_SURELY_NOT_MADE: Final = (TaskFailed, PermissionMissing, Busy, ObjectGone)
"""vCenter answered, and the answer was no. After anything else the VM may be there."""


@dataclass(frozen=True)
class Workshop:
    """What VMs are made with. Waits: their limits; stop: of the making, never of the undoing."""

    vcenter: VCenter
    ledger: Ledger
    waits: Waits
    stop: Stop


class NewMachine:
    """One VM of this process, in the ledger from before it is asked for until `keep` or `undo`."""

    def __init__(self, shop: Workshop, plan: MachinePlan, destination: Destination) -> None:
        """Writes the ledger; asks vCenter for nothing yet. Raises UsageError."""
        self._shop = shop
        self._plan = plan
        self._where = destination
        self._instance = str(uuid.uuid4())
        self._lease: ImportLease | None = None
        self._asked = False
        self._refused = False
        facts = {
            "name": plan.name,
            "folder": destination.folder.path,
            "instance": self._instance,
        }
        self._effect: Effect = shop.ledger.intend(
            "restored-machine", shop.vcenter.uuid, "", plan.name, facts
        )
        self.moref = ""

    def create(self) -> None:
        """By CreateVM_Task. Raises as `run_task`."""
        what = f"making the VM {self._plan.name}"
        vcenter, where = self._shop.vcenter, self._where
        folder = vcenter.object("Folder", where.folder.moref)
        pool, host = self._pool(), vcenter.object("HostSystem", where.host.moref)
        spec = self._spec()

        def ask() -> Any:
            self._asked = True
            return folder.CreateVM_Task(config=spec, pool=pool, host=host)

        try:
            end = run_task(
                vcenter, what, ask, limit_s=self._shop.waits.reconfigure_s, stop=self._shop.stop
            )
        except _SURELY_NOT_MADE:
            self._refused = True
            raise
        self._learn(str(end.result._GetMoId()))

    def start_import(self) -> ImportLease:
        """By ImportVApp; send the disks, then `complete` the lease. Raises as `ImportLease`."""
        vcenter, where = self._shop.vcenter, self._where
        what = f"importing the VM {self._plan.name}"
        folder = vcenter.object("Folder", where.folder.moref)
        host = vcenter.object("HostSystem", where.host.moref)
        self._asked = True
        try:
            lease = start_import(vcenter, self._pool(), folder, host, self._spec(), what)
        except _SURELY_NOT_MADE:
            self._refused = True
            raise
        self._lease = ImportLease(vcenter, lease, self._shop.stop)
        self._lease.await_ready(self._shop.waits.reconfigure_s)
        self._learn(self._lease.machine)
        return self._lease

    def look(self) -> Machine:
        """As it is now. Raises as `read_machine`."""
        return read_machine(self._shop.vcenter, self.moref)

    def reconfigure(self, what: str, spec: Any) -> None:
        """Raises as `run_task`."""
        machine = self._shop.vcenter.object("VirtualMachine", self.moref)
        run_task(
            self._shop.vcenter,
            f"{what} of {self._plan.name}",
            lambda: machine.ReconfigVM_Task(spec),
            limit_s=self._shop.waits.reconfigure_s,
            stop=self._shop.stop,
        )

    def keep(self) -> None:
        """It is whole, and the user's from now on."""
        self._shop.ledger.undone(self._effect, "finished")

    def undo(self) -> str:
        """Remove what there is of it. What became of it, for the user; raises nothing."""
        name = self._plan.name
        if not self._asked or self._refused:
            self._shop.ledger.undone(self._effect, "was not made")
            return f"no VM {name} was made"
        try:
            if self._lease is not None:
                self._abort(self._lease)
            moref = self.moref or self._find()
            if not moref:
                # It may still be being made: the reaper looks again.
                return self._left(f"whether vCenter still makes the VM {name} is not known")
            self._destroy(moref)
        except VSphereError as error:
            return self._left(f"the unfinished VM {name} is still there: {error}")
        self._shop.ledger.undone(self._effect, "removed")
        return f"the unfinished VM {name} was removed"

    def _left(self, why: str) -> str:
        self._shop.ledger.leave_behind(self._shop.vcenter.uuid, "", why)
        return f"{why}; `backpoint agent reap` removes it"

    def _learn(self, moref: str) -> None:
        self.moref = moref
        self._effect = self._shop.ledger.learned(self._effect, {"moref": moref})

    def _spec(self) -> Any:
        datastores: Mapping[str, str] = self._where.datastores
        spec = machine_spec(self._plan, self._instance, datastores)
        mark = vim.option.OptionValue(key=RESTORE_MARK, value=self._effect.number)
        spec.extraConfig = [*spec.extraConfig, mark]
        return spec

    def _pool(self) -> Any:
        return self._shop.vcenter.object("ResourcePool", self._where.pool.moref)

    def _find(self) -> str:
        index = self._shop.vcenter.content.searchIndex
        found = self._shop.vcenter.call(
            f"looking for the unfinished VM {self._plan.name}",
            lambda: index.FindByUuid(uuid=self._instance, vmSearch=True, instanceUuid=True),
        )
        return "" if found is None else str(found._GetMoId())

    def _abort(self, lease: ImportLease) -> None:
        # What it does not remove, or where it fails, is removed as any VM is.
        try:
            lease.abort()
        except VSphereError:
            return

    def _destroy(self, moref: str) -> None:
        machine = self._shop.vcenter.object("VirtualMachine", moref)
        try:
            run_task(
                self._shop.vcenter,
                f"removing the unfinished VM {self._plan.name}",
                machine.Destroy_Task,
                limit_s=self._shop.waits.reconfigure_s,
                stop=None,
            )
        except ObjectGone:
            return
