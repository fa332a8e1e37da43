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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import trio

from backpoint_agent.jobs.office import Office
from backpoint_agent.jobs.pace import Waiting, caps_of, claim_of
from backpoint_agent.jobs.retention import remove_old_points, rules_by_name, rules_of_machines
from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.machine import Machine
from backpoint_agent.machine_names import MachineNames
from backpoint_agent.running.machine_run import MachineRun
from backpoint_agent.running.outcome import MachineOutcome, Status, may_pass
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
"""A stop, or the window's end, is heard within this."""
_BACK_OFF_MAX: Final = 16
_BUG: Final = "a bug in backpoint"


@dataclass(frozen=True)
class JobOrder:
    """One run to make. only: the VM that a user named, None for all of the job. until: the moment
    the window ends, seconds since 1970. full: changed areas are not asked for."""

    job: Job
    only: str | None = None
    full: bool = False
    until: float | None = None


async def run_job(office: Office, order: JobOrder) -> RunRecord:
    """Raises nothing: what went wrong, bugs too, is in the record."""
    run = _JobRun(office, order)
    try:
        await run.all()
    except* BackpointError as group:
        run.trouble = "; ".join(str(error) for error in _leaves(group))
    except* Exception as group:
        traceback.print_exception(group)
        run.trouble = "; ".join(_bug(error) for error in _leaves(group))
    return run.record()


def select_for(order: JobOrder, machines: Sequence[Machine]) -> Selected:
    """What the order comes to among a vCenter's VMs. Raises UsageError, VSphereError."""
    if order.only is None:
        return select(machines, order.job)
    return Selected((find_machine(machines, order.only),), (), (), ())


