"""A VM held still: scripts, a snapshot as quiesced as the job demands, and the way back.

Decides what is tried in which order and what consistency was reached; claims no more than that.
Every outside effect is in the ledger before it is asked for. Whatever happens in between, `release`
thaws the guest and takes the snapshot away; what it cannot undo stays in the ledger, is told as an
alarm, and is the reaper's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from backpoint_agent import snapshot_name
from backpoint_agent.effect import Effect
from backpoint_agent.errors import (
    CannotConnect,
    ObjectGone,
    PermissionMissing,
    QuiesceFailed,
    TaskFailed,
    VSphereError,
    WaitTooLong,
)
from backpoint_agent.machine import Machine
from backpoint_agent.running.outcome import Notes
from backpoint_agent.running.parts import RunParts
from backpoint_agent.settings.model import ScriptSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.guest_programs import run_in_guest
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.questions import QuestionWatch
from backpoint_agent.vsphere.running_tasks import unfinished_tasks
from backpoint_agent.vsphere.snapshots import (
    Snapshot,
    SnapshotOrder,
    consolidate,
    create_snapshot,
    find_snapshot,
    remove_snapshot,
)
from backpoint_agent.vsphere.stun import StunLog
from backpoint_repo.errors import BackpointError, UsageError

_REMOVAL_TRIES: Final = 3
T = TypeVar("T")


@dataclass(frozen=True)
class Frozen:
    """snapshot: its moref, "" for a template, which has none. at: when, seconds since 1970.
    consistency: off (powered off), crash, filesystem or application."""

    snapshot: str
    at: float
    consistency: str
    create_s: float
    stun_s: float | None


@dataclass(frozen=True)
class Released:
    """None where it is not known."""

    remove_s: float | None
    stun_s: float | None


class FrozenGuest:
    """One VM, for one run and one thread."""

    def __init__(self, parts: RunParts, machine: Machine, notes: Notes) -> None:
        self._parts = parts
        self._machine = machine
        self._notes = notes
        self._quiesce = parts.job.quiesce
        self._stun = StunLog(parts.vcenter, machine)
        self._watch = QuestionWatch(
            parts.vcenter, machine.moref, parts.job.questions, self._told_of_question
        )
        self._snapshot: Effect | None = None
        self._freeze: Effect | None = None
        self._asked = True
        """Whether vCenter is known to have heard of our request for a snapshot."""

    def freeze(self) -> Frozen:
        """Make the snapshot. Raises QuiesceFailed where the job requires more than could be had,
        and as `create_snapshot`; call `release` in any case."""
        if self._machine.template:
            # vCenter makes no snapshots of templates; nobody writes to them either.
            return Frozen("", self._parts.clock(), "off", 0.0, None)
        if self._machine.power != "poweredOn":
            return self._frozen(self._snapshot_once(quiesce=False), "off")
        if self._quiesce.policy == "off":
            return self._frozen(self._scripted_snapshot(quiesce=False), "crash")
        try:
            snapshot = self._quiesced()
        except QuiesceFailed as error:
            if self._quiesce.policy == "require":
                raise
            self._notes.warn(f"crash-consistent only: {error}")
            return self._frozen(self._scripted_snapshot(quiesce=False), "crash")
        reached = "application" if snapshot.manifest else "filesystem"
        return self._frozen(snapshot, reached)

    def release(self) -> Released:
        """Thaw, remove the snapshot, consolidate, look whether nothing is left. Raises nothing."""
        self._thaw()
        if self._snapshot is None:
            return Released(None, None)
        self._stun.since()
        seconds = self._repeated("remove our snapshot", self._remove)
        if seconds is not None and self._repeated("verify that nothing is left", self._leave_clean):
            self._close("removed")
        return Released(seconds, self._stun.since())

    def _quiesced(self) -> Snapshot:
        if not self._machine.tools_running:
            raise QuiesceFailed("VMware Tools are not running in the guest")
        for left in range(self._quiesce.retries, -1, -1):
            try:
                return self._scripted_snapshot(quiesce=True)
            except QuiesceFailed as error:
                if not left:
                    raise
                self._notes.warn(f"quiescing was tried again: {error}")
            self._parts.stop.wait(self._quiesce.retry_after_s)
        raise AssertionError("the loop returns or raises")

    def _scripted_snapshot(self, *, quiesce: bool) -> Snapshot:
        self._run_pre_freeze()
        try:
            return self._snapshot_once(quiesce=quiesce)
        finally:
            self._thaw()

    def _snapshot_once(self, *, quiesce: bool) -> Snapshot:
        parts, machine = self._parts, self._machine
        parts.watcher.phase(machine.name, "waiting for the snapshot")
        self._snapshot = effect = parts.ledger.intend(
            "snapshot", parts.vcenter.uuid, machine.moref, machine.name, {}
        )
        name = snapshot_name.make_name(effect.number)
        mark = snapshot_name.SnapshotMark(socket.gethostname(), effect.number, effect.at)
        order = SnapshotOrder(name, snapshot_name.make_description(mark), quiesce)
        self._stun.since()
        limit_s = self._quiesce.limit_s if quiesce else parts.waits.snapshot_create_s
        try:
            made = create_snapshot(
                parts.vcenter,
                machine.moref,
                order,
                limit_s=limit_s,
                stop=parts.stop,
                on_wait=self._watch.look,
            )
        except CannotConnect:
            self._asked = False  # vCenter may get to hear of it yet
            raise
        except WaitTooLong as error:
            if not quiesce or self._tasks_run():
                raise
            self._clear_failed(effect, name)
            raise QuiesceFailed(str(error)) from error
        except VSphereError:
            self._clear_failed(effect, name)
            raise
        self._snapshot = parts.ledger.learned(effect, {"moref": made.moref})
        return made

    def _frozen(self, snapshot: Snapshot, consistency: str) -> Frozen:
        now = self._parts.clock()
        return Frozen(snapshot.moref, now, consistency, snapshot.seconds, self._stun.since())

    def _clear_failed(self, effect: Effect, name: str) -> None:
        """The task has ended; a fault can leave a snapshot all the same (a stale change file)."""
        left = find_snapshot(self._parts.vcenter, self._machine.moref, name)
        if left is None:
            self._close("was not made")
            return
        self._snapshot = self._parts.ledger.learned(effect, {"moref": left})
        self._remove()
        self._close("removed")

    def _remove(self) -> float | None:
        """Seconds that it took; None where it is not there, and may yet come."""
        parts, machine, effect = self._parts, self._machine, self._snapshot
        assert effect is not None
        parts.watcher.phase(machine.name, "removing the snapshot")
        moref = effect.facts.get("moref")
        if moref is None:
            name = snapshot_name.make_name(effect.number)
            moref = find_snapshot(parts.vcenter, machine.moref, name)
        if moref is None and self._asked and not self._tasks_run():
            return 0.0  # the task that should make it has ended, and it is not there
        if moref is None:
            # What may still make it is the reaper's to wait for.
            self._notes.warn("whether our snapshot was made is not known; the next run looks again")
            return None
        limit_s = parts.waits.snapshot_remove_s
        return remove_snapshot(parts.vcenter, moref, limit_s=limit_s, on_wait=self._watch.look)

    def _tasks_run(self) -> bool:
        machine = self._parts.vcenter.object("VirtualMachine", self._machine.moref)
        return any(unfinished_tasks(self._parts.vcenter, machine))

    def _leave_clean(self) -> bool:
        parts = self._parts
        now = read_machine(parts.vcenter, self._machine.moref)
        if now.consolidation_needed:
            parts.watcher.phase(self._machine.name, "consolidating disks")
            limit_s = parts.waits.consolidate_s
            consolidate(parts.vcenter, now.moref, limit_s=limit_s, on_wait=self._watch.look)
            now = read_machine(parts.vcenter, now.moref)
        if now.consolidation_needed:
            raise TaskFailed("its disks still need consolidation")
        if _on_stray_delta(now) and not _on_stray_delta(self._machine):
            raise TaskFailed("it runs on a delta disk although it has no snapshot")
        return True

    def _repeated(self, doing: str, act: Callable[[], T]) -> T | None:
        """Some tries; the last failure becomes an alarm. No stop ends it: this is the way back."""
        for left in range(_REMOVAL_TRIES - 1, -1, -1):
            try:
                return act()
            except ObjectGone:
                self._close("the VM is gone")
                return None
            except BackpointError as error:
                if not left or isinstance(error, PermissionMissing):
                    self._notes.alarm(f"cannot {doing}: {error}")
                    return None
            Stop().wait(self._parts.again_s)
        raise AssertionError("the loop returns")

    def _close(self, how: str) -> None:
        effect, self._snapshot = self._snapshot, None
        if effect is None:
            return
        try:
            self._parts.ledger.undone(effect, how)
        except UsageError as error:
            self._notes.alarm(f"our snapshot is {how}, and the ledger could not be told: {error}")

    def _run_pre_freeze(self) -> None:
        quiesce = self._quiesce
        if quiesce.pre_freeze is None and quiesce.post_thaw is None:
            return
        after = quiesce.post_thaw
        facts = {"program": after.program, "arguments": after.arguments} if after else {}
        self._freeze = self._parts.ledger.intend(
            "freeze", self._parts.vcenter.uuid, self._machine.moref, self._machine.name, facts
        )
        if quiesce.pre_freeze is not None:
            self._run_script(quiesce.pre_freeze, "pre-freeze", self._parts.stop)

    def _thaw(self) -> None:
        """The post-thaw script, after a pre-freeze script that may have run; raises nothing."""
        if self._freeze is None:
            return
        effect, self._freeze = self._freeze, None
        script = self._quiesce.post_thaw
        try:
            if script is not None:
                self._run_script(script, "post-thaw", None)
            self._parts.ledger.undone(effect, "thawed")
        except BackpointError as error:
            self._notes.alarm(f"the guest may still be frozen: {error}")

    def _run_script(self, script: ScriptSettings, which: str, stop: Stop | None) -> None:
        login = self._quiesce.guest
        assert login is not None, "settings demand a login where there are scripts"
        self._parts.watcher.phase(self._machine.name, f"running the {which} script")
        try:
            run_in_guest(self._parts.vcenter, self._machine.moref, login, script, stop)
        except VSphereError as error:
            if script.required:
                raise type(error)(f"the {which} script: {error}") from error
            self._notes.warn(f"the {which} script: {error}")

    def _told_of_question(self, text: str) -> None:
        self._notes.alarm(text)


def _on_stray_delta(machine: Machine) -> bool:
    """It runs on a delta disk and has no snapshot: a linked clone, or something was left behind."""
    return not machine.snapshots and any(disk.has_parent for disk in machine.disks)
