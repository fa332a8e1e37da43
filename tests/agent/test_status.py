"""`backpoint agent status`: what it says of records, repository, ledger and locks as they are."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from backpoint_agent.ledger import Ledger
from backpoint_agent.local_zone import LocalZone
from backpoint_agent.machine import Identity
from backpoint_agent.machine_lock import machine_lock
from backpoint_agent.report.repository_points import read_points
from backpoint_agent.report.restores import save_restore
from backpoint_agent.report.run_report import report_run
from backpoint_agent.report.status import Status, read_status
from backpoint_agent.report.status_table import print_status
from backpoint_agent.running.outcome import MachineOutcome
from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.read import read_settings_file
from backpoint_agent.state_folder import StateFolder
from backpoint_agent.stopping import Stop
from backpoint_repo.errors import KeyFault, StoreUnavailable
from backpoint_repo.point import ORIGIN, Point
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from command_line import COMMAND, CommandLine, Said, make_repository, opened
from config_text import VALID
from run_records import (
    DAY,
    GIB,
    HOUR,
    NIGHT,
    failed_outcome,
    full_outcome,
    identity_of,
    some_outcome,
    some_run,
    state_of,
)
from small_repository import new_repository

JOB = 'schedule = "0 2 * * *"\nrpo_hours = 26\nwindow = { start = "22:00", end = "06:00" }\n'


@dataclass(frozen=True)
class Place:
    """A configuration with its repository, as the command line sees it."""

    line: CommandLine
    config: Path
    repository: Repository

    @property
    def settings(self) -> Settings:
        return read_settings_file(self.config)

    @property
    def state(self) -> StateFolder:
        return state_of(self.settings)

    def status(self, *words: str, code: int = 0) -> Said:
        """The command, run to its end."""
        return self.line.run("agent", "status", "-c", self.config, *words, code=code)

    def records(self, code: int = 0) -> dict[str, list[dict[str, Any]]]:
        """What --json prints, by type."""
        found: dict[str, list[dict[str, Any]]] = {}
        for text in self.status("--json", code=code).out.splitlines():
            record = json.loads(text)
            found.setdefault(record["type"], []).append(record)
        return found

    def report(self, *outcomes: MachineOutcome, **changes: Any) -> None:
        """A run has ended."""
        at = max((outcome.started for outcome in outcomes), default=time.time())
        report_run(self.settings, self.state, some_run(*outcomes, at=at, **changes))

    def stored(self, vm: str, at: float, **changes: Any) -> MachineOutcome:
        """A VM with a point that is there."""
        point = publish(self.repository, vm, at)
        return full_outcome(vm, at, point=point.point_id.hex(), point_time=point.time, **changes)


def publish(
    repository: Repository,
    vm: str,
    at: float,
    identity: str = "",
    *,
    from_live: bytes | None = None,
) -> Point:
    """A point without disks. identity: of whom it says it is. from_live: the point that the live
    session stood on which wrote it."""
    vcenter, _, instance = (identity or identity_of(vm)).partition("/")
    capture: dict[str, Any] = {"kind": "vsphere", "vcenter": vcenter, "instance": instance}
    capture["name"] = vm
    if from_live is not None:
        capture[ORIGIN] = {"session": "trial"}
    with repository.begin_backup(vm, from_live) as session:
        return session.publish(time=at, label="", capture=capture)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """One job, `nightly`, that has not run yet."""
    owner, agent = make_repository(tmp_path, tmp_path / "repository")
    config = tmp_path / "backpoint.toml"
    text = VALID.replace("/srv/backpoint", "repository") + JOB
    config.write_text(f'state = "state"\n{text}')
    return Place(agent, config, opened(owner))


def test_all_is_well(place: Place) -> None:
    """Two VMs with fresh points: code 0, all figures in the tables and nothing on stderr."""
    now = time.time()
    for hours in (49, 25, 1):
        vms = [place.stored(vm, now - hours * HOUR, ended=now) for vm in ("web01", "db01")]
        place.report(*vms)
    said = place.status()
    assert said.err == ""
    lines = [line.split() for line in said.out.splitlines()]
    job = next(line for line in lines if line[:1] == ["nightly"])
    assert job[3:6] == ["2", "of", "2"]
    assert "22:00-06:00" in job
    web = next(line for line in lines if line[:1] == ["web01"])
    assert web[2] == "done"
    assert web[4:-1] == ["60", "min", "24.0", "h", "26.0", "h"]
    assert "the last full" in said.out
    everything = place.records()
    assert everything["status"][0]["well"] is True
    [record] = everything["job"]
    assert record["last"]["good"] is True
    assert 0 < record["next"] - now < DAY + 3 * HOUR
    vm = everything["vm"][0]
    assert vm["vm"] == "db01"
    assert vm["age_s"] == pytest.approx(HOUR, abs=60)
    assert (vm["longest_gap_s"], vm["rpo_wanted_s"]) == (pytest.approx(DAY), 26 * HOUR)
    assert (vm["rpo_missed"], vm["rto_estimated_by"]) == (False, "the last full")


def test_what_needs_a_look_gives_code_7(place: Place) -> None:
    """A missed RPO, an alarm, a failed VM and what is to be reaped are each said."""
    now = time.time()
    place.report(place.stored("late", now - 30 * HOUR), place.stored("odd", now - 30 * HOUR))
    odd = place.stored("odd", now - HOUR, alarms=("change tracking lied",))
    place.report(failed_outcome("late", now - HOUR, error="no answer"), odd)
    with Ledger(place.state.ledger) as ledger:
        ledger.intend("snapshot", "vc", "vm-1", "late", {"name": "ours"})
    said = place.status(code=7)
    for text in (
        "late: RPO missed: the newest point is 30.0 h old, wanted is 26.0 h",
        "late: failed: no answer",
        "odd: ALARM: change tracking lied",
        "left behind by runs that were cut off: 1;",
    ):
        assert f"backpoint: warning: {text}" in said.err
    assert "to be reaped: late: snapshot of" in said.out
    assert "FAILED, 1 of 2 VMs, 1 alarms" in said.out
    assert "26.0 h MISSED" in said.out
    records = place.records(code=7)
    assert records["status"][0]["well"] is False
    assert {vm["vm"]: vm["rpo_missed"] for vm in records["vm"]} == {"late": True, "odd": False}
    assert records["effect"][0]["kind"] == "snapshot"


def test_before_the_first_run(place: Place) -> None:
    """Nothing is wrong, and nothing is made up."""
    said = place.status()
    assert "no run is recorded" in said.out
    assert said.err == ""


def test_a_run_under_way_is_shown_and_left_alone(place: Place) -> None:
    """By the lock it holds, which nobody else has taken meanwhile; one that ended is not shown."""
    place.report(place.stored("web01", time.time() - HOUR), place.stored("db01", time.time()))
    vcenter, _, instance = identity_of("web01").partition("/")
    locks, web = place.state.locks, Identity(vcenter, instance)
    with machine_lock(locks, web, "web01", "backup", limit_s=0, stop=Stop()):
        [work] = place.records()["under-way"]
        assert (work["vm"], work["pid"], work["purpose"]) == ("web01", os.getpid(), "backup")
    with machine_lock(locks, Identity("vc", "stranger"), "x", "restore", limit_s=0, stop=Stop()):
        [unknown] = look(place.settings, place.repository, NIGHT).work
        assert unknown.key == ""
        assert unknown.holder is not None
        assert unknown.holder.purpose == "restore"
    assert look(place.settings, place.repository, NIGHT).work == ()


def test_a_repository_that_is_gone_is_trouble(place: Place) -> None:
    """The points are then those of the records; that they may not be there is said."""
    place.report(some_outcome("web01", time.time() - HOUR))
    os.rename(place.line.repo, place.line.repo.with_name("elsewhere"))
    said = place.status(code=7)
    assert "points are those of the records, not of the repository" in said.err
    assert "60 min" in said.out


def look(settings: Settings, repository: Repository | Exception, at: float) -> Status:
    """The status at a moment, without the command."""

    def open_it(_: Settings) -> Repository:
        if isinstance(repository, Exception):
            raise repository
        return repository

    return read_status(
        settings, state_of(settings), open_it, datetime.fromtimestamp(at, LocalZone())
    )


def test_without_a_key_the_records_have_to_do(place: Place) -> None:
    """Who was given no key may look all the same; a key that was given and is wrong is trouble."""
    settings = place.settings
    place.report(some_outcome("a", NIGHT))
    fault = KeyFault("no passphrase")
    assert not look(settings, fault, NIGHT + HOUR).is_well
    without = settings.repository.model_copy(update={"credential": None})
    found = look(settings.model_copy(update={"repository": without}), fault, NIGHT + HOUR)
    assert found.is_well
    assert "no passphrase" in found.notes[0]
    down = look(settings, StoreUnavailable("the share is not mounted"), NIGHT + HOUR)
    assert "not mounted" in down.troubles[0]


def test_points_are_those_of_the_repository(place: Place) -> None:
    """One that is gone does not count, one made elsewhere does; another VM's of the name never."""
    repository = new_repository(MemoryStore())
    publish(repository, "elsewhere", NIGHT - HOUR)
    publish(repository, "stranger", NIGHT - HOUR, identity="another-vcenter/another-vm")
    publish(repository, "own", NIGHT - 2 * HOUR)
    place.report(
        some_outcome("gone", NIGHT - HOUR),
        some_outcome("elsewhere", NIGHT - 30 * HOUR),
        failed_outcome("stranger", NIGHT - HOUR),
        failed_outcome("own", NIGHT - HOUR),
    )
    found = {
        m.outcome.vm: m.reached.age_s for m in look(place.settings, repository, NIGHT).machines
    }
    assert found == {"gone": None, "elsewhere": HOUR, "stranger": None, "own": 2 * HOUR}


