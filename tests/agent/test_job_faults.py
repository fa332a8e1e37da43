"""What happens around a job while it runs: vCenter goes, VMs move, the disk is full, clocks jump.

Points are whole or not there, and what can be made good is made good.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from agent_site import NIGHTLY, Site, assert_sound, running_site
from backpoint_agent.jobs import job_run
from backpoint_agent.running.parts import RunParts
from vcsim.client import Client, connected, done, drop, snapshot

# CPython forgets to close a socket whose peer resets it between connect and handshake.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed .*TrustedSocket:ResourceWarning")

NAMES = [f"DC0_C0_RP0_VM{number}" for number in range(3)]
ONE_BY_ONE = f"{NIGHTLY}machines_at_once = 1\n"
MIB = 1 << 20
DAY_S = 86_400.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Two VMs on two hosts and two datastores."""
    with running_site(tmp_path, disks=True, vms=2, datastores=2) as ready:
        yield ready


@pytest.fixture
def admin(site: Site) -> Iterator[Client]:
    with connected(site.simulator) as client:
        yield client


@contextmanager
def later(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Do it from another thread after a while."""
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def how(site: Site, **order: Any) -> list[list[str]]:
    """Run the job, which must go well; how each VM's disks were read."""
    record = site.run(**order)
    assert_sound(record)
    assert record.good, record
    return [[disk.how for disk in outcome.disks] for outcome in record.outcomes]


def assert_newest_are_live(site: Site) -> None:
    """The newest point of each VM holds what its guest reads now."""
    newest = {point.vm: point for point in sorted(site.points(), key=lambda p: p.generation)}
    contents = sorted(site.content(point)[0] for point in newest.values())
    assert contents == sorted(site.live(vm) for vm in site.vms)


# vCenter


def test_vcenter_is_down(site: Site) -> None:
    """The run ends with trouble that names it, after as many tries as the job allows."""
    site.configure(account="request_limit_s = 0.3")
    site.simulator.stop()
    record = site.run()
    assert_sound(record)
    assert f"{site.simulator.host}:{site.simulator.port}" in record.trouble
    assert record.outcomes == ()
    assert not record.good
    site.simulator.start()
    assert how(site) == [["full"], ["full"]]


def test_vcenter_comes_while_the_job_waits_for_it(site: Site) -> None:
    """Later than one try's limit: the next one finds it."""
    site.configure(NIGHTLY + "retries = 20\n", account="request_limit_s = 0.3")
    site.simulator.stop()
    with later(1.0, site.simulator.start):
        assert how(site) == [["full"], ["full"]]


@pytest.mark.parametrize(
    ("what", "phase"),
    [
        ("stop", "waiting for the snapshot"),
        ("stop", "reading"),
        ("stop", "removing the snapshot"),
        ("restart", "waiting for the snapshot"),
        ("expire_sessions", "removing the snapshot"),
        ("garbage", "removing the snapshot"),
    ],
)
def test_vcenter_goes_in_the_middle(
    site: Site, what: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And comes back, without its sessions: all VMs have their points, nothing is left."""
    monkeypatch.setattr(job_run, "RunParts", partial(RunParts, again_s=0.5))
    simulator = site.simulator
    site.configure(NIGHTLY + "retries = 5\n")
    timers: list[threading.Timer] = []

    def go() -> None:
        if what == "stop":
            simulator.stop()
            timers.append(threading.Timer(0.7, simulator.start))
            timers[0].start()
        elif what == "garbage":
            simulator.garbage(3)
        else:
            getattr(simulator, what)()

    site.watcher.once(phase, go)
    assert how(site)
    for timer in timers:
        timer.join()
    assert_newest_are_live(site)
    site.assert_nothing_left()


def test_the_session_is_kept_alive(site: Site) -> None:
    """While all wait for a slow task, vCenter hears of us."""
    site.configure(account="request_limit_s = 2\nkeep_alive_s = 0.1")
    site.simulator.slow_tasks("CreateSnapshot_Task", 0.7)
    assert how(site)
    assert sum(call.method == "CurrentTime" for call in site.simulator.calls()) >= 3


def test_one_session_for_all_vms(site: Site) -> None:
    """One login and one logout, and one look at the inventory, however many VMs there are."""
    site.simulator.forget_calls()
    assert how(site)
    methods = [call.method for call in site.simulator.calls()]
    assert methods.count("Login") == methods.count("Logout") == 1
    assert methods.count("CreateContainerView") == 2


# VMs that do not stay as they were


def test_a_vm_that_moves_between_sweep_and_run(site: Site, admin: Client) -> None:
    """To another host and datastore: it is backed up where it is then; tracking begins anew."""
    site.configure(ONE_BY_ONE)
    assert how(site) == [["full"], ["full"]]
    vm = admin.vm(1)
    host = next(h for h in admin.cluster.host if h._moId != vm.runtime.host._moId)
    store = next(d for d in admin.datacenter.datastore if d._moId != vm.datastore[0]._moId)
    spec = vim.vm.RelocateSpec(datastore=store, host=host)
    site.watcher.once("reading", lambda: done(vm.RelocateVM_Task(spec)))
    assert how(site) == [["changed"], ["compare"]]
    assert site.machines()[1].datastores == (store.name,)
    assert_newest_are_live(site)
    site.assert_nothing_left()


def test_a_vm_that_moves_to_another_host_while_it_is_read(site: Site, admin: Client) -> None:
    """vMotion leaves snapshot and files where they are; tracking goes on."""
    assert how(site, only=NAMES[0]) == [["full"]]
    vm = admin.vm(0)
    host = next(h for h in admin.cluster.host if h._moId != vm.runtime.host._moId)
    site.simulator.write(vm._moId, MIB // 2, b"new" * 1000)
    now = site.live(vm._moId)
    site.watcher.once("reading", lambda: done(vm.MigrateVM_Task(None, host, "defaultPriority")))
    assert how(site, only=NAMES[0]) == [["changed"]]
    assert site.machines()[0].host == host.name
    assert site.content(site.points()[-1]) == [now]
    site.assert_nothing_left()


def test_a_vm_that_is_renamed(site: Site, admin: Client) -> None:
    """In the middle of its run, then before the next: its history stays one, under the old name."""
    assert how(site, only=NAMES[0]) == [["full"]]
    site.watcher.once("reading", lambda: done(admin.vm(0).Rename_Task("renamed")))
    assert how(site, only=NAMES[0]) == [["changed"]]
    record = site.run(only="renamed")
    assert record.good
    assert any("was renamed" in warning for warning in record.outcomes[0].warnings)
    points = sorted(site.points(), key=lambda point: point.generation)
    assert [(point.vm, point.generation) for point in points] == [
        (NAMES[0], number) for number in range(3)
    ]
    site.assert_nothing_left()


def test_two_vms_of_one_name(site: Site, admin: Client) -> None:
    """Each has its own history, run for run, whichever is first."""
    branch = admin.datacenter.vmFolder.CreateFolder("branch")
    done(branch.MoveIntoFolder_Task([admin.vm(1)]))
    done(admin.vm(1).Rename_Task(NAMES[0]))
    assert how(site) == [["full"], ["full"]]
    assert how(site) == [["changed"], ["changed"]]
    points = site.points()
    assert sorted(point.generation for point in points) == [0, 0, 1, 1]
    assert len({point.vm for point in points}) == 2
    assert_newest_are_live(site)
    ambiguous = site.run(only=NAMES[0])
    assert "2 VMs are named" in ambiguous.trouble


def test_a_vm_that_is_reverted_between_runs(site: Site, admin: Client) -> None:
    """What its change ids said of is another past: compared whole, and right."""
    vm = admin.vm(0)
    past = snapshot(vm)
    site.simulator.write(vm._moId, 4096, b"undone later" * 100)
    done(past.RevertToSnapshot_Task())
    drop(past)
    assert how(site, only=NAMES[0]) == [["full"]]
    past = snapshot(vm)
    site.simulator.write(vm._moId, 4096, b"undone again" * 100)
    done(past.RevertToSnapshot_Task())
    drop(past)
    assert how(site, only=NAMES[0]) == [["compare"]]
    assert site.content(site.points()[-1]) == [site.live(vm._moId)]
    site.assert_nothing_left()


def test_a_vm_that_is_reverted_while_it_is_read(site: Site, admin: Client) -> None:
    """By an administrator who takes our snapshot for a good one: the point is of its moment."""
    vm = admin.vm(0)
    before = site.live(vm._moId)

    def revert() -> None:
        site.simulator.write(vm._moId, 0, b"after the snapshot")
        done(vm.RevertToCurrentSnapshot_Task())

    site.watcher.once("reading", revert)
    assert how(site, only=NAMES[0]) == [["full"]]
    assert site.content(site.points()[0]) == [before]
    assert how(site, only=NAMES[0]) == [["compare"]]
    assert site.content(site.points()[-1]) == [site.live(vm._moId)]
    site.assert_nothing_left()


def test_a_vm_that_is_reconfigured_while_it_is_read(site: Site) -> None:
    """A disk that comes meanwhile is not in this point, and is in the next."""
    vm = site.vms[0]
    site.watcher.once("reading", lambda: site.simulator.add_disk(vm, MIB))
    assert how(site, only=NAMES[0]) == [["full"]]
    assert how(site, only=NAMES[0]) == [["changed", "full"]]
    assert sorted(point.disks for point in site.points()) == [1, 2]
    site.assert_nothing_left()


def test_a_vm_that_is_powered_off_hard_while_it_is_read(site: Site) -> None:
    """The point is of the snapshot; the next run trusts no change id."""
    vm = site.vms[0]
    site.watcher.once("reading", lambda: site.simulator.crash(vm))
    assert how(site, only=NAMES[0]) == [["full"]]
    assert how(site, only=NAMES[0]) == [["compare"]]
    site.assert_nothing_left()


# The repository


@contextmanager
def small_place(folder: Path, size: str) -> Iterator[None]:
    """A filesystem that is soon full."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_repository_that_is_full(tmp_path: Path) -> None:
    """It is said, snapshots are gone, no half point; with more room the next run is good."""
    with (
        small_place(tmp_path / "repository", "256k"),
        running_site(tmp_path, disks=True, vms=2) as site,
    ):
        record = site.run()
        assert {outcome.status for outcome in record.outcomes} <= {"done", "failed"}
        assert "No space left on device" in record.failed[0].error
        assert record.failed[0].tries == 1
        site.assert_nothing_left()
        room = ["mount", "-o", "remount,size=16M", str(tmp_path / "repository")]
        subprocess.run(room, check=True)
        assert how(site)
        assert_newest_are_live(site)
        site.assert_nothing_left()


def test_a_full_repository_stuns_no_further_vm(tmp_path: Path) -> None:
    """Those that had not begun are not begun, and their record says why."""
    with (
        small_place(tmp_path / "repository", "200k"),
        running_site(tmp_path, disks=True, vms=3) as site,
    ):
        site.configure(ONE_BY_ONE)
        record = site.run()
        idle = [outcome for outcome in record.outcomes if outcome.status == "not-started"]
        assert idle
        assert all("No space left on device" in outcome.error for outcome in idle)
        snapshots = [c for c in site.simulator.calls() if c.method == "CreateSnapshot_Task"]
        assert len(snapshots) == len(record.outcomes) - len(idle)
        site.assert_nothing_left()


def test_an_outage_while_reading_is_tried_again(site: Site) -> None:
    """Until the VM has failed of it: its next try is good."""
    site.configure(f"{ONE_BY_ONE}retries = 5\n")
    acts = {"reading": site.simulator.stop, "removing the snapshot": site.simulator.start}

    def on(_: str, text: str) -> None:
        if text in acts and (text == "reading" or "reading" not in acts):
            acts.pop(text)()

    site.watcher.on = on
    record = site.run()
    assert not record.failed, record
    assert sorted(outcome.tries for outcome in record.outcomes) == [1, 2]
    assert_newest_are_live(site)
    site.assert_nothing_left()


# The clock


def test_the_clock_jumps_in_the_middle(site: Site) -> None:
    """Points keep their order, the next run goes on from the newest, no duration is negative."""
    for generation, jump_s in enumerate((0.0, -DAY_S, -3600.0, 3600.0, DAY_S)):
        site.simulator.write(site.vms[0], generation * 8192, b"new" * 100)

        def jump(by: float = jump_s) -> None:
            site.clock.ahead += by

        site.watcher.once("reading", jump)
        assert how(site, only=NAMES[0]) == [["full" if generation == 0 else "changed"]]
        newest = max(site.points(), key=lambda point: point.generation)
        assert newest.generation == generation
        assert site.content(newest) == [site.live(site.vms[0])]
        assert site.repository.point(newest.point_id).duration_s >= 0
    site.assert_nothing_left()
