"""One run of a job: log in, find its VMs, start each when there is room, try again what may pass.

Decides when a run stops starting VMs (its window ends, somebody asks), how often a VM is tried, and
that every VM of the job is in the record, whatever happened. What is done to a VM is
`running.machine_run`'s affair; it runs in a thread.
"""

from __future__ import annotations

import random
import secrets
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

import trio

from backpoint_agent.errors import CannotConnect
from backpoint_agent.jobs.office import Office
from backpoint_agent.jobs.pace import Waiting, caps_of, claim_of, next_to_start
from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.machine import Machine
from backpoint_agent.machine_names import MachineNames
from backpoint_agent.running.machine_run import MachineRun
from backpoint_agent.running.outcome import MachineOutcome, Status
from backpoint_agent.running.parts import RunParts
from backpoint_agent.selection import Selected, find_machine, select
from backpoint_agent.settings.model import Job
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.bandwidth import Bandwidth
from backpoint_agent.transport.choose import transports_of
from backpoint_agent.vsphere.inventory import read_inventory
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import BackpointError

_LOOK_EVERY_S: Final = 0.5
_BACK_OFF_MAX: Final = 16


@dataclass(frozen=True)
class JobOrder:
    """One run to make. only: the VM that a user named, None for all of the job. until: the moment
    the window ends, seconds since 1970. full: changed areas are not asked for."""

    job: Job
    only: str | None = None
    full: bool = False
    until: float | None = None


async def run_job(office: Office, order: JobOrder) -> RunRecord:
    """Raises nothing that the outside can cause: it is in the record."""
    run = _JobRun(office, order)
    try:
        await run.all()
    except* BackpointError as group:
        run.trouble = "; ".join(str(error) for error in _leaves(group))
    return run.record()


