"""The run of a job: its limits hold, what may pass is tried again, one VM's trouble is its own, and
every VM is in the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from agent_site import NIGHTLY, Site, assert_sound, running_site
from backpoint_agent.jobs import job_run
from backpoint_agent.jobs.job_run import JobOrder, run_job
from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.machine import Machine
from backpoint_agent.running.outcome import MachineOutcome
from backpoint_agent.transport.bandwidth import Bandwidth
from vcsim import Simulator

NAMES = [f"DC0_C0_RP0_VM{number}" for number in range(6)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Three VMs, each with content of its own."""
    with running_site(tmp_path, disks=True, vms=3) as ready:
        yield ready


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Six VMs with empty disks on two hosts and two datastores."""
    folder = tmp_path_factory.mktemp("crowd")
    with running_site(folder, vms=6, hosts=2, datastores=2) as ready:
        yield ready


def by_name(record: RunRecord) -> dict[str, MachineOutcome]:
    """The outcomes; the record is one that can be kept."""
    assert_sound(record)
    return {outcome.vm: outcome for outcome in record.outcomes}


def statuses(record: RunRecord) -> dict[str, str]:
    return {name: outcome.status for name, outcome in by_name(record).items()}


# Limits


@dataclass
class Concurrency:
    """The most snapshots that there were at once: of all, of a host, of a datastore."""

    all: int
    host: int
    datastore: int


def concurrency(simulator: Simulator, machines: tuple[Machine, ...]) -> Concurrency:
    """Out of what vCenter was asked for: a snapshot is there from its order to its removal's."""
    known = {machine.moref: machine for machine in machines}
    open_on: Counter[tuple[str, str]] = Counter()
    most: Counter[str] = Counter()
    for call in simulator.calls():
        step = {"CreateSnapshot_Task": 1, "RemoveSnapshot_Task": -1}.get(call.method, 0)
        if step:
            machine = known[call.vm]
            for place in (
                ("all", ""),
                ("host", machine.host),
                *(("datastore", name) for name in machine.datastores),
            ):
                open_on[place] += step
                most[place[0]] = max(most[place[0]], open_on[place])
    assert not +open_on
    return Concurrency(most["all"], most["host"], most["datastore"])


@pytest.mark.parametrize(
    ("limits", "account", "most"),
    [
        ("machines_at_once = 3", "", Concurrency(3, 3, 3)),
        ("machines_at_once = 8\nper_host = 1", "", Concurrency(2, 1, 2)),
        ("machines_at_once = 8\nper_datastore = 1", "", Concurrency(2, 2, 1)),
        ("machines_at_once = 8", "machines_at_once = 2", Concurrency(2, 2, 2)),
        ("machines_at_once = 8", "nfc_connections = 2", Concurrency(2, 2, 2)),
    ],
)
def test_limits_are_held_and_used(
    crowd: Site, limits: str, account: str, most: Concurrency
) -> None:
    """As vCenter sees it: never more snapshots at once than allowed, on a host, on a datastore, of
    the job, of the vCenter; and at some time as many."""
    crowd.configure(f"{NIGHTLY}{limits}\n", account=f"request_limit_s = 2\n{account}")
    crowd.simulator.slow_tasks("CreateSnapshot_Task", 0.1)
    crowd.simulator.forget_calls()
    record = crowd.run()
    assert record.good, record
    assert len(record.outcomes) == 6
    seen = concurrency(crowd.simulator, crowd.machines())
    assert seen.all == most.all
    assert seen.host <= most.host
    assert seen.datastore <= most.datastore


def test_two_jobs_share_a_vcenters_limit(crowd: Site) -> None:
    """Together they have no more VMs than it allows, and both come to their end."""
    jobs = "".join(
        f"[jobs.{name}]\nselect = {{ names = {names} }}\ntransports = ['https']\n"
        for name, names in (("first", NAMES[:3]), ("second", NAMES[3:]))
    )
    crowd.configure(jobs, account="request_limit_s = 2\nmachines_at_once = 3")
    crowd.simulator.slow_tasks("CreateSnapshot_Task", 0.1)
    crowd.simulator.forget_calls()
    records: list[RunRecord] = []

    async def both() -> None:
        async def one(job: str) -> None:
            records.append(await run_job(office, JobOrder(office.settings.jobs[job])))

        async with trio.open_nursery() as nursery:
            for job in office.settings.jobs:
                nursery.start_soon(one, job)

    with crowd.office() as office:
        trio.run(both)
    assert [record.good for record in records] == [True, True]
    assert {outcome.vm for record in records for outcome in record.outcomes} == set(NAMES)
    assert concurrency(crowd.simulator, crowd.machines()).all == 3


