"""The scheduler: each due time once, no job beside itself, whatever clocks, restarts, windows do.

Its hours pass in moments (trio's own clock for tests); runs of jobs are played.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agent_site import Meddler
from backpoint_agent.jobs.due_memory import read_dealt_with, write_dealt_with
from backpoint_agent.jobs.job_run import JobOrder, run_number
from backpoint_agent.jobs.office import Office
from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.jobs.scheduler import Scheduler
from backpoint_agent.ledger import Ledger
from backpoint_agent.local_zone import LocalZone
from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.read import examine_settings
from backpoint_agent.state_folder import make_state_folder
from backpoint_agent.stopping import Stop
from backpoint_repo.errors import UsageError
from backpoint_repo.store.memory import MemoryStore
from config_text import VALID
from small_repository import new_repository

MIDNIGHT = datetime(2026, 6, 1, tzinfo=LocalZone())
MINUTE_S = 60.0
HOUR_S = 3600.0
EVERY_TEN = 'schedule = "*/10 * * * *"\n'


@dataclass
class Play:
    """A night: when each run was started, by minutes after midnight, and what was reported."""

    folder: Path
    settings: Settings
    lasts_s: float = MINUTE_S
    ahead_s: float = 0.0
    passed_s: float = 0.0
    starts: list[tuple[str, float]] = field(default_factory=list)
    orders: list[JobOrder] = field(default_factory=list)
    told: list[RunRecord] = field(default_factory=list)
    beside: int = 0
    stop: Stop = field(default_factory=Stop)
    _running: list[str] = field(default_factory=list)

    def clock(self) -> float:
        """Seconds since 1970; `ahead_s` is how far it jumped."""
        return MIDNIGHT.timestamp() + self.passed_s + trio.current_time() + self.ahead_s

    def go_on(
        self, hours: float = 1.0, at: dict[float, Callable[[], object]] | None = None
    ) -> None:
        """Let the scheduler run for so long; at: what happens after how many seconds."""
        self.stop = Stop()
        state = make_state_folder(self.folder / "state")
        repository = new_repository(MemoryStore())

        async def night(scheduler: Scheduler) -> None:
            async with trio.open_nursery() as nursery:
                for seconds, act in {**(at or {}), hours * HOUR_S: self.end}.items():
                    nursery.start_soon(self._later, seconds, act)
                await scheduler.run()
                self.passed_s += trio.current_time()
                nursery.cancel_scope.cancel()

        with Ledger(state.ledger) as ledger:
            office = Office(
                self.settings, state, repository, ledger, Meddler(), self.stop, self.clock
            )
            scheduler = Scheduler(office, self.told.append, self._run)
            trio.run(night, scheduler, clock=MockClock(autojump_threshold=0))

    def end(self) -> None:
        self.stop.request("the end of the night")

    @property
    def minutes(self) -> list[float]:
        """Of all starts, whole ones: the scheduler looks twice a second."""
        return [round(minute, 1) for _, minute in self.starts]

    @property
    def troubles(self) -> list[str]:
        return [record.trouble for record in self.told if record.trouble]

    async def _later(self, seconds: float, act: Callable[[], object]) -> None:
        await trio.sleep(seconds)
        act()

    async def _run(self, office: Office, order: JobOrder) -> RunRecord:
        job, now = order.job.name, office.clock()
        self.starts.append((job, (now - MIDNIGHT.timestamp()) / MINUTE_S))
        self.orders.append(order)
        self.beside += job in self._running
        self._running.append(job)
        for _ in range(int(self.lasts_s)):
            if not office.stop.reason:
                await trio.sleep(1.0)
        self._running.remove(job)
        return RunRecord(run_number(now), job, "main", now, office.clock(), ())


def play(folder: Path, *jobs: str) -> Play:
    """jobs: lines of the tables of jobs a, b, ..."""
    text = VALID.partition("[jobs.nightly]")[0]
    for name, lines in zip("abc", jobs, strict=False):
        text += f'[jobs.{name}]\nselect = {{ names = ["*"] }}\n{lines}'
    found = examine_settings(text, folder)
    assert isinstance(found, Settings), found
    return Play(folder, found)


@pytest.fixture
def tens(tmp_path: Path) -> Play:
    """A job that is due every ten minutes."""
    return play(tmp_path, EVERY_TEN)


# Due times


def test_each_due_time_is_one_run(tens: Play) -> None:
    """At its minute, and each run is reported."""
    tens.go_on(hours=1.05)
    assert tens.minutes == [10, 20, 30, 40, 50, 60]
    assert [record.job for record in tens.told] == ["a"] * 6
    assert tens.troubles == []


def test_a_job_never_runs_beside_itself(tens: Play) -> None:
    """What is due while it runs is reported, once a run, and not made up for."""
    tens.lasts_s = 25 * MINUTE_S
    tens.go_on(hours=1.05)
    assert tens.minutes == [10, 40]
    assert tens.beside == 0
    assert len(tens.troubles) == 2
    assert all("still running: not started again" in trouble for trouble in tens.troubles)


def test_jobs_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """One of hours beside one of minutes; one without a schedule is never started."""
    night = play(tmp_path, 'schedule = "5 * * * *"\n', EVERY_TEN, "")
    night.lasts_s = 8 * MINUTE_S
    night.go_on(hours=0.6)
    assert [job for job, _ in night.starts] == ["a", "b", "b", "b"]


def test_a_closed_window_is_reported(tmp_path: Path) -> None:
    """Within it runs are started and told when it ends; outside, the first due time is reported."""
    window = '[jobs.a.window]\nstart = "00:00"\nend = "00:25"\n'
    night = play(tmp_path, EVERY_TEN + window)
    night.go_on(hours=0.7)
    assert night.minutes == [10, 20]
    ends = (MIDNIGHT + timedelta(minutes=25)).timestamp()
    assert [order.until for order in night.orders] == [ends, ends]
    assert [trouble[-33:] for trouble in night.troubles] == [", outside its window: not started"]
    night.go_on(hours=24)
    assert len(night.minutes) == 5
    assert len(night.troubles) == 3  # a new process tells again
    assert all(record.started == record.ended for record in night.told if record.trouble)


# Restarts


def test_what_was_missed_is_made_up_for_once(tens: Play) -> None:
    """An agent that was off for hours starts the job at once, and says so in its record."""
    tens.go_on(hours=0.2)
    tens.passed_s += 5 * HOUR_S + 5 * MINUTE_S
    tens.go_on(hours=0.03)
    assert len(tens.starts) == 2
    assert "makes up for" in tens.told[-1].warnings[0]
    assert "2026-06-01 05:10" in tens.told[-1].warnings[0]


def test_what_was_missed_is_not_made_up_for_outside_the_window(tmp_path: Path) -> None:
    """It is reported."""
    night = play(tmp_path, EVERY_TEN + '[jobs.a.window]\nstart = "00:00"\nend = "01:00"\n')
    night.go_on(hours=0.2)
    night.passed_s += 5 * HOUR_S
    night.go_on(hours=0.05)
    assert night.minutes == [10]
    assert "outside its window" in night.troubles[0]


def test_a_new_job_waits_for_its_time(tens: Play) -> None:
    """It has missed nothing."""
    tens.go_on(hours=0.1)
    assert tens.starts == []
    assert read_dealt_with(tens.folder / "state") != {}


def test_a_restart_within_the_minute_starts_nothing_twice(tens: Play) -> None:
    """What was dealt with is durable before it is started."""
    for _ in range(8):
        tens.go_on(hours=100 / HOUR_S)
    assert tens.minutes == [10]


def test_a_stop_ends_and_reports_what_runs(tens: Play) -> None:
    """The run hears it; its record is told before the scheduler ends."""
    tens.lasts_s = 100 * HOUR_S
    tens.go_on(hours=0.2)
    assert tens.passed_s < 0.3 * HOUR_S
    assert [record.job for record in tens.told] == ["a"]


# Clocks


@pytest.mark.parametrize("back_s", [600.0, 3 * HOUR_S])
def test_a_clock_that_is_put_back_repeats_nothing(tens: Play, back_s: float) -> None:
    """The due times that come again were dealt with; the next new one is not forgotten."""

    def jump() -> None:
        tens.ahead_s -= back_s

    tens.go_on(hours=1.4 + back_s / HOUR_S, at={0.55 * HOUR_S: jump})
    assert tens.minutes[:3] == [10, 20, 30]
    assert tens.minutes[3:] == [40, 50, 60, 70, 80]
    assert tens.beside == 0


def test_a_clock_that_jumps_forward_makes_one_run(tens: Play) -> None:
    """Of all due times that were passed over, for the latest."""

    def jump() -> None:
        tens.ahead_s += 24 * HOUR_S

    tens.go_on(hours=0.8, at={0.55 * HOUR_S: jump})
    day = 24 * 60
    assert tens.minutes[:3] == [10, 20, 30]
    assert tens.minutes[3] == pytest.approx(day + 33, abs=1)
    assert tens.minutes[4:] == [day + 40]


# What is remembered


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"a": "x"}', b'{"a": 1e300}', b"\xff", b'{"a": NaN}', b"[" * 9999],
)
def test_a_damaged_memory_is_told_and_waits(
    tens: Play, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """The jobs wait for their next times; from then on it is whole again."""
    state = make_state_folder(tens.folder / "state").path
    (state / "schedule.json").write_bytes(damage)
    tens.go_on(hours=0.2)
    assert f"{state / 'schedule.json'} is damaged" in capsys.readouterr().err
    assert tens.minutes == [10]
    assert list(read_dealt_with(state)) == ["a"]


def test_a_memory_that_cannot_be_read_is_refused(tens: Play) -> None:
    """Before anything is started: it would start what was started before."""
    state = make_state_folder(tens.folder / "state").path
    (state / "schedule.json").mkdir()
    with pytest.raises(UsageError, match=r"schedule\.json: cannot be read"):
        tens.go_on()
    assert tens.starts == []


def test_a_memory_that_cannot_be_written_costs_no_run(
    tens: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told; nothing is started twice all the same, as long as the process lives."""
    memory = make_state_folder(tens.folder / "state").path / "schedule.json"
    memory.write_text("{}")
    # What is mounted can be read, and nothing can take its place.
    subprocess.run(["mount", "--bind", memory, memory], check=True)
    try:
        tens.go_on(hours=0.4)
    finally:
        subprocess.run(["umount", memory], check=True)
    assert tens.minutes == [10, 20]
    assert "is not remembered" in capsys.readouterr().err


MOMENTS = st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@given(st.dictionaries(st.text(max_size=20), MOMENTS, max_size=5))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, moments: dict[str, datetime]
) -> None:
    """Any names, moments to the microsecond; written over what was there."""
    state = tmp_path_factory.mktemp("state")
    write_dealt_with(state, {"old": MIDNIGHT})
    write_dealt_with(state, moments)
    assert read_dealt_with(state) == moments
    assert [path.name for path in state.iterdir()] == ["schedule.json"]
    assert set(json.loads((state / "schedule.json").read_bytes())) == set(moments)