class _JobRun:
    def __init__(self, office: Office, order: JobOrder) -> None:
        self._office = office
        self._order = order
        self._job = order.job
        self._account = office.settings.vcenter_of(order.job)
        self._stop = Stop(office.stop)
        self._started = office.clock()
        self._began = trio.current_time()
        self._number = run_number(self._started)
        self._selected = Selected((), (), (), ())
        self._tries: dict[str, list[MachineOutcome]] = {}
        self._over = ""
        self._machines: Sequence[Machine] = ()
        self._removed: tuple[tuple[str, str], ...] = ()
        self._pruning: tuple[str, ...] = ()
        self.trouble = ""

    def record(self) -> RunRecord:
        """As far as it came."""
        selected = self._selected
        reason = self._over or self.trouble or self._stop.reason or _BUG
        outcomes = [
            self._untried(left.machine, "failed", left.reason) for left in selected.hindered
        ]
        for machine in selected.chosen:
            tries = self._tries.get(machine.moref)
            outcomes.append(
                _last(tries) if tries else self._untried(machine, "not-started", reason)
            )
        return RunRecord(
            number=self._number,
            job=self._job.name,
            vcenter=self._account.name,
            started=self._started,
            # The clock may have been put back meanwhile.
            ended=self._started + trio.current_time() - self._began,
            outcomes=tuple(outcomes),
            skipped=tuple((left.machine.name, left.reason) for left in selected.skipped),
            warnings=(*selected.warnings, *self._pruning),
            trouble=self.trouble,
            removed=self._removed,
        )

    async def all(self) -> None:
        vcenter, self._selected = await trio.to_thread.run_sync(self._begin)
        try:
            if not self._selected.chosen and not self._selected.hindered:
                self.trouble = f"the job {self._job.name} selects no VM"
            await self._run_all(self._parts(vcenter))
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(vcenter.close)
        if not self._office.stop.reason:
            await trio.to_thread.run_sync(self._prune)

    def _begin(self) -> tuple[VCenter, Selected]:
        """Tried again like a VM's run: a vCenter that restarts at night is back soon."""
        limits, tries = self._job.limits, 0
        while True:
            try:
                return self._look()
            except BackpointError as error:
                if tries == limits.retries or not may_pass(error):
                    raise
            self._stop.wait(_back_off_s(limits.retry_after_s, tries))
            tries += 1

    def _look(self) -> tuple[VCenter, Selected]:
        # A login begun after a stop would count as clearing up, which is not stopped.
        self._stop.check()
        vcenter = VCenter(self._account, self._stop)
        try:
            machines = read_inventory(vcenter, self._account).machines
            self._machines = machines
            return vcenter, select_for(self._order, machines)
        except BaseException:
            vcenter.close()
            raise

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

    async def _run_all(self, parts: RunParts) -> None:
        line, caps = self._office.line, caps_of(self._job, self._account)
        for machine in self._selected.chosen:
            claim = claim_of(self._job, self._account.name, machine)
            line.join(Waiting(self._number, machine, claim, caps, trio.current_time()))
        # Trio's own limit is for all threads of the process; here the line decides.
        threads = trio.CapacityLimiter(caps.job)
        try:
            async with trio.open_nursery() as nursery:
                while line.has(self._number):
                    self._look_whether_over()
                    item = line.start(self._number)
                    if item is None:
                        await line.change(_LOOK_EVERY_S)
                    else:
                        nursery.start_soon(self._one, item, parts, threads)
        finally:
            line.leave(self._number)

    def _prune(self) -> None:
        """Remove what the jobs' rules do not keep, of the VMs that have a new point. Trouble with
        it is a warning: the points are made."""
        last = [tries[-1] for tries in self._tries.values()]
        stored = {one.identity: one.stored_as for one in last if one.good}
        fresh = [one for one in self._machines if str(one.identity) in stored]
        try:
            rules = rules_of_machines(self._office.settings, self._account, self._machines)
            named = rules_by_name(rules, fresh, lambda one: stored[str(one.identity)])
            if named:
                self._removed = remove_old_points(self._office.repository, named)
        except BackpointError as error:
            self._pruning = (f"no old points were removed: {error}",)

    def _look_whether_over(self) -> None:
        """What waits then leaves the line, those too that would be tried again."""
        window, until = self._job.window, self._order.until
        if until is not None and self._office.clock() >= until:
            self._over = self._over or f"the backup window of {self._job.name} has ended"
            if window is not None and window.at_end == "stop":
                self._stop.request(self._over)
        if self._over or self._stop.reason:
            self._office.line.leave(self._number)

    async def _one(self, item: Waiting, parts: RunParts, threads: trio.CapacityLimiter) -> None:
        line, machine, began = self._office.line, item.machine, trio.current_time()
        run = MachineRun(parts, machine, full=self._order.full)
        try:
            outcome = await trio.to_thread.run_sync(run.run, limiter=threads)
        except Exception as error:
            # One VM's bug must not take the others' night.
            traceback.print_exception(error)
            outcome = self._untried(machine, "failed", _bug(error))
        finally:
            line.end(item)
        ended = outcome.started + trio.current_time() - began
        self._tries.setdefault(machine.moref, []).append(replace(outcome, ended=ended))
        if outcome.hopeless:
            # Each further VM would be stunned for nothing.
            self._over = self._over or outcome.error
        limits = self._job.limits
        if outcome.temporary and item.tries < limits.retries:
            ready = trio.current_time() + _back_off_s(limits.retry_after_s, item.tries)
            line.join(replace(item, tries=item.tries + 1, ready=ready))

    def _untried(self, machine: Machine, status: Status, error: str) -> MachineOutcome:
        now = self._office.clock()
        return MachineOutcome(
            vm=machine.name,
            moref=machine.moref,
            identity=str(machine.identity),
            stored_as="",
            status=status,
            started=now,
            ended=now,
            error=error,
            tries=0,
        )


def _last(tries: Sequence[MachineOutcome]) -> MachineOutcome:
    """The last one, with what those before it leave to look at."""
    failures = [f"try {number}: {each.error}" for number, each in enumerate(tries[:-1], 1)]
    alarms = [alarm for each in tries for alarm in each.alarms]
    return replace(
        tries[-1],
        tries=len(tries),
        warnings=(*failures, *tries[-1].warnings),
        alarms=tuple(dict.fromkeys(alarms)),
    )


def run_number(now: float) -> str:
    """Names a run begun at this moment (seconds since 1970) among all of all agents."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{secrets.token_hex(3)}"


def _back_off_s(first_s: float, tries: int) -> float:
    """Doubled each time up to sixteen times, more or less by a quarter so that VMs do not march."""
    return first_s * float(min(1 << tries, _BACK_OFF_MAX)) * random.uniform(0.75, 1.25)


def _bug(error: BaseException) -> str:
    return f"{_BUG}: {type(error).__name__}: {error}"


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