class _JobRun:
    def __init__(self, office: Office, order: JobOrder) -> None:
        self._office = office
        self._order = order
        self._job = order.job
        self._account = office.settings.vcenter_of(order.job)
        self._stop = Stop(office.stop)
        self._started = office.clock()
        self._number = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"
        self._outcomes: dict[str, MachineOutcome] = {}
        self._selected = Selected((), (), (), ())
        self._waiting: list[Waiting] = []
        self._busy = 0
        self._ended = trio.Event()
        self.trouble = ""

    def record(self) -> RunRecord:
        """As far as it came."""
        chosen = {machine.moref for machine in self._selected.chosen}
        reason = self.trouble or self._stop.reason or ""
        for machine in self._selected.chosen:
            if machine.moref in chosen - self._outcomes.keys():
                self._note(machine, "not-started", reason)
        return RunRecord(
            self._number,
            self._job.name,
            self._account.name,
            self._started,
            self._office.clock(),
            tuple(self._outcomes.values()),
            tuple((left.machine.name, left.reason) for left in self._selected.skipped),
            self._selected.warnings,
            self.trouble,
        )

    async def all(self) -> None:
        vcenter = await trio.to_thread.run_sync(self._connect)
        with closing(vcenter):
            self._selected = await trio.to_thread.run_sync(self._select, vcenter)
            for left in self._selected.hindered:
                self._note(left.machine, "failed", left.reason)
            parts = self._parts(vcenter)
            self._waiting = [
                Waiting(machine, claim_of(self._job, self._account.name, machine))
                for machine in self._selected.chosen
            ]
            async with trio.open_nursery() as nursery:
                await self._start_all(nursery, parts)

    def _connect(self) -> VCenter:
        """Tried again like a VM's run: a vCenter that restarts at night is back soon."""
        limits = self._job.limits
        for tries in range(limits.retries + 1):
            try:
                return VCenter(self._account, self._stop)
            except CannotConnect:
                if tries == limits.retries:
                    raise
                self._stop.wait(_back_off_s(limits.retry_after_s, tries))
        raise AssertionError("the loop returns or raises")

    def _select(self, vcenter: VCenter) -> Selected:
        inventory = read_inventory(vcenter, self._account)
        if self._order.only is None:
            return select(inventory.machines, self._job)
        return Selected((find_machine(inventory.machines, self._order.only),), (), (), ())

    def _parts(self, vcenter: VCenter) -> RunParts:
        office, rate = self._office, self._job.limits.bytes_per_s
        settings = office.settings
        return RunParts(
            vcenter=vcenter,
            repository=office.repository,
            ledger=office.ledger,
            names=MachineNames(office.repository),
            transports=tuple(transports_of(settings, vcenter, office.ledger, self._stop)),
            order=settings.transports_of(self._job),
            job=self._job,
            jobs=settings.jobs,
            waits=settings.waits,
            bandwidth=None if rate is None else Bandwidth(rate),
            locks=office.state.locks,
            watcher=office.watcher,
            stop=self._stop,
            clock=office.clock,
        )

    async def _start_all(self, nursery: trio.Nursery, parts: RunParts) -> None:
        caps = caps_of(self._job, self._account)
        while self._waiting or self._busy:
            self._look_at_window()
            if self._stop.reason or self._over:
                self._give_up_waiting()
            item = next_to_start(self._waiting, self._office.running, caps, time.monotonic())
            if item is None:
                self._ended = trio.Event()
                with trio.move_on_after(_LOOK_EVERY_S):
                    await self._ended.wait()
                continue
            self._waiting.remove(item)
            self._office.running.append(item.claim)
            self._busy += 1
            nursery.start_soon(self._one, item, parts)

    @property
    def _over(self) -> bool:
        until = self._order.until
        return until is not None and self._office.clock() >= until

    def _look_at_window(self) -> None:
        window = self._job.window
        if self._over and window is not None and window.at_end == "stop":
            self._stop.request(f"the backup window of {self._job.name} has ended")

    def _give_up_waiting(self) -> None:
        reason = self._stop.reason or "the backup window ended before it could start"
        for item in self._waiting:
            if item.machine.moref not in self._outcomes:
                self._note(item.machine, "not-started", reason)
        self._waiting.clear()

    async def _one(self, item: Waiting, parts: RunParts) -> None:
        run = MachineRun(parts, item.machine, full=self._order.full)
        try:
            outcome = await trio.to_thread.run_sync(_guarded(run, item.machine, self._note_bug))
        finally:
            self._office.running.remove(item.claim)
            self._busy -= 1
            self._ended.set()
        if outcome is None:
            return
        self._outcomes[item.machine.moref] = replace(outcome, tries=item.tries + 1)
        limits = self._job.limits
        if outcome.temporary and item.tries < limits.retries and not self._stop.reason:
            delay_s = _back_off_s(limits.retry_after_s, item.tries)
            self._waiting.append(
                replace(item, tries=item.tries + 1, not_before=time.monotonic() + delay_s)
            )

    def _note_bug(self, machine: Machine, error: Exception) -> None:
        self._note(machine, "failed", f"a bug in backpoint: {type(error).__name__}: {error}")

    def _note(self, machine: Machine, status: Status, error: str) -> None:
        now = self._office.clock()
        self._outcomes[machine.moref] = MachineOutcome(
            vm=machine.name,
            moref=machine.moref,
            identity=str(machine.identity),
            stored_as="",
            status=status,
            started=now,
            ended=now,
            error=error,
        )


def _guarded(
    run: MachineRun, machine: Machine, note_bug: Callable[[Machine, Exception], None]
) -> Callable[[], MachineOutcome | None]:
    """One VM's bug must not take the others' night."""

    def guarded() -> MachineOutcome | None:
        try:
            return run.run()
        except Exception as error:
            traceback.print_exc()
            note_bug(machine, error)
            return None

    return guarded


def _back_off_s(first_s: float, tries: int) -> float:
    """Doubled each time up to sixteen times, with a half to spare so that VMs do not march."""
    return first_s * float(min(1 << tries, _BACK_OFF_MAX)) * random.uniform(0.75, 1.25)


def _leaves(group: BaseExceptionGroup[BackpointError]) -> Sequence[BackpointError]:
    leaves: list[BackpointError] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
