"""What a run tells: while it goes on, at its end, before it begins, and what is left of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_agent.report.live import live_watcher
from backpoint_agent.report.plan_table import print_plan
from backpoint_agent.report.records import read_records
from backpoint_agent.report.run_report import report_run
from backpoint_agent.report.summary import print_summary
from backpoint_agent.selection import select
from backpoint_agent.settings.model import Job, MailSettings, Settings
from mail_server import running_mail_server
from run_records import (
    GIB,
    NIGHT,
    failed_outcome,
    full_outcome,
    settings_in,
    some_outcome,
    some_run,
    state_of,
)
from some_machine import some_disk, some_machine

Captured = pytest.CaptureFixture[str]
HOSTILE = "a\x1b[2J\nb"


def with_mail(settings: Settings, port: int) -> Settings:
    """Mail in clear to this port."""
    mail = MailSettings(
        server="localhost",
        port=port,
        security="none",
        sender="a@example.com",
        to=("b@example.com",),
    )
    report = settings.report.model_copy(update={"mail": mail})
    return settings.model_copy(update={"report": report})


def test_a_run_leaves_a_record_metrics_and_a_mail(tmp_path: Path, capsys: Captured) -> None:
    """And says nothing of it."""
    with running_mail_server() as server:
        settings = with_mail(settings_in(tmp_path), server.port)
        run = some_run(failed_outcome("a"))
        report_run(settings, state_of(settings), run)
        assert len(server.received) == 1
    assert list(read_records(state_of(settings).runs, "nightly", print)) == [run]
    assert (state_of(settings).path / "backpoint.prom").stat().st_size > 0
    assert capsys.readouterr() == ("", "")


def test_none_of_the_three_spoils_another(tmp_path: Path, capsys: Captured) -> None:
    """Each that fails is told in a line of its own; the run goes on."""
    with running_mail_server(manner="hangs up") as server:
        settings = with_mail(settings_in(tmp_path), server.port)
        state = state_of(settings)
        (state.runs / "nightly").write_text("in the way")
        (state.path / "backpoint.prom").mkdir()
        report_run(settings, state, some_run(failed_outcome("a"), number="N"))
        lines = capsys.readouterr().err.splitlines()
        told = [line for line in lines if "run N: " in line]
        assert ["its record" in told[0], "the metrics" in told[1], "the mail" in told[2]] == [
            True
        ] * 3
        (state.path / "backpoint.prom").rmdir()
        report_run(settings, state, some_run(failed_outcome("a"), number="N"))
        told = [line for line in capsys.readouterr().err.splitlines() if "run N: " in line]
        assert ["its record" in told[0], "the mail" in told[1]] == [True] * 2
    assert (state.path / "backpoint.prom").is_file()


def test_a_bug_of_a_report_ends_no_scheduler(tmp_path: Path, capsys: Captured) -> None:
    """A record that no JSON can hold, which no run makes."""
    settings = settings_in(tmp_path)
    report_run(settings, state_of(settings), some_run(some_outcome(size=float("nan"))))
    assert "its record could not be written or sent: a bug in backpoint" in capsys.readouterr().err
    assert (state_of(settings).path / "backpoint.prom").is_file()


def test_the_summary_tells_each_vm_and_the_sum(capsys: Captured) -> None:
    """Rows on stdout; what needs a look on stderr."""
    run = some_run(
        full_outcome("web01", stored=3 << 20),
        some_outcome("db01", NIGHT, ended=NIGHT - 500, alarms=("lied",), warnings=("slow",)),
        failed_outcome("mail", error="no answer"),
        skipped=(("x", "excluded"),),
        warnings=("two VMs are called y",),
    )
    print_summary(run, as_json=False)
    captured = capsys.readouterr()
    rows = {line.split()[0]: line.split() for line in captured.out.splitlines()}
    assert rows["web01"][1:6] == ["done", "2026-09-21T14-13-20Z", "filesystem", "full", "https"]
    assert rows["db01"][1:3] == ["done,", "alarm"]
    assert rows["db01"][-2:] == ["0.0", "s"]
    assert rows["mail"][1:6] == ["failed", "-", "filesystem", "-", "https"]
    assert captured.out.splitlines()[-1].startswith(
        "nightly: 2 of 3 VMs have a new point, 1 left out, 1 alarms; read 2.0 MiB, stored 3.2 MiB"
    )
    for text in (
        "db01: slow",
        "db01: ALARM: lied",
        "mail: failed: no answer",
        "two VMs are called",
    ):
        assert f"backpoint: warning: {text}" in captured.err


def test_the_summary_of_a_run_that_did_not_come_about_says_why(capsys: Captured) -> None:
    """The scheduler prints nothing else of it."""
    print_summary(some_run(trouble="vCenter main does not answer"), as_json=False)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("nightly: vCenter main does not answer; 0 of 0 VMs")


def test_the_summary_as_json_is_the_whole_record(capsys: Captured) -> None:
    """One object, nothing on stderr."""
    run = some_run(failed_outcome(HOSTILE))
    print_summary(run, as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads(json.dumps(run.record()))
    assert captured.err == ""


def test_hostile_names_move_no_cursor_in_the_summary(capsys: Captured) -> None:
    """Neither in the table nor in what is said."""
    outcome = failed_outcome(HOSTILE, error=HOSTILE, warnings=(HOSTILE,), transport=HOSTILE)
    print_summary(some_run(outcome, trouble=HOSTILE, warnings=(HOSTILE,)), as_json=False)
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert len(captured.out.splitlines()) == 3


def test_progress_is_lines_where_nobody_watches(capsys: Captured) -> None:
    """One a phase, none for bytes."""
    with live_watcher(as_json=False) as watcher:
        watcher.phase(HOSTILE, "reading")
        watcher.reading("web", GIB)
        watcher.advance("web", GIB)
    said = capsys.readouterr().err.splitlines()
    assert said == ["backpoint: a\\x1b[2J\\nb: reading", "backpoint: web: disks of 1.0 GiB"]


def test_progress_as_json_comes_once_a_second_and_at_the_end(capsys: Captured) -> None:
    """Whatever the number of pieces."""
    with live_watcher(as_json=True) as watcher:
        watcher.phase("web", "reading")
        watcher.reading("web", 10_000)
        for _ in range(10_000):
            watcher.advance("web", 1)
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert records[0] == {"type": "phase", "vm": "web", "phase": "reading"}
    end = {"type": "progress", "vm": "web", "done_bytes": 10_000, "total_bytes": 10_000}
    assert records[-1] == end
    assert records.count(end) == 1
    assert len(records) < 1000


@pytest.mark.parametrize("as_json", [True, False])
def test_lines_of_several_vms_are_not_mixed(capfd: Captured, as_json: bool) -> None:
    """Every line is whole, though many threads write them."""

    def tell(vm: str) -> None:
        for number in range(100):
            watcher.phase(vm, f"phase {number} " + "x" * 200)

    with live_watcher(as_json=as_json) as watcher:
        threads = [threading.Thread(target=tell, args=(f"vm{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 800
    assert all(line.endswith('x"}' if as_json else "x") for line in lines)
    assert all(line.startswith("{" if as_json else "backpoint: vm") for line in lines)


@contextlib.contextmanager
def stderr_is(descriptor: int) -> Iterator[None]:
    """sys.stderr writes there."""
    before = sys.stderr
    with open(descriptor, "w", buffering=1) as stream:
        sys.stderr = stream
        try:
            yield
        finally:
            sys.stderr = before
            with contextlib.suppress(OSError):
                stream.close()


@pytest.mark.parametrize("as_json", [True, False])
def test_a_reader_that_is_gone_fails_no_run(as_json: bool) -> None:
    """`backpoint agent backup 2>&1 | head -1` goes on backing up."""
    reading, writing = os.pipe()
    os.close(reading)
    with stderr_is(writing), live_watcher(as_json=as_json) as watcher:
        watcher.phase("web", "reading")
        watcher.reading("web", 10)
        watcher.advance("web", 10)


def test_bars_on_a_terminal() -> None:
    """Name, size and phase of each VM, none of which moves the cursor."""
    master, slave = pty.openpty()
    seen = bytearray()

    def watch() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(master, 4096):
                seen.extend(data)

    thread = threading.Thread(target=watch)
    thread.start()
    with stderr_is(slave), live_watcher(as_json=False) as watcher:
        watcher.phase("web\x07", "waiting\x07")
        watcher.reading("web\x07", 2 << 20)
        watcher.advance("web\x07", 2 << 20)
    thread.join(20)
    os.close(master)
    text = seen.decode()
    assert "web\\x07" in text
    assert "waiting\\x07" in text
    assert "2.0/2.0 MiB" in text


PLANNED = (
    some_machine("web", 1, disks=(some_disk(0), some_disk(1, unfit="it is independent"))),
    some_machine("db", 2, disks=(some_disk(0), some_disk(1, label="scratch"))),
    some_machine("test1", 3),
    some_machine(HOSTILE, 4),
)
PLAN_JOB = Job.model_validate(
    {
        "name": "nightly",
        "select": {"names": ("*",)},
        "exclude": {"names": ("test*",)},
        "exclude_disks": ({"vm": "db", "disks": ("scratch",)},),
    }
)


def test_the_plan_shows_what_would_be_and_what_not(capsys: Captured) -> None:
    """Each VM with its disks, refusals and exclusions with reasons."""
    print_plan(PLAN_JOB, select(PLANNED, PLAN_JOB), as_json=False)
    captured = capsys.readouterr()
    rows = {line.split()[0]: line for line in captured.out.splitlines()}
    assert "refuse" in rows["web"]
    assert "independent" in rows["web"]
    assert "1, 1.0 MiB" in rows["db"]
    assert "without scsi0:1" in rows["db"]
    assert "leave out" in rows["test1"]
    assert "\x1b" not in captured.out


def test_the_plan_as_json_has_every_vm(capsys: Captured) -> None:
    """One record each."""
    print_plan(PLAN_JOB, select(PLANNED, PLAN_JOB), as_json=True)
    records = {r["vm"]: r for r in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {vm: r["plan"] for vm, r in records.items()} == {
        "web": "refuse",
        "db": "back up",
        "test1": "leave out",
        HOSTILE: "back up",
    }
    assert [disk["slot"] for disk in records["db"]["disks"]] == ["scsi0:0"]
    assert records["db"]["left_out"][0]["label"] == "scratch"
    assert {r["job"] for r in records.values()} == {"nightly"}
