"""A vCenter, a repository on a disk, and a configuration that joins them: for jobs and commands.

Knows where things are and how they are looked at from outside. Which jobs there are and what goes
wrong is the test's business.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from backpoint_agent.jobs.job_run import JobOrder, run_job
from backpoint_agent.jobs.office import Office
from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import Machine
from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.read import read_settings_file
from backpoint_agent.state_folder import make_state_folder
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.inventory import read_inventory
from backpoint_repo.catalog import PointSummary
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.local import LocalStore
from command_line import CommandLine
from frozen_vm import account_of, guest_disk, logged_in
from machine_runs import Silent
from small_repository import PASSPHRASE, assert_clean, new_repository, read_disk, reopened
from vcsim import Simulator, running_simulator

Told = Callable[[str, str], object]


class Meddler(Silent):
    """A watcher that lets something happen. on: called with the VM's name and the phase that
    begins; what it raises is raised."""

    def __init__(self) -> None:
        super().__init__()
        self.on: Told | None = None
        self._lock = threading.Lock()

    def phase(self, vm: str, text: str) -> None:
        super().phase(vm, text)
        on = self.on
        if on is not None:
            on(vm, text)

    def once(self, phase: str, act: Callable[[], object]) -> None:
        """The first time that a VM comes there."""
        left = [act]

        def on(_: str, text: str) -> None:
            with self._lock:
                first = left.pop() if text == phase and left else None
            if first is not None:
                first()

        self.on = on


@dataclass
class Clock:
    """Seconds since 1970 that pass, and jump when they are told to."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


EVERYTHING = 'select = { everything = true }\ntransports = ["https"]\n'
"""A job that takes every VM."""
NIGHTLY = f"[jobs.nightly]\n{EVERYTHING}[jobs.nightly.limits]\nretry_after_s = 0.1\n"
"""A job of everything that tries again soon; its limits may follow."""


@dataclass
class Site:
    """simulator: of the configuration's first vCenter. clock: of jobs in this process, and of the
    repository."""

    simulator: Simulator
    folder: Path
    repository: Repository
    clock: Clock
    watcher: Meddler = field(default_factory=Meddler)
    stop: Stop = field(default_factory=Stop)

    @property
    def config(self) -> Path:
        return self.folder / "backpoint.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def line(self) -> CommandLine:
        """The installed command, with this configuration."""
        return CommandLine(self.folder, {"BACKPOINT_CONFIG": str(self.config)})

    def configure(
        self, jobs: str = NIGHTLY, *others: Simulator, account: str = "", more: str = ""
    ) -> Settings:
        """Write the file. others: more vCenters, vc2 and so on. account: lines of each vCenter's
        table; more: tables."""
        secret = self.folder / "passphrase"
        secret.touch(0o600)
        secret.write_text(PASSPHRASE.text)
        text = f"""
state = "{self.state}"
[repository]
path = "{self.folder / "repository"}"
passphrase = {{ file = "{secret}" }}
[waits]
snapshot_create_s = 20
snapshot_remove_s = 20
machine_lock_s = 1
{more}
"""
        for number, simulator in enumerate((self.simulator, *others), 1):
            login = account_of(simulator, self.folder)
            text += f"""
[vcenters.vc{number}]
address = "{login.address}"
user = "{login.user}"
password = {{ file = "{login.password.file}" }}
ca_file = "{login.ca_file}"
{account or "request_limit_s = 2"}
"""
        self.config.write_text(text + jobs)
        return read_settings_file(self.config)

    @contextmanager
    def office(self) -> Iterator[Office]:
        """As `backup` and `run` open it, and closed again."""
        settings = read_settings_file(self.config)
        state = make_state_folder(settings.state)
        with Ledger(state.ledger) as ledger:
            yield Office(
                settings, state, self.repository, ledger, self.watcher, self.stop, self.clock
            )

    @property
    def vms(self) -> list[str]:
        """Morefs."""
        return self.simulator.vms()

    def run(self, job: str = "nightly", **order: Any) -> RunRecord:
        """One run of a job, in this process. order: of JobOrder."""
        with self.office() as office:
            return trio.run(run_job, office, JobOrder(office.settings.jobs[job], **order))

    def machines(self, simulator: Simulator | None = None) -> tuple[Machine, ...]:
        """As vCenter shows them now."""
        with logged_in(account_of(simulator or self.simulator, self.folder)) as vcenter:
            return read_inventory(vcenter).machines

    def points(self) -> list[PointSummary]:
        """As a new process finds them."""
        return reopened(self.repository).catalog.refresh()

    def content(self, point: PointSummary) -> list[bytes]:
        """The bytes of its disks."""
        disks = self.repository.point(point.point_id).disks
        return [read_disk(self.repository, disk) for disk in disks]

    def live(self, vm: str) -> bytes:
        """What the guest reads now on its first disk."""
        return self.simulator.live_disk(vm).read_bytes()

    def assert_nothing_left(self, users: Sequence[str] = ()) -> None:
        """No snapshot but the users', no delta disk, an empty ledger, a clean repository."""
        for machine in self.machines():
            assert {note.name for note in machine.snapshots} <= set(users), machine
            assert machine.snapshots or not any(disk.has_parent for disk in machine.disks)
            assert not machine.consolidation_needed
        with Ledger(make_state_folder(self.state).ledger) as ledger:
            assert ledger.open_effects() == []
            assert ledger.damage() == []
        assert_clean(self.repository)


def assert_sound(record: RunRecord) -> None:
    """It can be kept as JSON, and nothing in it is negative, whatever the clock did."""

    def look(value: object) -> None:
        match value:
            case dict():
                look(list(value.values()))
            case list():
                for item in value:
                    look(item)
            case int() | float():
                assert value >= 0, record

    look(json.loads(json.dumps(record.record(), allow_nan=False)))


def opened_at(path: Path, clock: Callable[[], float]) -> Repository:
    """The repository there, by the owner."""
    return open_repository(LocalStore(path), PASSPHRASE, clock)


@contextmanager
def running_site(folder: Path, *, disks: bool = False, **options: Any) -> Iterator[Site]:
    """disks: each VM gets one with content of its own, else it is empty. options: the
    simulator's."""
    with running_simulator(folder / "vcsim", **options) as simulator:
        for number, vm in enumerate(simulator.vms() if disks else ()):
            simulator.attach(vm, guest_disk(folder, 1 << 20, seed=number))
        new_repository(LocalStore(folder / "repository"))
        clock = Clock()
        site = Site(simulator, folder, opened_at(folder / "repository", clock), clock)
        site.configure()
        yield site