def test_a_renamed_vm_is_sought_under_the_name_it_is_stored_as(place: Place) -> None:
    """Its points stay under the name of its first one."""
    repository = new_repository(MemoryStore())
    publish(repository, "old-name", NIGHT - HOUR)
    publish(repository, "new-name", NIGHT, identity="vc/another")
    renamed = some_outcome("new-name", NIGHT - HOUR, stored_as="old-name")
    place.report(failed_outcome("new-name", NIGHT - 2 * HOUR))
    place.report(renamed)
    [machine] = look(place.settings, repository, NIGHT).machines
    assert machine.reached.age_s == HOUR


def test_points_are_taken_in_the_order_they_were_made(place: Place) -> None:
    """A generation says it; a point that a clock ahead dated later does not count."""
    repository = new_repository(MemoryStore())
    wrong = publish(repository, "a", NIGHT + 20 * HOUR)
    right = publish(repository, "a", NIGHT)
    place.report(some_outcome("a", NIGHT, point=right.point_id.hex()))
    found = look(place.settings, repository, NIGHT + 30 * HOUR)
    points, unreadable = read_points(repository, [found.jobs[0].history])
    assert [point for point, _ in points[identity_of("a")]] == [
        wrong.point_id.hex(),
        right.point_id.hex(),
    ]
    assert unreadable == []
    [machine] = found.machines
    assert machine.reached.age_s == 30 * HOUR
    assert machine.is_missed
    assert "a clock was wrong" in machine.remarks[0]


