"""Tasks end, fail, hang, are cancelled, vanish; each ends the wait with what is known of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backpoint_agent.errors import (
    CannotConnect,
    QuiesceFailed,
    Stopped,
    TaskFailed,
    WaitTooLong,
)
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere import tasks
from backpoint_agent.vsphere.faults import is_fault
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter
from vcenter_login import logged_in
from vcsim import Simulator

MAKE = "CreateSnapshot_Task"
LIMIT_S = 30.0


class _Machine:
    """A VM of the simulator, whose snapshots are the effect that is counted."""

    def __init__(self, vcenter: VCenter, simulator: Simulator) -> None:
        self.vcenter = vcenter
        self.moref = simulator.vms()[0]
        self.vm = vcenter.object("VirtualMachine", self.moref)

    def start(self) -> Any:
        return self.vm.CreateSnapshot_Task("backpoint", "", False, False)

    def snapshots(self) -> int:
        info = self.vcenter.call("reading snapshots", lambda: self.vm.snapshot)
        return 0 if info is None else len(info.rootSnapshotList)

    def make(self, *, limit_s: float = LIMIT_S, stop: Stop | None = None, **more: Any) -> Any:
        what = f"making a snapshot of {self.moref}"
        return run_task(self.vcenter, what, self.start, limit_s=limit_s, stop=stop, **more)


def _starts(simulator: Simulator) -> int:
    return sum(call.method == MAKE for call in simulator.calls())


def test_a_task_that_ends(simulator: Simulator, tmp_path: Path) -> None:
    """Its result is handed on, with the time it took by vCenter's clock."""
    with logged_in(simulator, tmp_path) as vcenter:
        machine = _Machine(vcenter, simulator)
        end = machine.make()
        assert end.result._moId.startswith("snapshot-")
        assert 0 <= end.seconds < LIMIT_S
        assert machine.snapshots() == 1


def test_a_slow_task_within_its_limit(simulator: Simulator, tmp_path: Path) -> None:
    """It is waited for, and looked at meanwhile."""
    looks: list[int] = []
    with logged_in(simulator, tmp_path) as vcenter:
        simulator.slow_tasks(MAKE, 0.6)
        machine = _Machine(vcenter, simulator)
        machine.make(on_wait=lambda: looks.append(machine.snapshots()))
        assert len(looks) >= 2
        assert looks[0] == 0
        assert machine.snapshots() == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("ApplicationQuiesceFault", QuiesceFailed), ("FileFault", TaskFailed)],
)
def test_a_task_that_fails(
    simulator: Simulator, tmp_path: Path, fault: str, kind: type[Exception]
) -> None:
    """Its fault becomes our error, be it of the task or of the call; the words are vCenter's."""
    with logged_in(simulator, tmp_path) as vcenter:
        machine = _Machine(vcenter, simulator)
        for soap in (False, True):
            simulator.fault(MAKE, fault, message="the guest would not", soap=soap)
            with pytest.raises(kind, match=f"{machine.moref}: the guest would not") as failed:
                machine.make()
            assert is_fault(failed.value, fault)
        assert machine.snapshots() == 0


def test_a_task_beyond_its_limit(simulator: Simulator, tmp_path: Path) -> None:
    """It is cancelled, and the message names wait, limit and what became of it."""
    with logged_in(simulator, tmp_path) as vcenter:
        machine = _Machine(vcenter, simulator)
        simulator.hang_tasks(MAKE)
        with pytest.raises(WaitTooLong, match=r"making a snapshot .* 0\.2 s; it was cancelled"):
            machine.make(limit_s=0.2)
        simulator.release_tasks()
        assert machine.snapshots() == 0


def test_a_stop_cancels_the_task(simulator: Simulator, tmp_path: Path) -> None:
    """Whoever waits for a hanging task hears a stop, long before its limit."""
    stop = Stop()
    with logged_in(simulator, tmp_path, stop) as vcenter:
        machine = _Machine(vcenter, simulator)
        simulator.hang_tasks(MAKE)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(machine.make, stop=stop, limit_s=600)
            while not _starts(simulator):
                assert not waiting.done()
            asked = time.monotonic()
            stop.request("SIGTERM")
            with pytest.raises(Stopped, match=r"SIGTERM.*it was cancelled"):
                waiting.result(60)
            assert time.monotonic() - asked < 10
        simulator.release_tasks()
        assert machine.snapshots() == 0


