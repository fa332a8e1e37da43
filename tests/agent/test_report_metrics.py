"""The metrics file: all VMs of all jobs, in a form that Prometheus reads, whoever named them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from backpoint_agent.errors import Busy
from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.report.folder_turn import turn
from backpoint_agent.report.history import read_history
from backpoint_agent.report.metrics import metrics_path, write_metrics
from backpoint_agent.report.metrics_text import metrics_text
from backpoint_agent.report.records import save_record
from backpoint_agent.report.standing import plan_standings
from backpoint_agent.settings.model import Settings
from run_records import (
    DAY,
    GIB,
    HOUR,
    NIGHT,
    failed_outcome,
    settings_in,
    some_outcome,
    some_run,
    state_of,
)

SECOND_JOB = 'rpo_hours = 26\n[jobs.weekly]\nselect = { names = ["*"] }\n'
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A configuration with the jobs `nightly` and `weekly`."""
    return settings_in(tmp_path, SECOND_JOB)


def report(settings: Settings, *runs: RunRecord) -> Series:
    """Save the runs and write the metrics after each, as the agent does; the file's content."""
    for run in runs:
        save_record(settings, state_of(settings), run)
        write_metrics(settings, state_of(settings), run)
    return read(metrics_path(settings, state_of(settings)))