def test_what_a_live_session_wrote_is_no_backup(place: Place) -> None:
    """It makes no VM's newest point younger, fills no gap and moves no clock, wherever it stands
    among the backups; a VM that has nothing else has no point."""
    repository = new_repository(MemoryStore())
    first = publish(repository, "a", NIGHT - 30 * HOUR)
    publish(repository, "a", NIGHT - 20 * HOUR, from_live=first.point_id)
    second = publish(repository, "a", NIGHT - 10 * HOUR)
    old = publish(repository, "a", NIGHT - 3 * HOUR, from_live=first.point_id)
    trial = publish(repository, "a", NIGHT - 2 * HOUR, from_live=second.point_id)
    publish(repository, "a", NIGHT - HOUR, from_live=trial.point_id)
    publish(repository, "b", NIGHT - HOUR, from_live=old.point_id)
    place.report(
        some_outcome("a", NIGHT - 10 * HOUR, point=second.point_id.hex()),
        failed_outcome("b", NIGHT - HOUR),
    )
    a, b = look(place.settings, repository, NIGHT).machines
    assert (a.reached.age_s, a.reached.longest_gap_s, a.remarks) == (10 * HOUR, 20 * HOUR, ())
    assert b.reached.age_s is None
    assert b.is_missed


def test_a_record_from_the_future_is_told_and_not_believed(place: Place) -> None:
    """A clock was a year ahead for one run; the figures are those without it."""
    repository = new_repository(MemoryStore())
    place.report(place_outcome(repository, "a", NIGHT))
    place.report(place_outcome(repository, "a", NIGHT + 365 * DAY))
    found = look(place.settings, repository, NIGHT + 30 * HOUR)
    assert found.machines[0].reached.age_s == 30 * HOUR
    assert "dated in the future" in found.troubles[0]
    assert not found.is_well


