"""Runs of VMs of the simulator into a small repository, as the agent makes them.

Wires what `backpoint agent backup` wires, with limits short enough for tests. Which faults happen
meanwhile is the test's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import Machine
from backpoint_agent.machine_names import MachineNames
from backpoint_agent.running.machine_run import MachineRun
from backpoint_agent.running.outcome import MachineOutcome
from backpoint_agent.running.parts import RunParts
from backpoint_agent.settings.model import Job, Waits
from backpoint_agent.snapshot_name import SnapshotMark, make_description, make_name
from backpoint_agent.state_folder import StateFolder, make_state_folder
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.https import HttpsTransport
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.snapshots import SnapshotOrder, create_snapshot
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from frozen_vm import account_of, guest_disk, logged_in
from small_repository import assert_clean, new_repository, read_disk
from vcsim import Simulator, running_simulator

SHORT = Waits(
    change_tracking_s=20,
    snapshot_create_s=20,
    snapshot_remove_s=20,
    consolidate_s=20,
    machine_lock_s=1,
    power_s=20,
    reconfigure_s=20,
)


class Silent:
    """A watcher that keeps what it is told. on_phase: what else happens when a phase begins."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.advanced = 0
        self.on_phase: Callable[[str], object] | None = None

    def phase(self, vm: str, text: str) -> None:
        self.phases.append(text)
        if self.on_phase is not None:
            self.on_phase(text)

    def reading(self, vm: str, size: int) -> None:
        pass

    def advance(self, vm: str, size: int) -> None:
        self.advanced += size


@dataclass
class Bench:
    """A simulator with one VM that has a real disk, and what runs of it need."""

    simulator: Simulator
    vcenter: VCenter
    vm: str
    repository: Repository
    state: StateFolder
    folder: Path
    stop: Stop = field(default_factory=Stop)
    watcher: Silent = field(default_factory=Silent)

    def job(self, **changes: Any) -> Job:
        """A job for everything; quiescing is tried once."""
        given: dict[str, Any] = {
            "name": "nightly",
            "select": {"everything": True},
            "quiesce": {"policy": "prefer", "retries": 0},
            "transports": ("https",),
        }
        return Job.model_validate({**given, **changes})

    def run(self, job: Job | None = None, *, full: bool = False, **parts: Any) -> MachineOutcome:
        """One run of the VM; parts: of RunParts."""
        with Ledger(self.state.ledger) as ledger:
            made = self.parts(ledger, job or self.job())
            machine = read_machine(self.vcenter, self.vm)
            return MachineRun(replace(made, **parts), machine, full=full).run()

    def parts(self, ledger: Ledger, job: Job) -> RunParts:
        """As a job of this VM has them."""
        return RunParts(
            vcenter=self.vcenter,
            repository=self.repository,
            ledger=ledger,
            names=MachineNames(self.repository),
            transports=(HttpsTransport(2, self.vcenter, self.stop),),
            order=job.transports,
            job=job,
            jobs={job.name: job},
            waits=SHORT,
            bandwidth=None,
            locks=self.state.locks,
            watcher=self.watcher,
            stop=self.stop,
            clock=time.time,
            again_s=0.1,
        )

    def point(self, outcome: MachineOutcome) -> Point:
        """The point that a run made."""
        assert outcome.good, outcome
        return self.repository.point(bytes.fromhex(outcome.point))

    def content(self, key: int = 0) -> bytes:
        """What the guest reads now."""
        return self.simulator.live_disk(self.vm, key).read_bytes()

    def machine(self) -> Machine:
        """As vCenter shows it now."""
        return read_machine(self.vcenter, self.vm)

    def stop_again(self) -> None:
        """A new stop, where one was requested."""
        self.stop = Stop()

    def add_disk(self, size: int, data: bytes) -> int:
        """One more disk that begins with `data`; its key."""
        image = self.folder / f"more-{size}.img"
        with image.open("wb") as disk:
            disk.write(data)
            disk.truncate(size)
        return self.simulator.add_disk(self.vm, image)

    def add_unfit_disk(self, odd: str) -> None:
        """One that no snapshot covers: independent, rdm, shared or encrypted."""
        options: dict[str, dict[str, Any]] = {
            "independent": {"mode": "independent_persistent"},
            "rdm": {"kind": "rdm-physical"},
            "shared": {"sharing": "multiwriter"},
            "encrypted": {"encrypted": True},
        }
        self.simulator.add_disk(self.vm, 1 << 20, **options[odd])

    def user_snapshot(self, name: str, description: str = "a user's") -> str:
        """A snapshot that is not the agent's; its moref."""
        order = SnapshotOrder(name, description, quiesce=False)
        return create_snapshot(self.vcenter, self.vm, order, limit_s=20, stop=Stop()).moref

    def other_agents_snapshot(self) -> None:
        """One that an agent on another machine made just now."""
        number = f"20260101T000000Z-1-{'0' * 8}-1"
        mark = SnapshotMark("another-host", number, time.time())
        self.user_snapshot(make_name(number), make_description(mark))

    def destroy(self) -> None:
        """Delete the VM, whatever runs."""
        vm = self.vcenter.object("VirtualMachine", self.vm)
        for start in (vm.PowerOffVM_Task, vm.Destroy_Task):
            run_task(self.vcenter, "destroying the VM", start, limit_s=20, stop=None)

    def snapshots(self) -> list[str]:
        """Names of the VM's snapshots."""
        return [note.name for note in read_machine(self.vcenter, self.vm).snapshots]

    def assert_nothing_left(self) -> None:
        """No snapshot of ours, no delta disk, nothing open in the ledger, a clean repository."""
        machine = read_machine(self.vcenter, self.vm)
        assert not [note for note in machine.snapshots if note.name.startswith("backpoint")]
        assert machine.snapshots or not any(disk.has_parent for disk in machine.disks)
        assert not machine.consolidation_needed
        with Ledger(self.state.ledger) as ledger:
            assert ledger.open_effects() == []
        assert_clean(self.repository)

    def assert_holds(self, outcome: MachineOutcome, *contents: bytes) -> None:
        """The point's disks are these, byte for byte."""
        disks = self.point(outcome).disks
        assert [read_disk(self.repository, disk) for disk in disks] == list(contents)


@contextmanager
def running_bench(folder: Path, **options: Any) -> Iterator[Bench]:
    """options: of the simulator."""
    with (
        running_simulator(folder / "vcsim", **{"vms": 1, **options}) as simulator,
        logged_in(account_of(simulator, folder)) as vcenter,
    ):
        vm = simulator.vms()[0]
        simulator.attach(vm, guest_disk(folder))
        state = make_state_folder(folder / "state")
        yield Bench(simulator, vcenter, vm, new_repository(MemoryStore()), state, folder)
