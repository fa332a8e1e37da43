"""A point over a VM that exists: only what differs is written, and what is begun is marked.

Decides that change tracking goes off before the first byte (what is written past the host is in no
list of changes), and that a VM whose restore broke off says so: in the ledger, in its own settings,
and in the error. Whether the VM may be written at all is `over_plan`'s to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from backpoint_agent.effect import Effect
from backpoint_agent.errors import MachineUnfit, TransportUnusable, VSphereError
from backpoint_agent.machine import Machine
from backpoint_agent.reaping.look import RESTORE_MARK
from backpoint_agent.reaping.reap import settle_restore
from backpoint_agent.restoring.difference import Run, find_differences, write_differences
from backpoint_agent.restoring.new_machine import Workshop
from backpoint_agent.restoring.over_plan import MatchedDisk, plan_over
from backpoint_agent.restoring.sides import Way, open_side
from backpoint_agent.restoring.stored_machine import StoredMachine
from backpoint_agent.restoring.to_new import Watcher
from backpoint_agent.restoring.write_side import WriteSide
from backpoint_agent.settings.model import Settings
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.tasks import run_task
from backpoint_repo.errors import BackpointError, TargetError


@dataclass(frozen=True)
class ExistingJob:
    """moref: of the VM. disks: keys in the point, None for all. dry_run: only compare."""

    stored: StoredMachine
    moref: str
    disks: Sequence[str] | None = None
    dry_run: bool = False
    verify: bool = False


@dataclass(frozen=True)
class RestoredDisk:
    """Bytes: what differed, in grains of 64 KiB, and what was written."""

    matched: MatchedDisk
    differing: int
    written: int


@dataclass(frozen=True)
class RestoredOver:
    """way: how the disks were read and written."""

    machine: Machine
    way: Way
    disks: tuple[RestoredDisk, ...]


def restore_over(
    shop: Workshop, settings: Settings, job: ExistingJob, ways: Sequence[Way], watcher: Watcher
) -> RestoredOver:
    """The caller holds the VM's lock and has the user's word for it.

    Raises MachineUnfit, UsageError, TransportUnusable, VSphereError, TargetError, SourceError,
    Stopped, and what reading the repository raises; if anything was written by then, the message
    says so, and the ledger has it.
    """
    return _Over(shop, settings, job, watcher).run(ways)


class _Over:
    """One restore over one VM."""

    def __init__(
        self, shop: Workshop, settings: Settings, job: ExistingJob, watcher: Watcher
    ) -> None:
        self._shop = shop
        self._settings = settings
        self._job = job
        self._watcher = watcher
        self._machine = read_machine(shop.vcenter, job.moref)
        self._matched = plan_over(job.stored, self._machine, job.disks)
        self._wrote = False

    def run(self, ways: Sequence[Way]) -> RestoredOver:
        """By the first way that reaches the disks."""
        if self._job.dry_run:
            way, runs = self._compare(ways)
            disks = self._report(runs, {})
            return RestoredOver(self._machine, way, disks)
        effect = self._shop.ledger.intend(
            "restore-over",
            self._shop.vcenter.uuid,
            self._machine.moref,
            self._machine.name,
            {"point": self._job.stored.name},
        )
        try:
            self._mark(effect.number)
            way, runs = self._compare(ways)
            written = self._write(way, runs)
            machine = self._finish()
        except BackpointError as error:
            self._break_off(effect)
            if not self._wrote:
                raise
            raise type(error)(f"{error}; {self._half_done}") from error
        except BaseException:
            # An interrupt: who pressed it should still hear how the VM is left.
            self._break_off(effect)
            if self._wrote:
                self._watcher.say(self._half_done)
            raise
        self._shop.ledger.undone(effect, "finished")
        settle_restore(self._shop.ledger, self._shop.vcenter.uuid, self._machine.moref)
        return RestoredOver(machine, way, self._report(runs, written))

    def _compare(self, ways: Sequence[Way]) -> tuple[Way, dict[str, list[Run]]]:
        """What differs, by disk. Raises TransportUnusable where no way reaches the disks."""
        reasons = []
        for way in ways:
            done = 0

            def advance(size: int) -> None:
                nonlocal done
                self._shop.stop.check()
                done += size
                self._watcher.advance(size)

            try:
                with self._side(way) as side:
                    return way, {m.key: self._differences(side, m, advance) for m in self._matched}
            except TransportUnusable as error:
                self._watcher.advance(-done)
                reasons.append(f"{way}: {error}")
                self._watcher.say(f"the disks cannot be reached by {way}: {error}")
        raise TransportUnusable("no way to reach the disks: " + "; ".join(reasons))

    def _differences(self, side: WriteSide, matched: MatchedDisk, advance: Any) -> list[Run]:
        source = side.source(matched.disk)
        try:
            return find_differences(self._job.stored.reader(matched.key), source, advance)
        finally:
            source.close()

    def _write(self, way: Way, runs: dict[str, list[Run]]) -> dict[str, int]:
        """Bytes written, by disk."""
        written = {}
        with self._side(way) as side:
            for matched in self._matched:
                differing = runs[matched.key]
                if not differing:
                    continue
                reader = self._job.stored.reader(matched.key)
                if side.writes_ranges:
                    target = side.target(matched.disk)
                    self._wrote = True
                    write_differences(reader, target, differing, self._check_stop)
                    written[matched.key] = sum(length for _, length in differing)
                else:
                    self._watcher.say(
                        f"{matched.disk.label} is written whole: {way} cannot write parts"
                    )
                    self._wrote = True
                    side.fill(matched.disk, reader, self._check_stop)
                    written[matched.key] = reader.size
        if self._job.verify:
            self._verify(way)
        return written

    def _verify(self, way: Way) -> None:
        with self._side(way) as side:
            for matched in self._matched:
                if runs := self._differences(side, matched, self._check_stop):
                    raise TargetError(
                        f"{matched.disk.label} is not what was written: it differs at offset "
                        f"{runs[0][0]}"
                    )

    def _check_stop(self, _size: int) -> None:
        self._shop.stop.check()

    def _side(self, way: Way) -> closing[WriteSide]:
        vcenter, stop = self._shop.vcenter, self._shop.stop
        return closing(open_side(way, self._settings, vcenter, self._machine, stop))

    def _mark(self, number: str) -> None:
        """Change tracking goes off with it. An empty number takes the mark away."""
        spec = vim.vm.ConfigSpec(
            changeTrackingEnabled=False,
            extraConfig=[vim.option.OptionValue(key=RESTORE_MARK, value=number)],
        )
        machine = self._shop.vcenter.object("VirtualMachine", self._machine.moref)
        run_task(
            self._shop.vcenter,
            f"switching change tracking of {self._machine.name} off",
            lambda: machine.ReconfigVM_Task(spec),
            limit_s=self._shop.waits.reconfigure_s,
            stop=None if not number else self._shop.stop,
        )

    def _finish(self) -> Machine:
        self._mark("")
        machine = read_machine(self._shop.vcenter, self._machine.moref)
        if machine.power != "poweredOff":
            raise MachineUnfit(f"{machine.name} was powered on while its disks were written")
        if machine.change_tracking:
            raise MachineUnfit(
                f"somebody switched change tracking of {machine.name} on while its disks were "
                "written; switch it off, or its next backup is wrong"
            )
        return machine

    def _break_off(self, effect: Effect) -> None:
        """Where nothing was written all is as it was; else the ledger keeps it for the user."""
        if self._wrote:
            why = "its restore broke off"
            self._shop.ledger.leave_behind(effect.vcenter, effect.vm, why)
            return
        try:
            self._mark("")
        except VSphereError as failure:
            self._watcher.say(f"the mark of a restore stays in the VM's settings: {failure}")
        self._shop.ledger.undone(effect, "nothing was written")

    @property
    def _half_done(self) -> str:
        return (
            f"the disks of {self._machine.name} are now partly those of the point and partly as "
            "they were: do not power it on, run the same restore again"
        )

    def _report(
        self, runs: dict[str, list[Run]], written: dict[str, int]
    ) -> tuple[RestoredDisk, ...]:
        return tuple(
            RestoredDisk(
                matched,
                sum(length for _, length in runs[matched.key]),
                written.get(matched.key, 0),
            )
            for matched in self._matched
        )