def place_outcome(repository: Repository, vm: str, at: float) -> MachineOutcome:
    """A VM whose point is in this repository."""
    point = publish(repository, vm, at)
    return some_outcome(vm, at, point=point.point_id.hex())


Harm = Callable[[Place], object]
LEDGER_NAME = "20261121T170312Z-4711-9f3a1c2b.jsonl"
"""Of a file of a process that is gone."""


@pytest.mark.parametrize(
    ("harm", "trouble", "note"),
    [
        (lambda p: next(p.state.runs.glob("*/*1-*.json")).write_text("{"), "is damaged", ""),
        (lambda p: (p.state.ledger / LEDGER_NAME).write_text("x\n{}\n"), LEDGER_NAME, ""),
        (lambda p: p.state.locks.rmdir(), "", "what runs now is not known"),
        (lambda p: (p.state.path / "restores").write_text("x"), "cannot be read", ""),
        (lambda p: p.state.path.joinpath("backpoint.prom").unlink(), "", ""),
    ],
)
def test_each_part_is_read_by_itself(place: Place, harm: Harm, trouble: str, note: str) -> None:
    """What cannot be read is told; the rest is there."""
    repository = new_repository(MemoryStore())
    for at in (NIGHT - DAY, NIGHT):
        place.report(place_outcome(repository, "a", at))
    state = place.state
    harm(place)
    at_night = datetime.fromtimestamp(NIGHT, LocalZone())
    status = read_status(place.settings, state, lambda _: repository, at_night)
    for expected, told in ((trouble, status.troubles), (note, status.notes)):
        assert bool(told) == bool(expected)
        assert all(expected in text for text in told)
    assert [job.history.job for job in status.jobs] == ["nightly"]
    assert [machine.reached.age_s for machine in status.machines] == [0.0]


def test_a_start_that_was_not_made_is_a_note(place: Place) -> None:
    """The last run is still the last one, and all is well while the RPO is kept."""
    repository = new_repository(MemoryStore())
    place.report(place_outcome(repository, "a", NIGHT))
    reported = some_run(at=NIGHT + HOUR, ended=NIGHT + HOUR, trouble="outside its window")
    report_run(place.settings, place.state, reported)
    status = look(place.settings, repository, NIGHT + 2 * HOUR)
    assert status.is_well
    assert status.notes == ("nightly: outside its window",)


def test_a_run_that_failed_as_a_whole_needs_a_look(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while the RPO is kept."""
    repository = new_repository(MemoryStore())
    place.report(place_outcome(repository, "a", NIGHT))
    place.report(trouble="vCenter main does not answer")
    status = look(place.settings, repository, NIGHT + HOUR)
    assert not status.is_well
    print_status(status)
    captured = capsys.readouterr()
    assert "FAILED, 0 of 0 VMs" in captured.out
    assert "nightly: vCenter main does not answer" in captured.err


def test_the_recovery_time_is_that_of_restores_where_there_were_any(place: Place) -> None:
    """Measured beats estimated."""
    repository = new_repository(MemoryStore())
    full = replace(place_outcome(repository, "a", NIGHT), disks=full_outcome().disks)
    place.report(full)
    record = {"type": "restored-machine", "disks": [{"size": GIB}], "duration_s": 10.0}
    [before] = look(place.settings, repository, NIGHT).machines
    save_restore(place.state, record, NIGHT)
    [after] = look(place.settings, repository, NIGHT).machines
    assert before.recovery is not None
    assert (before.recovery.seconds, before.recovery.by) == (60.0, "the last full")
    assert after.recovery is not None
    assert (after.recovery.seconds, after.recovery.by) == (40.0, "restores")


def test_hostile_names_move_no_cursor(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """In tables, in warnings and in what runs now."""
    repository = new_repository(MemoryStore())
    evil = "a\x1b[2J\nb"
    place.report(failed_outcome(evil, NIGHT, error=evil, alarms=(evil,)))
    with Ledger(place.state.ledger) as ledger:
        ledger.intend("snapshot", "vc", "vm-1", evil, {"name": evil})
    print_status(look(place.settings, repository, NIGHT))
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert not [line for line in captured.out.splitlines() if line.startswith("b")]


def test_help_names_the_exit_codes() -> None:
    """A monitor is written from it."""
    command = [str(COMMAND), "agent", "status", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "7 somebody has to look" in said