def read(path: Path) -> Series:
    """Every series; none is there twice, which makes exporters refuse the file."""
    found: Series = {}
    for family in text_string_to_metric_families(path.read_bytes().decode()):
        assert family.type == "gauge"
        for sample in family.samples:
            key = (sample.name.removeprefix("backpoint_"), frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def of(series: Series, vm: str, job: str = "nightly", **labels: str) -> dict[str, float]:
    """The figures of one VM, by name."""
    wanted = {"vm": vm, "job": job, "vcenter": "main"} | labels
    return {name: value for (name, has), value in series.items() if dict(has) == wanted}


def vms_of(series: Series) -> set[tuple[str, str]]:
    """Job and name of each."""
    return {
        (dict(has)["job"], dict(has)["vm"]) for name, has in series if name.startswith("vm_last_ru")
    }


def test_all_figures_of_a_vm(settings: Settings) -> None:
    """Names, units and values; what is not known is not there."""
    run = some_run(some_outcome("web01", NIGHT, alarms=("x",), warnings=("y", "z"), tries=2))
    series = report(settings, replace(run, ended=NIGHT + 2 * HOUR))
    assert of(series, "web01") == {
        "vm_last_point_timestamp_seconds": NIGHT,
        "vm_last_run_timestamp_seconds": NIGHT + 60,
        "vm_last_run_success": 1,
        "vm_last_run_duration_seconds": 60,
        "vm_last_run_tries": 2,
        "vm_last_run_read_bytes": 1 << 20,
        "vm_last_run_new_bytes": 1 << 19,
        "vm_last_run_stored_bytes": 1 << 18,
        "vm_disk_size_bytes": 4 * GIB,
        "vm_last_run_alarms": 1,
        "vm_last_run_warnings": 2,
        "vm_rpo_wanted_seconds": 26 * HOUR,
        "vm_rpo_reached_seconds": 2 * HOUR,
    }
    assert of(series, "web01", operation="create") == {
        "vm_snapshot_duration_seconds": 1.5,
        "vm_snapshot_stun_seconds": 0.25,
    }
    assert of(series, "web01", operation="remove") == {"vm_snapshot_duration_seconds": 2.5}
    job = {
        name: v
        for (name, has), v in series.items()
        if ("job", "nightly") in has and "vm_" not in name[:3]
    }
    assert job == {
        "job_last_run_timestamp_seconds": NIGHT + 2 * HOUR,
        "job_last_run_duration_seconds": 2 * HOUR,
        "job_last_run_success": 0,
        "job_last_run_vms": 1,
        "job_last_run_failed_vms": 0,
    }


def test_a_failed_run_keeps_the_point_before(settings: Settings) -> None:
    """Its success is 0; the newest point is still the old one, and no disk has the size 0."""
    run = some_run(some_outcome("a"), some_outcome("b"))
    at = NIGHT + DAY
    failed = some_run(failed_outcome("a", at), some_outcome("b", at), at=at)
    series = report(settings, run, failed)
    figures = of(series, "a")
    assert figures["vm_last_run_success"] == 0
    assert figures["vm_last_point_timestamp_seconds"] == NIGHT
    assert figures["vm_last_run_timestamp_seconds"] == at + 60
    assert "vm_disk_size_bytes" not in figures


def test_a_vm_without_a_point_has_the_time_zero(settings: Settings) -> None:
    """A rule on the age of the newest point fires; unknown figures are left out."""
    figures = of(report(settings, some_run(failed_outcome("a"), some_outcome("b"))), "a")
    assert figures["vm_last_point_timestamp_seconds"] == 0
    assert "vm_rpo_reached_seconds" not in figures


def test_a_point_dated_in_the_future_is_not_the_newest(settings: Settings) -> None:
    """A dashboard must not show a negative age."""
    ahead = some_outcome("a", NIGHT + 90 * DAY)
    now = some_run(failed_outcome("a", NIGHT + DAY), some_outcome("b"), at=NIGHT + DAY)
    series = report(settings, some_run(some_outcome("a")), some_run(ahead), now)
    assert of(series, "a")["vm_last_point_timestamp_seconds"] == NIGHT


def test_jobs_that_are_gone_leave_no_series(settings: Settings, tmp_path: Path) -> None:
    """Nor do VMs that are no longer of a job."""
    report(settings, some_run(some_outcome("x"), job="weekly"))
    alone = settings_in(tmp_path)
    last = some_run(some_outcome("b"), some_outcome("c"))
    series = report(alone, some_run(some_outcome("a"), some_outcome("b")), last)
    assert vms_of(series) == {("nightly", "b"), ("nightly", "c")}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["nightly", "weekly"]),
            st.dictionaries(st.sampled_from("abcdef"), st.booleans(), min_size=2),
        ),
        max_size=5,
    )
)
@hypothesis_settings(max_examples=15)
def test_the_file_is_what_the_newest_run_of_each_vm_says(
    nights: list[tuple[str, dict[str, bool]]],
) -> None:
    """However runs of several jobs follow each other."""
    model: dict[tuple[str, str], tuple[bool, float]] = {}
    with TemporaryDirectory() as folder:
        settings = settings_in(Path(folder), SECOND_JOB)
        series: Series = {}
        for number, (job, vms) in enumerate(nights):
            at = NIGHT + number * DAY
            make = {True: some_outcome, False: failed_outcome}
            outcomes = [make[good](vm, at) for vm, good in vms.items()]
            series = report(settings, some_run(*outcomes, at=at, job=job))
            model = {key: known for key, known in model.items() if key[0] != job or key[1] in vms}
            model |= {(job, vm): (good, at + 60) for vm, good in vms.items()}
    assert vms_of(series) == set(model)
    for (job, vm), (good, ended) in model.items():
        figures = of(series, vm, job)
        assert figures["vm_last_run_success"] == good
        assert figures["vm_last_run_timestamp_seconds"] == ended


HOSTILE = [
    'a"} 1\nfake_metric{x="',
    "back\\slash\\",
    "new\nline",
    "\x00\x1b[2J",
    "\ud800",
    "\u202egpj",
    "",
    "x" * 5000,
    "{}",
    "# HELP",
]


@given(st.lists(st.text(max_size=20) | st.sampled_from(HOSTILE), min_size=1, max_size=12))
@hypothesis_settings(max_examples=25)
def test_no_name_of_a_vm_spoils_the_file(names: list[str]) -> None:
    """Each VM has one series of its own, and the file has no other lines."""
    outcomes = [
        some_outcome(name, identity=f"vc/{number}", moref=f"vm-{number}")
        for number, name in enumerate(names)
    ]
    with TemporaryDirectory() as folder:
        settings = settings_in(Path(folder))
        series = report(settings, some_run(*outcomes))
        data = metrics_path(settings, state_of(settings)).read_bytes()
    assert len(vms_of(series)) == len(names)
    assert all(
        line.startswith((b"# HELP backpoint_", b"# TYPE backpoint_", b"backpoint_"))
        for line in data.splitlines()
    )
    assert not {*data} & ({*range(32)} - {10})
    assert max(len(line) for line in data.split(b"\n")) < 3000


