"""A simulator with VMs, users' snapshots, and ledgers of processes that are gone, for the reaper.

Plays the run that died: it writes into the ledger, does a part of what it wrote, and is gone.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backpoint_agent import snapshot_name
from backpoint_agent.ledger import Effect, EffectKind, Ledger
from backpoint_agent.machine import Machine
from backpoint_agent.reaping.apply import Means
from backpoint_agent.reaping.reap import reap_before, reap_effects
from backpoint_agent.reaping.step import Outcome
from backpoint_agent.settings.model import Job, VCenterSettings, Waits
from backpoint_agent.state_folder import StateFolder, make_state_folder
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.snapshots import SnapshotOrder, create_snapshot
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter
from frozen_vm import account_of, logged_in
from vcsim import Simulator, running_simulator

LONG_AGO_S = 3600.0
LIMIT_S = 20.0
EFFECTFUL = ("_Task", "Abort", "InGuest", "Answer", "PUT", "POST")


@dataclass
class Scene:
    """One vCenter and one agent's state folder."""

    simulator: Simulator
    account: VCenterSettings
    vcenter: VCenter
    state: StateFolder

    def vm(self, number: int = 0) -> str:
        """The moref of a VM."""
        return self.simulator.vms()[number]

    def machine(self, number: int = 0) -> Machine:
        """A VM as it is now."""
        return read_machine(self.vcenter, self.vm(number))

    def managed(self, number: int = 0) -> Any:
        """The managed object of a VM."""
        return self.vcenter.object("VirtualMachine", self.vm(number))

    def run(self, start: Any) -> Any:
        """Run a task to its end; its result."""
        return run_task(self.vcenter, "the test's task", start, limit_s=LIMIT_S, stop=None).result

    def user_snapshot(self, name: str, number: int = 0) -> str:
        """Somebody makes a snapshot; its moref."""
        order = SnapshotOrder(name, "mine", quiesce=False)
        vm = self.vm(number)
        return create_snapshot(self.vcenter, vm, order, limit_s=LIMIT_S, stop=Stop()).moref

    def our_snapshot(self, effect: Effect, number: int = 0, name: str | None = None) -> str:
        """The snapshot that the effect is about is made; its moref."""
        mark = snapshot_name.SnapshotMark(socket.gethostname(), "run", effect.at)
        order = SnapshotOrder(
            name or snapshot_name.make_name(effect.number),
            snapshot_name.make_description(mark),
            quiesce=False,
        )
        vm = self.vm(number)
        return create_snapshot(self.vcenter, vm, order, limit_s=LIMIT_S, stop=Stop()).moref

    @contextmanager
    def dying(self, age_s: float = LONG_AGO_S) -> Iterator[Ledger]:
        """A ledger whose process is gone afterwards."""
        with Ledger(self.state.ledger, clock=lambda: time.time() - age_s) as ledger:
            yield ledger

    def intend(self, ledger: Ledger, kind: EffectKind, number: int = 0, **facts: str) -> Effect:
        """An effect on a VM of this vCenter."""
        machine = self.machine(number)
        return ledger.intend(kind, self.vcenter.uuid, machine.moref, machine.name, facts)

    def leave_snapshot(self, number: int = 0, *, learned: bool = True) -> str:
        """A run makes a snapshot and dies before it removes it; the snapshot's moref."""
        with self.dying() as ledger:
            effect = self.intend(ledger, "snapshot", number)
            moref = self.our_snapshot(effect, number)
            if learned:
                ledger.learned(effect, {"moref": moref})
        return moref

    def means(self, ledger: Ledger, **jobs: Job) -> Means:
        """What a reaper of this vCenter works with."""
        waits = Waits(snapshot_create_s=LIMIT_S, snapshot_remove_s=LIMIT_S)
        return Means(self.vcenter, ledger, waits, jobs, Stop())

    def reap(self, **jobs: Job) -> list[Outcome]:
        """A reaper does its work and ends."""
        with Ledger(self.state.ledger) as ledger:
            return list(reap_effects(self.means(ledger, **jobs), self.state.locks))

    def reap_before(self, number: int = 0) -> list[Outcome]:
        """As the run of the VM does it first."""
        with Ledger(self.state.ledger) as ledger:
            return reap_before(self.means(ledger), self.machine(number))

    def open(self) -> list[Effect]:
        """What the ledger has open."""
        with Ledger(self.state.ledger) as ledger:
            return ledger.open_effects()

    def tree(self, number: int = 0) -> list[tuple[str, str, int]]:
        """The VM's snapshots: moref, name, depth."""
        return [(s.moref, s.name, s.depth) for s in self.machine(number).snapshots]

    def acts(self) -> list[str]:
        """Methods with an effect that were called since `forget_calls`."""
        methods = [call.method for call in self.simulator.calls()]
        return [m for m in methods if any(part in m for part in EFFECTFUL)]


@contextmanager
def running_scene(folder: Path, **options: Any) -> Iterator[Scene]:
    """options: of the simulator."""
    with running_simulator(folder / "vcsim", **{"vms": 2, **options}) as simulator:
        account = account_of(simulator, folder)
        with logged_in(account) as vcenter:
            state = make_state_folder(folder / "state")
            yield Scene(simulator, account, vcenter, state)