def test_nothing_is_started_after_a_stop(simulator: Simulator, tmp_path: Path) -> None:
    """A stopped run starts no task; clearing up, which has no stop, does."""
    stop = Stop()
    with logged_in(simulator, tmp_path, stop) as vcenter:
        machine = _Machine(vcenter, simulator)
        stop.request("the window ended")
        with pytest.raises(Stopped):
            machine.make(stop=stop)
        assert _starts(simulator) == 0
        machine.make(stop=None)
        assert machine.snapshots() == 1


def test_a_lost_answer_starts_nothing_twice(simulator: Simulator, tmp_path: Path) -> None:
    """Cut before or after the effect: one attempt, and the message leaves the outcome open."""
    with logged_in(simulator, tmp_path) as vcenter:
        machine = _Machine(vcenter, simulator)
        for happened in (False, True):
            simulator.forget_calls()
            simulator.drop_connections(1, MAKE, after_effect=happened)
            with pytest.raises(CannotConnect, match="may have been started all the same"):
                machine.make()
            assert _starts(simulator) == 1
            _until_snapshots(machine, int(happened))


def _until_snapshots(machine: _Machine, count: int) -> None:
    give_up_at = time.monotonic() + LIMIT_S
    while machine.snapshots() != count:
        assert time.monotonic() < give_up_at


def test_a_task_outlives_broken_looks(simulator: Simulator, tmp_path: Path) -> None:
    """Cut connections and an expired session while a task runs do not lose it."""
    troubles: list[Callable[[], None]] = [
        lambda: simulator.drop_connections(1),
        lambda: simulator.garbage(1),
        simulator.expire_sessions,
        simulator.restart,
    ]
    with logged_in(simulator, tmp_path) as vcenter:
        simulator.slow_tasks(MAKE, 0.3)

        def trouble() -> None:
            if troubles:
                troubles.pop()()

        machine = _Machine(vcenter, simulator)
        machine.make(on_wait=trouble)
        assert machine.snapshots() == 1
        assert _starts(simulator) == 1


def test_a_task_outlives_an_outage(simulator: Simulator, tmp_path: Path) -> None:
    """A vCenter that is away for longer than one exchange may take is waited for."""
    outage: list[threading.Timer] = []

    def away() -> None:
        if not outage:
            simulator.stop()
            outage.append(threading.Timer(0.5, simulator.start))
            outage[0].start()

    with logged_in(simulator, tmp_path, request_limit_s=0.1) as vcenter:
        simulator.slow_tasks(MAKE, 0.2)
        _Machine(vcenter, simulator).make(on_wait=away)
        outage[0].join()
        assert _starts(simulator) == 1


def test_an_outage_has_a_limit(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vCenter that stays away ends the wait, with what is known of it."""
    monkeypatch.setattr(tasks, "OUTAGE_LIMIT_S", 0.3)
    with logged_in(simulator, tmp_path, request_limit_s=0.1) as vcenter:
        simulator.hang_tasks(MAKE)
        with pytest.raises(CannotConnect, match="waiting for making a snapshot"):
            _Machine(vcenter, simulator).make(on_wait=simulator.stop)
        simulator.start()
        simulator.release_tasks()


def test_a_task_that_vanishes(simulator: Simulator, tmp_path: Path) -> None:
    """A vCenter that forgot the task leaves its outcome unknown, and the message says so."""
    with logged_in(simulator, tmp_path) as vcenter:
        gone = vcenter.object("Task", "task-99999")
        with pytest.raises(TaskFailed, match="outcome is unknown") as failed:
            run_task(vcenter, "making a snapshot", lambda: gone, limit_s=LIMIT_S, stop=None)
        assert is_fault(failed.value, "ManagedObjectNotFound")