def test_vms_of_one_name_are_told_apart_always_in_the_same_way(settings: Settings) -> None:
    """By their morefs, also where a third one is called like that."""
    outcomes = [
        some_outcome("web", identity="vc/1", moref="vm-1"),
        some_outcome("web", identity="vc/2", moref="vm-2"),
        some_outcome("web (vm-2)", identity="vc/3", moref="vm-3"),
        some_outcome("db", identity="vc/4", moref="vm-4"),
    ]
    series = report(settings, some_run(*outcomes))
    assert {vm for _, vm in vms_of(series)} == {"web (vm-1)", "web (vm-2)'", "web (vm-2)", "db"}
    assert vms_of(report(settings, some_run(*outcomes[::-1]))) == vms_of(series)


def test_everyone_may_read_the_file_whatever_the_umask(tmp_path: Path) -> None:
    """A node exporter is another user."""
    (tmp_path / "exporter").mkdir()
    settings = settings_in(tmp_path, '[report]\nprometheus = "exporter/backpoint.prom"\n')
    before = os.umask(0o077)
    try:
        report(settings, some_run(some_outcome()))
    finally:
        os.umask(before)
    assert (tmp_path / "exporter" / "backpoint.prom").stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path / "exporter") == ["backpoint.prom"]


def test_a_run_that_could_not_be_saved_counts_all_the_same(settings: Settings) -> None:
    """With a full disk the records stay behind; the file that an operator looks at does not."""
    report(settings, some_run(some_outcome("a"), some_outcome("b")))
    unsaved = some_run(failed_outcome("a", NIGHT + DAY), failed_outcome("b", NIGHT + DAY))
    write_metrics(settings, state_of(settings), unsaved)
    series = read(metrics_path(settings, state_of(settings)))
    assert of(series, "a")["vm_last_run_success"] == 0


def test_runs_that_end_together_lose_nothing_of_each_other(settings: Settings) -> None:
    """Sixteen threads of two jobs; every VM's last run is in the file."""
    numbers = count()

    def runs() -> Iterator[RunRecord]:
        for job in ("nightly", "weekly"):
            for _ in range(8):
                at = NIGHT + next(numbers)
                yield some_run(some_outcome(f"vm{at}", at), job=job, at=at)

    waiting = list(runs())
    together = threading.Barrier(len(waiting))

    def one(run: RunRecord) -> None:
        together.wait(20)
        report(settings, run)

    threads = [threading.Thread(target=one, args=(run,)) for run in waiting]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    series = read(metrics_path(settings, state_of(settings)))
    assert vms_of(series) == {(run.job, run.outcomes[0].vm) for run in waiting}


def test_records_are_read_in_the_turn_in_which_the_file_is_written(settings: Settings) -> None:
    """Who waits for its turn sees what was saved meanwhile, so no older file replaces a newer."""
    state = state_of(settings)
    early, late = (
        some_run(some_outcome(vm), job=job) for vm, job in (("a", "nightly"), ("b", "weekly"))
    )
    save_record(settings, state, early)
    writer = threading.Thread(target=write_metrics, args=(settings, state, early))
    with turn(state.path / ".metrics.lock"):
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        save_record(settings, state, late)
    writer.join()
    assert vms_of(read(metrics_path(settings, state))) == {("nightly", "a"), ("weekly", "b")}


def test_nobody_waits_for_ever_for_another_writer(tmp_path: Path) -> None:
    """The wait for a turn has a limit, and names what it was for."""
    lock = tmp_path / "lock"
    with turn(lock), pytest.raises(Busy, match=f"{lock}.*0.05 s"), turn(lock, 0.05):
        pass
    with turn(lock, 0.0):
        pass


def test_the_file_holds_no_more_vms_than_a_scrape_can_carry(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is left out is said."""
    histories = [read_history("nightly", [some_run(*map(some_outcome, "abcde"))])]
    standings = plan_standings(settings, histories, datetime.fromtimestamp(NIGHT, UTC))
    path = tmp_path / "text"
    path.write_bytes(metrics_text(settings, histories, standings, machines_max=3))
    assert len(vms_of(read(path))) == 3
    assert "2 are left out" in capsys.readouterr().err
