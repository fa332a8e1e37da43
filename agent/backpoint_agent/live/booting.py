"""A VM made to run from a session, step by step; whole, or undone.

Decides the order: each step is in the ledger before it is asked for, and the last entry says that
the VM is wanted. What fails before that is undone at once by the reaper's own hands. What the VM is
like was planned before (`LivePlan`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from backpoint_agent.effect import Effect
from backpoint_agent.errors import (
    Busy,
    ObjectGone,
    PermissionMissing,
    TaskFailed,
    VSphereError,
)
from backpoint_agent.live.export_place import SESSIONS, ExportPlace
from backpoint_agent.live.live_facts import DatastoreFacts, LiveFacts, datastore_facts
from backpoint_agent.live.live_place import LivePlace
from backpoint_agent.live.nas_datastore import (
    NasDatastore,
    check_usable,
    find_mounted,
    plan_name,
)
from backpoint_agent.live.nas_mounting import mount_datastore, read_nas_datastores
from backpoint_agent.live.repository_access import RepositoryAccess
from backpoint_agent.live.session_commands import start_session
from backpoint_agent.live.session_folder import await_session, files_in, write_vmx
from backpoint_agent.live.vmx_plan import VmxChoices, plan_vmx
from backpoint_agent.live.vmx_text import Vmx, encode_vmx
from backpoint_agent.machine import Machine
from backpoint_agent.reaping.apply import Means
from backpoint_agent.reaping.reap import undo_effect
from backpoint_agent.settings.model import QuestionPolicy
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.property_sweep import reference_of
from backpoint_agent.vsphere.questions import QuestionWatch
from backpoint_agent.vsphere.tasks import run_task
from backpoint_repo.errors import BackpointError

_ANSWERED: Final = (TaskFailed, PermissionMissing, Busy, ObjectGone)
"""vCenter said no. After anything else what was asked for may still come."""
_COPIED: Final = "I Copied It"
_MOVED: Final = "I Moved It"


@dataclass(frozen=True)
class LivePlan:
    """point: `VM@ID`. session: a name that nothing else has. name: as vCenter keeps it. vmx: the
    stored one; vmx_name: of the file to be written; choices: its disks and cards. datacenter:
    moref. datastore: what ours is called where it has no name yet."""

    point: str
    session: str
    name: str
    vmx: Vmx
    vmx_name: str
    choices: VmxChoices
    place: LivePlace
    datacenter: str
    export: ExportPlace
    datastore: str
    power_on: bool = True


@dataclass(frozen=True)
class Booted:
    """notes: what the VM does not have of what it had."""

    machine: Machine
    session: str
    datastore: str
    notes: tuple[str, ...]


class LiveBoot:
    """One boot. say: for the user."""

    def __init__(
        self, means: Means, access: RepositoryAccess, plan: LivePlan, say: Callable[[str], None]
    ) -> None:
        """Asks for nothing yet."""
        self._means = means
        self._access = access
        self._plan = plan
        self._say = say
        self._mounted: Effect | None = None
        self._unanswered = False

    def run(self) -> Booted:
        """All of it. Raises VSphereError, UsageError, TargetError, Stopped; what was done is undone
        then, or in the ledger."""
        plan, means = self._plan, self._means
        datastores = read_nas_datastores(means.vcenter)
        name = plan_name(datastores, plan.export.remote, plan.datastore)
        facts = self._first_facts(name)
        self._effect = means.ledger.intend(
            "live-machine", means.vcenter.uuid, "", plan.name, facts.facts()
        )
        try:
            started = start_session(self._access, plan.export.home, plan.point, plan.session)
            self._learn(home=started.home)
            with self._datastore(name) as datastore:
                notes = self._write_vmx()
                moref = self._register(facts.vmx)
            machine = self._power_on(moref) if plan.power_on else self._look(moref)
        except BaseException:
            # Also for an interrupt: nothing half begun stays behind unrecorded.
            self._undo()
            raise
        self._learn(state="running")
        return Booted(machine, plan.session, datastore.name, notes)

    def _first_facts(self, datastore: str) -> LiveFacts:
        plan = self._plan
        return LiveFacts(
            session=plan.session,
            repository=self._access.path,
            home=plan.export.home,
            name=plan.name,
            folder=plan.place.folder.path,
            datacenter=plan.datacenter,
            datastore=datastore,
            address=plan.export.remote.address,
            path=plan.export.remote.path,
            vmx=f"[{datastore}] {SESSIONS}/{plan.session}/{plan.vmx_name}",
        )

    def _learn(self, **facts: str) -> None:
        self._effect = self._means.ledger.learned(self._effect, facts)

    @contextmanager
    def _datastore(self, name: str) -> Iterator[NasDatastore]:
        """Mounted on the host, and not taken away before the VM is registered."""
        host, remote = self._plan.place.host, self._plan.export.remote
        with self._kept(DatastoreFacts(name, remote.address, remote.path, host.moref)):
            found = self._find(host.moref)
            if found is None:
                self._mount(DatastoreFacts(name, remote.address, remote.path, host.moref))
                found = self._find(host.moref)
            if found is None:
                raise TaskFailed(f"{remote} was mounted, and vCenter does not show it")
            check_usable(found, host.moref, host.name)
            yield found

    @contextmanager
    def _kept(self, facts: DatastoreFacts) -> Iterator[None]:
        """While an earlier boot's mount is ours, nobody else unmounts it. Raises Busy."""
        ledger, uuid = self._means.ledger, self._means.vcenter.uuid
        for effect in ledger.open_effects():
            if (
                (effect.kind, effect.vcenter) == ("live-datastore", uuid)
                and datastore_facts(effect.facts) == facts
            ):  # fmt: skip
                with ledger.take_over(effect):
                    yield
                return
        yield

    def _find(self, host: str) -> NasDatastore | None:
        datastores = read_nas_datastores(self._means.vcenter)
        return find_mounted(datastores, self._plan.export.remote, host)

    def _mount(self, facts: DatastoreFacts) -> None:
        means = self._means
        host = self._plan.place.host.name
        self._say(f"mounting {facts.remote} on {host} as {facts.datastore}")
        self._mounted = means.ledger.intend(
            "live-datastore", means.vcenter.uuid, "", facts.datastore, facts.facts()
        )
        with self._asking():
            mount_datastore(means.vcenter, facts.host, facts.datastore, facts.remote)

    def _write_vmx(self) -> tuple[str, ...]:
        plan = self._plan
        folder = plan.export.session(plan.session)
        await_session(folder, self._means.stop)
        choices = replace(plan.choices, mark=self._effect.number, files=files_in(folder))
        planned = plan_vmx(plan.vmx, choices)
        write_vmx(folder / plan.vmx_name, encode_vmx(planned.vmx))
        return planned.notes

    def _register(self, vmx: str) -> str:
        means, place = self._means, self._plan.place
        folder = means.vcenter.object("Folder", place.folder.moref)
        pool = means.vcenter.object("ResourcePool", place.pool.moref)
        host = means.vcenter.object("HostSystem", place.host.moref)
        with self._asking():
            end = run_task(
                means.vcenter,
                f"registering {self._plan.name}",
                lambda: folder.RegisterVM_Task(
                    path=vmx, name=self._plan.name, asTemplate=False, pool=pool, host=host
                ),
                limit_s=means.waits.reconfigure_s,
                stop=means.stop,
            )
        moref = reference_of(end.result)
        self._learn(moref=moref)
        return moref

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """For something that may come although nobody hears the answer."""
        self._unanswered = True
        try:
            yield
        except _ANSWERED:
            self._unanswered = False
            raise
        self._unanswered = False

    def _power_on(self, moref: str) -> Machine:
        means, name = self._means, self._plan.name
        machine: Any = means.vcenter.object("VirtualMachine", moref)
        policies = [policy for job in means.jobs.values() for policy in job.questions]
        answer = _MOVED if self._plan.choices.same_machine else _COPIED
        # ESXi asks in its own language; its keys ("button.uuid.copiedTheVM") are the same in all.
        key = "button.uuid.movedTheVM" if answer == _MOVED else "button.uuid.copiedTheVM"
        own = [
            QuestionPolicy(text="*moved*copied*", answer=answer),
            QuestionPolicy(text="*msg.uuid.altered*", answer=key),
        ]
        watch = QuestionWatch(means.vcenter, moref, [*policies, *own], self._say)
        run_task(
            means.vcenter,
            f"powering on {name}",
            machine.PowerOnVM_Task,
            limit_s=means.waits.power_s,
            stop=means.stop,
            on_wait=watch.look,
        )
        return self._look(moref)

    def _look(self, moref: str) -> Machine:
        return read_machine(self._means.vcenter, moref)

    def _undo(self) -> None:
        """Raises nothing of ours: what could not be undone is said, and in the ledger."""
        means = self._means
        try:
            means.ledger.leave_behind(means.vcenter.uuid, "", "the boot failed")
            if self._unanswered:
                # Undone now, it might appear afterwards.
                self._say("vCenter may still be at it; `backpoint agent reap` undoes what comes")
                return
            for effect in filter(None, (self._effect, self._mounted)):
                for outcome in undo_effect(means, effect, grace_s=0.0):
                    self._say(f"{self._plan.name}: {outcome.step.what}: {outcome.said}")
                    if outcome.is_open:
                        self._say("`backpoint agent reap` tries it again")
        except (VSphereError, BackpointError) as error:
            self._say(f"{error}; `backpoint agent reap` undoes what was begun")