def test_the_bandwidth_is_one_for_all_vms(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes that are read are asked for, of one and the same bucket, at the job's rate."""
    made: list[tuple[float, list[int]]] = []

    class Counting(Bandwidth):
        def __init__(self, rate: float) -> None:
            super().__init__(rate)
            self.asked: list[int] = []
            made.append((rate, self.asked))

        def reserve(self, count: int) -> float:
            self.asked.append(count)
            return super().reserve(count)

    monkeypatch.setattr(job_run, "Bandwidth", Counting)
    site.configure(f'{NIGHTLY}bandwidth = "64M"\n')
    record = site.run()
    assert record.good
    ((rate, asked),) = made
    assert rate == 64 << 20
    assert sum(asked) == sum(outcome.read for outcome in record.outcomes) == 3 << 20


# Tries


def test_what_may_pass_is_tried_again(site: Site) -> None:
    """Until it goes well; how often is counted, and why it was repeated stays in the record."""
    first, *_ = site.vms
    site.simulator.fault("CreateSnapshot_Task", "ResourceInUse", vm=first, count=2)
    record = site.run()
    outcomes = by_name(record)
    assert record.good
    assert [outcomes[name].tries for name in NAMES[:3]] == [3, 1, 1]
    assert [text[:6] for text in outcomes[NAMES[0]].warnings] == ["try 1:", "try 2:"]
    assert len(site.points()) == 3
    site.assert_nothing_left()


def test_tries_come_to_an_end(site: Site) -> None:
    """After as many as the job allows the VM has failed, with the last reason."""
    first, *_ = site.vms
    site.simulator.fault("CreateSnapshot_Task", "ResourceInUse", vm=first, count=-1)
    record = site.run()
    outcome = by_name(record)[NAMES[0]]
    assert (outcome.status, outcome.tries) == ("failed", 3)
    assert not record.good
    assert [outcome.vm for outcome in record.failed] == [NAMES[0]]
    site.assert_nothing_left()


def test_what_stays_is_not_tried_again(site: Site) -> None:
    """A privilege that is missing will be missing in a minute."""
    site.simulator.refuse_privilege("VirtualMachine.State.CreateSnapshot")
    outcomes = by_name(site.run())
    assert {(o.status, o.tries) for o in outcomes.values()} == {("failed", 1)}
    assert all("VirtualMachine.State.CreateSnapshot" in o.error for o in outcomes.values())
    site.assert_nothing_left()


def test_alarms_of_earlier_tries_are_kept(site: Site) -> None:
    """A try that left something to look at is not forgotten because the next one went well."""
    question = '[[jobs.nightly.questions]]\ntext = "*really*"\nanswer = "yes"\n'
    site.configure(NIGHTLY + question, account="request_limit_s = 0.5")
    assert site.run(only=NAMES[0]).good
    first, *_ = site.vms
    site.simulator.question(first, "really?", ["yes", "no"], on_task="CreateSnapshot_Task")
    site.simulator.http_status(503, -1, "QueryChangedDiskAreas")
    asked: list[str] = []

    def recover(_: str, phase: str) -> None:
        asked.append(phase)
        if asked.count("asking what changed") == 2:
            site.simulator.clear()

    site.watcher.on = recover
    outcome = by_name(site.run(only=NAMES[0]))[NAMES[0]]
    assert (outcome.status, outcome.tries) == ("done", 2)
    assert any("really?" in alarm for alarm in outcome.alarms)
    assert any("503" in warning for warning in outcome.warnings)
    site.assert_nothing_left()


# One VM's trouble is its own


def test_a_bug_in_one_run_takes_no_other_vm(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """The VM has failed, the traceback is on stderr, its snapshot is gone; the others are good."""

    def break_one(vm: str, phase: str) -> None:
        if (vm, phase) == (NAMES[1], "reading"):
            raise KeyError("a bug")

    site.watcher.on = break_one
    record = site.run()
    assert statuses(record) == {NAMES[0]: "done", NAMES[1]: "failed", NAMES[2]: "done"}
    assert "a bug in backpoint: KeyError" in by_name(record)[NAMES[1]].error
    assert "KeyError: 'a bug'" in capfd.readouterr().err
    site.watcher.on = None
    site.assert_nothing_left()


def test_a_bug_outside_the_vms_is_in_the_record(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The run ends with a record in which each VM was not started."""

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(job_run, "transports_of", broken)
    record = site.run()
    assert "a bug in backpoint: RuntimeError: a bug" in record.trouble
    assert set(statuses(record).values()) == {"not-started"}
    assert "Traceback" in capfd.readouterr().err


def test_vms_that_cannot_or_shall_not_be_backed_up(site: Site) -> None:
    """What the job wants and vCenter hinders has failed; what it leaves out is named."""
    _, second, _ = site.vms
    site.simulator.connection_state(second, "inaccessible")
    site.configure(f"{NIGHTLY}[jobs.nightly.exclude]\nnames = ['*VM2', 'nobody']\n")
    record = site.run()
    assert statuses(record) == {NAMES[0]: "done", NAMES[1]: "failed"}
    assert "inaccessible" in by_name(record)[NAMES[1]].error
    assert by_name(record)[NAMES[1]].tries == 0
    assert [name for name, _ in record.skipped] == [NAMES[2]]
    assert any("nobody" in warning for warning in record.warnings)
    assert not record.good


def test_a_job_of_nothing_is_trouble(site: Site) -> None:
    """A misspelt name must not pass for a good night."""
    site.configure("[jobs.nightly]\nselect = { names = ['wbe*'] }\n")
    record = site.run()
    assert not record.good
    assert "selects no VM" in record.trouble


def test_only_one_vm(site: Site) -> None:
    """By name, moref or instanceUuid; one that is not there is trouble, and not an exception."""
    for text in (NAMES[1], site.vms[1], site.machines()[1].identity.instance):
        assert list(statuses(site.run(only=text)).items()) == [(NAMES[1], "done")]
    assert "there is no VM" in site.run(only="nobody").trouble


# The window, and stops


def ends(site: Site, at_end: str) -> float:
    """A job of one VM at a time, whose window ends while the first is read; the window's end."""
    site.configure(
        f'{NIGHTLY}machines_at_once = 1\n[jobs.nightly.window]\nstart = "00:00"\nend = "00:01"\n'
        f'at_end = "{at_end}"\n'
    )

    def later() -> None:
        site.clock.ahead = 7200.0

    site.watcher.once("reading", later)
    return site.clock() + 3600.0


def test_at_the_windows_end_what_runs_is_finished(site: Site) -> None:
    """What does not start in it is reported, with the reason."""
    record = site.run(until=ends(site, "finish"))
    assert statuses(record) == {
        NAMES[0]: "done", NAMES[1]: "not-started", NAMES[2]: "not-started"
    }  # fmt: skip
    assert "window of nightly has ended" in by_name(record)[NAMES[2]].error
    assert not record.good
    site.assert_nothing_left()


def test_at_the_windows_end_what_runs_is_stopped(site: Site) -> None:
    """If the job says so: no point of it, no snapshot."""
    until = ends(site, "stop")
    site.simulator.hang_tasks("CreateSnapshot_Task")

    def later(vm: str, phase: str) -> None:
        if phase == "waiting for the snapshot":
            site.clock.ahead = 7200.0

    site.watcher.on = later
    record = site.run(until=until)
    assert statuses(record) == {
        NAMES[0]: "stopped", NAMES[1]: "not-started", NAMES[2]: "not-started"
    }  # fmt: skip
    assert "window of nightly has ended" in by_name(record)[NAMES[0]].error
    assert site.points() == []
    site.simulator.release_tasks()
    site.assert_nothing_left()


@pytest.mark.parametrize("phase", ["waiting for the snapshot", "reading", "removing the snapshot"])
def test_a_stop_at_any_point_is_clean(site: Site, phase: str) -> None:
    """Every VM is in the record: stopped, done just then, or not started; no snapshot stays, and
    what vCenter takes its time for is not waited for."""
    site.configure(f"{NIGHTLY}machines_at_once = 2\n")
    if phase == "waiting for the snapshot":
        site.simulator.hang_tasks("CreateSnapshot_Task")
    site.watcher.once(phase, lambda: site.stop.request("a test"))
    record = site.run()
    found = statuses(record)
    assert list(found) == NAMES[:3]
    assert found[NAMES[2]] == "not-started"
    assert "a test" in by_name(record)[NAMES[2]].error
    assert set(found.values()) <= {"stopped", "not-started", "done"}
    done = [name for name, status in found.items() if status == "done"]
    assert [point.vm for point in site.points()] == done
    assert (phase == "removing the snapshot") == (done != [])
    site.simulator.release_tasks()
    site.assert_nothing_left()


def test_a_stop_does_not_wait_for_another_try(site: Site) -> None:
    """A VM that waits for its next try has failed, with its own reason."""
    first, *_ = site.vms
    site.configure(NIGHTLY.replace("0.1", "3600"))
    site.simulator.fault("CreateSnapshot_Task", "ResourceInUse", vm=first, count=-1)
    left = set(NAMES[:3])

    def stop_at_last(vm: str, phase: str) -> None:
        if phase == "removing the snapshot":
            left.discard(vm)
        if left == {NAMES[0]}:
            site.stop.request("a test")

    site.watcher.on = stop_at_last
    record = site.run()
    outcome = by_name(record)[NAMES[0]]
    assert (outcome.status, outcome.tries) == ("failed", 1)
    assert "a test" not in outcome.error


def test_a_stop_before_it_began(site: Site) -> None:
    """vCenter is not even asked; the record says why."""
    site.stop.request("a test")
    site.simulator.forget_calls()
    record = site.run()
    assert record.trouble == "stopped: a test"
    assert record.outcomes == ()
    assert site.simulator.calls() == []


def test_progress_is_told(site: Site) -> None:
    """The phases of each VM, and every byte of its disks."""
    site.run()
    assert site.watcher.advanced == 3 << 20
    assert site.watcher.phases.count("reading") == 3
