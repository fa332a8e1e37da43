"""`backpoint agent backup`, as a user says it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_site import EVERYTHING, NIGHTLY, Site, running_site
from backpoint_agent.errors import ConfigMistakes
from backpoint_repo.cli import main
from command_line import CommandLine, Said
from small_repository import PASSPHRASE
from vcsim import running_simulator
from vcsim.client import connected, done, until

NAMES = [f"DC0_C0_RP0_VM{number}" for number in range(3)]
EFFECTS = ("_Task", "InGuest", "Answer", "Abort", "PUT", "POST /nfc")
LIMIT_S = 60


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, disks=True, vms=2) as ready:
        yield ready


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Shared by tests that back nothing up."""
    with running_site(tmp_path_factory.mktemp("untouched"), vms=3) as ready:
        yield ready


class Console:
    """The command line in this process, which has imported everything already."""

    def __init__(self, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capture = capture
        self._patch = patch

    def backup(self, site: Site, *words: str, code: int = 0) -> Said:
        """With the site's configuration; it must end with `code`."""
        self._patch.setenv("BACKPOINT_CONFIG", str(site.config))
        self._capture.readouterr()
        ended = main(["agent", "backup", *words])
        said = Said(ended, *self._capture.readouterr())
        assert said.code == code, said
        assert "Traceback" not in said.err, said.err
        return said


@pytest.fixture
def console(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Console]:
    handler, interval = signal.getsignal(signal.SIGTERM), sys.getswitchinterval()
    yield Console(capsys, monkeypatch)
    signal.signal(signal.SIGTERM, handler)
    sys.setswitchinterval(interval)


def backup(site: Site, *words: str, code: int = 0) -> Said:
    """The installed command."""
    return site.line.run("agent", "backup", *words, code=code)


def records(said: Said) -> list[dict[str, Any]]:
    """Every line of the output is one."""
    return [json.loads(line) for line in said.out.splitlines()]


def made(site: Site) -> list[str]:
    return sorted(point.vm for point in site.points())


# What it does and says


def test_a_job(site: Site) -> None:
    """Its VMs have points; a line for each on stdout, phases on stderr, a record in the state."""
    said = backup(site, "nightly")
    assert made(site) == NAMES[:2]
    for name in NAMES[:2]:
        assert name in said.out
        assert f"{name}: reading" in said.err
    assert "2 of 2 VMs have a new point" in said.out
    assert len(list((site.state / "runs").rglob("*.json"))) == 1
    site.assert_nothing_left()


def test_records_for_scripts(site: Site) -> None:
    """With --json stdout is records, line by line: one for the run, with every VM in it; what goes
    on meanwhile is on stderr. --full reads everything."""
    (run,) = records(backup(site, "--json"))
    assert (run["type"], run["job"], run["good"]) == ("run", "nightly", True)
    assert [outcome["vm"] for outcome in run["outcomes"]] == NAMES[:2]
    said = backup(site, "--json", "--full", "--vm", NAMES[1])
    (run,) = records(said)
    (outcome,) = run["outcomes"]
    assert outcome["disks"][0]["how"] == "compare"
    told = [json.loads(line) for line in said.err.splitlines()]
    assert {record["type"] for record in told} == {"phase", "progress"}
    assert max(record.get("done_bytes", 0) for record in told) == 1 << 20


def test_a_vm_without_a_point_is_exit_code_7(site: Site, console: Console) -> None:
    """The reason is on stderr; the others have theirs."""
    site.simulator.fault("CreateSnapshot_Task", "TooManySnapshotLevels", vm=site.vms[0], count=-1)
    said = console.backup(site, code=7)
    assert f"{NAMES[0]}: failed: " in said.err
    assert made(site) == NAMES[1:2]


# Which job, which VM


def test_which_job(untouched: Site, console: Console) -> None:
    """It may be left out where there is one; else it is asked for, and the jobs are named."""
    site = untouched
    site.configure(f"[jobs.a]\n{EVERYTHING}[jobs.b]\n{EVERYTHING}")
    assert console.backup(site, code=2).error == "which job? The configuration has: a, b"
    assert (
        "there is no job 'c'; the configuration has: a, b"
        in console.backup(site, "c", code=2).error
    )
    assert {r["job"] for r in records(console.backup(site, "b", "--dry-run", "--json"))} == {"b"}
    site.configure("")
    assert console.backup(site, code=2).error == "which job? The configuration has: none"


def test_one_vm_of_two_vcenters(site: Site, tmp_path: Path, console: Console) -> None:
    """A name that both have is asked about; the job tells which, or a name that only one has."""
    with running_simulator(tmp_path / "other", vms=1, instance_uuid="other") as other:
        jobs = "".join(
            f'[jobs.{job}]\nvcenter = "{vcenter}"\n{EVERYTHING}'
            for job, vcenter in (("first", "vc1"), ("second", "vc2"))
        )
        site.configure(jobs, other)
        said = console.backup(site, "--vm", NAMES[0], code=2)
        assert said.error == f"'{NAMES[0]}' is in vc1 and vc2: name a job of the one that is meant"
        (run,) = records(console.backup(site, "--json", "second", "--vm", NAMES[0]))
        (machine,) = site.machines(other)
        assert run["outcomes"][0]["identity"] == str(machine.identity)
        with connected(other) as client:
            done(client.vm().Rename_Task("elsewhere"))
        (run,) = records(console.backup(site, "--json", "--vm", "elsewhere"))
        assert (run["job"], run["vcenter"]) == ("second", "vc2")
        other.stop()
        said = console.backup(site, "--vm", NAMES[1])
        assert "warning: not looked for there: vc2" in said.err
        site.simulator.stop()
        assert "vc1" in console.backup(site, "--vm", NAMES[1], code=7).error
    assert made(site) == [NAMES[0], NAMES[0], NAMES[1]]


def test_a_vm_that_no_job_selects(site: Site, console: Console) -> None:
    """Is done by the settings of a job that is named, and of none else."""
    site.configure(f"[jobs.web]\nselect = {{ names = ['{NAMES[0]}'] }}\ntransports = ['https']\n")
    said = console.backup(site, "--vm", NAMES[1], code=2)
    assert f"no job selects {NAMES[1]}; name one" in said.error
    assert "there is no VM" in console.backup(site, "--vm", "nobody", code=2).error
    console.backup(site, "web", "--vm", NAMES[1])
    assert made(site) == [NAMES[1]]


# Dry runs


def test_a_dry_run_has_no_effect(untouched: Site, console: Console) -> None:
    """Not one method with an effect is called; no folder is made, no repository needed."""
    site = untouched
    site.configure(f"{NIGHTLY}[jobs.nightly.exclude]\nnames = ['*VM2']\n")
    site.simulator.forget_calls()
    said = console.backup(site, "--dry-run", "--json")
    plans = {record["vm"]: record["plan"] for record in records(said)}
    assert plans == {NAMES[0]: "back up", NAMES[1]: "back up", NAMES[2]: "leave out"}
    assert NAMES[0] in console.backup(site, "--dry-run", "--vm", NAMES[0]).out
    methods = {call.method for call in site.simulator.calls()}
    assert "Login" in methods
    assert not [method for method in methods if any(effect in method for effect in EFFECTS)]
    assert not site.state.exists()


def test_a_dry_run_shows_what_hinders(untouched: Site, console: Console) -> None:
    """Exit code 7: the job would not be good."""
    untouched.configure()
    untouched.simulator.connection_state(untouched.vms[0], "inaccessible")
    said = console.backup(untouched, "--dry-run", "--json", code=7)
    untouched.simulator.connection_state(untouched.vms[0], "connected")
    assert [r["plan"] for r in records(said)] == ["back up", "back up", "cannot"]


def test_a_dry_run_shows_what_would_be_refused(site: Site, console: Console) -> None:
    """Exit code 7, as the run itself."""
    site.configure()
    site.simulator.add_disk(site.vms[0], 1 << 20, mode="independent_persistent")
    said = console.backup(site, "--dry-run", "--json", code=7)
    assert sorted(r["plan"] for r in records(said)).count("refuse") == 1


# Mistakes and faults


def test_mistakes_of_the_configuration(untouched: Site, console: Console) -> None:
    """One line each with file, line and key; exit code 2."""
    with pytest.raises(ConfigMistakes):
        untouched.configure("[jobs.nightly]\nselekt = 3\nschedule = 'never'\n")
    err = console.backup(untouched, code=2).err.splitlines()
    assert len(err) == 3
    assert all(line.startswith(f"backpoint: {untouched.config}:") for line in err)
    assert [line for line in err if "jobs.nightly.schedule" in line]


def test_which_configuration(untouched: Site, console: Console) -> None:
    """By -c or BACKPOINT_CONFIG; -r is not silently passed over."""
    untouched.configure()
    assert "leave -r out" in console.backup(untouched, "-r", "/nowhere", code=2).error
    line = CommandLine(untouched.folder, {})
    assert "which configuration?" in line.run("agent", "backup", code=2).error
    line.run("agent", "backup", "-c", untouched.config, "--dry-run")


def test_what_opens_nothing(untouched: Site, console: Console) -> None:
    """A wrong vCenter password is tried once; wrong repositories and passphrases before vCenter."""
    site = untouched
    site.configure()
    site.simulator.forget_calls()
    password = site.folder / "vcenter-password"
    right = password.read_text()
    password.write_text("wrong")
    assert "it is not tried again, lest the account be locked" in console.backup(site, code=7).err
    password.write_text(right)
    assert [call.method for call in site.simulator.calls()].count("Login") == 1
    site.simulator.forget_calls()
    (site.folder / "passphrase").write_text("wrong")
    console.backup(site, code=5)
    site.configure()
    site.config.write_text(site.config.read_text().replace("/repository", "/nowhere"))
    assert "there is no repository" in console.backup(site, code=4).error
    assert site.simulator.calls() == []


def test_vcenter_is_down(site: Site, console: Console) -> None:
    """Exit code 7, and its name; the record of the run says so too."""
    site.configure(NIGHTLY + "retries = 0\n", account="request_limit_s = 0.3")
    site.simulator.stop()
    said = console.backup(site, "--json", code=7)
    (run,) = records(said)
    assert "vc1" in run["trouble"]
    assert "vc1" in said.err
    assert run["outcomes"] == []


# Signals


def interrupted(site: Site, *numbers: signal.Signals) -> tuple[int, str, str]:
    """A backup whose snapshot takes for ever, and these signals; how it ended."""
    site.simulator.hang_tasks("CreateSnapshot_Task")
    with site.line.start("agent", "backup", "--json") as process:
        until(lambda: any(c.method == "CreateSnapshot_Task" for c in site.simulator.calls()))
        err = send(process, *numbers)
        out, rest = process.communicate(timeout=LIMIT_S)
    site.simulator.release_tasks()
    return process.returncode, out.decode(), err + rest.decode()


def send(process: subprocess.Popen[bytes], *numbers: signal.Signals) -> str:
    """One after the other, each when the one before was heard; what was said until then."""
    assert process.stderr is not None
    err = ""
    for number in numbers:
        process.send_signal(number)
        while "stopping:" not in err:
            err += process.stderr.readline().decode()
    return err


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_stops_it_clean(site: Site, number: signal.Signals, code: int, word: str) -> None:
    """The record has every VM, nothing of ours is left, and the exit code says which signal."""
    ended, out, _ = interrupted(site, number)
    assert ended == code
    (run,) = map(json.loads, out.splitlines())
    assert {outcome["status"] for outcome in run["outcomes"]} == {"stopped"}
    assert all(word in outcome["error"] for outcome in run["outcomes"])
    assert made(site) == []
    site.assert_nothing_left()


def test_a_second_signal_says_what_takes_long(site: Site) -> None:
    """It does not cut the clearing up short."""
    site.simulator.slow_tasks("RemoveSnapshot_Task", 0.5)
    with site.line.start("agent", "backup") as process:
        until(lambda: any(c.method == "RemoveSnapshot_Task" for c in site.simulator.calls()))
        send(process, signal.SIGINT, signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT_S)
    assert b"still clearing up" in err
    site.assert_nothing_left()


def test_whoever_reads_the_output_may_go(site: Site) -> None:
    """A closed pipe does not spoil the points, and is no traceback."""
    with site.line.start("agent", "backup") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(LIMIT_S)
    assert b"Traceback" not in err
    assert made(site) == NAMES[:2]
    site.assert_nothing_left()


def test_show_tells_how_a_point_came_to_be(site: Site) -> None:
    """What was read and why, how long the VM stood still at either end."""
    assert site.run().good
    owner = {
        "BACKPOINT_REPO": str(site.folder / "repository"),
        "BACKPOINT_PASSPHRASE": PASSPHRASE.text,
    }
    said = CommandLine(site.folder, owner).run("show", f"{NAMES[0]}@latest").out
    facts = {line.split("  ")[0] for line in said.splitlines()}
    assert any(re.fullmatch(r"capture disks disk-\d+ how", fact) for fact in facts)
    assert any(re.fullmatch(r"capture disks disk-\d+ why", fact) for fact in facts)
    assert {"capture snapshot stun_s", "afterwards snapshot_remove_stun_s"} <= facts
