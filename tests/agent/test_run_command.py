"""`backpoint agent run`: the scheduler as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_site import NIGHTLY, Site, running_site
from backpoint_agent import snapshot_name
from backpoint_agent.jobs.due_memory import read_dealt_with, write_dealt_with
from backpoint_agent.ledger import Ledger
from backpoint_agent.state_folder import make_state_folder
from frozen_vm import account_of, logged_in
from vcsim.client import connected, done, until

HALF_AN_HOUR_AGO = datetime.now() - timedelta(minutes=30)
HOURLY = NIGHTLY.replace(
    "[jobs.nightly]", f'[jobs.nightly]\nschedule = "{HALF_AN_HOUR_AGO.minute} * * * *"', 1
)
NAMES = [f"DC0_C0_RP0_VM{number}" for number in range(2)]
LIMIT_S = 60


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """With a job of every hour, which is not due now."""
    with running_site(tmp_path, disks=True, vms=2) as ready:
        ready.configure(HOURLY)
        yield ready


def missed(site: Site) -> None:
    """The agent was off when the job was due: it is made up for at once."""
    state = make_state_folder(site.state)
    write_dealt_with(state.path, {"nightly": datetime.now(UTC) - timedelta(hours=1)})


@contextmanager
def scheduler(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """The process; killed if it is still there at the end."""
    with site.line.start("agent", "run", "--json") as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> tuple[list[dict[str, Any]], str]:
    """SIGTERM, its end, which must be a good one; records and what was said."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert b"Traceback" not in err
    return [json.loads(line) for line in out.splitlines()], err.decode()


def first_record(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    record = json.loads(process.stdout.readline())
    assert isinstance(record, dict)
    return record


def leave_snapshot(site: Site) -> None:
    """What an agent that died left on the first VM."""
    (vm, *_) = site.vms
    with (
        Ledger(make_state_folder(site.state).ledger) as ledger,
        logged_in(account_of(site.simulator, site.folder)) as vcenter,
        connected(site.simulator) as client,
    ):
        effect = ledger.intend("snapshot", vcenter.uuid, vm, NAMES[0], {})
        name = snapshot_name.make_name(effect.number)
        made = done(client.vm().CreateSnapshot_Task(name, "", False, False))
        ledger.learned(effect, {"moref": made._moId})


def test_a_due_job_is_run_and_reported(site: Site) -> None:
    """What was missed is made up for at once, its due time is remembered, its record is kept."""
    missed(site)
    with scheduler(site) as process:
        record = first_record(process)
        ended(process)
    assert (record["type"], record["job"], record["good"]) == ("run", "nightly", True)
    assert any("makes up for" in warning for warning in record["warnings"])
    assert [outcome["vm"] for outcome in record["outcomes"]] == NAMES
    assert len(site.points()) == 2
    assert list((site.state / "runs").rglob("*.json"))
    at = read_dealt_with(site.state)["nightly"]
    # The job was due at some minute of each hour; it had been dealt with an hour before it began.
    assert datetime.now(UTC) - at < timedelta(hours=1)
    site.assert_nothing_left()


def test_it_clears_up_at_once(site: Site) -> None:
    """A snapshot of a dead agent goes as soon as it runs, although no job is due."""
    leave_snapshot(site)
    with scheduler(site) as process:
        until(lambda: any(c.method == "RemoveSnapshot_Task" for c in site.simulator.calls()))
        _, err = ended(process)
    assert f"{NAMES[0]}: remove snapshot" in err
    site.assert_nothing_left()


def test_it_starts_although_vcenter_is_down(site: Site) -> None:
    """What cannot be cleared up is told; it stays, and a stop ends it."""
    leave_snapshot(site)
    site.configure(HOURLY, account="request_limit_s = 5")
    site.simulator.stop()
    with scheduler(site) as process:
        assert process.stderr is not None
        assert b"started; next are nightly at " in process.stderr.readline()
        _, err = ended(process)
    assert "vc1: what an earlier run left there could not be cleared up: " in err


def test_a_stop_ends_what_runs(site: Site) -> None:
    """Within a snapshot that takes for ever: it is cancelled, told, and nothing is left."""
    missed(site)
    site.simulator.hang_tasks("CreateSnapshot_Task")
    with scheduler(site) as process:
        until(lambda: any(c.method == "CreateSnapshot_Task" for c in site.simulator.calls()))
        records, err = ended(process)
    (record,) = records
    assert {outcome["status"] for outcome in record["outcomes"]} == {"stopped"}
    assert "stopping: snapshots are removed first" in err
    site.simulator.release_tasks()
    site.assert_nothing_left()


def test_without_a_schedule_there_is_nothing_to_run(site: Site) -> None:
    """Exit code 2."""
    site.configure()
    said = site.line.run("agent", "run", code=2)
    assert said.error == "no job of the configuration has a schedule"


def test_a_memory_that_cannot_be_read(site: Site) -> None:
    """One line, exit code 2."""
    (make_state_folder(site.state).path / "schedule.json").mkdir()
    assert "schedule.json: cannot be read" in site.line.run("agent", "run", code=2).error
