"""`backpoint agent config-check`: mistakes, a summary, and what is not as it should be here."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from backpoint_agent.commands import config_check
from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.read import examine_settings
from backpoint_agent.settings.surroundings import find_doubts
from backpoint_repo.command_parser import CommandParser
from backpoint_repo.errors import UsageError
from config_text import VALID
from vcsim.certificate import Certificate

EVENING = datetime(2026, 6, 1, 20, 0, tzinfo=ZoneInfo("Europe/Berlin"))


def check(*words: str | Path) -> int:
    """The command with these words, as `backpoint agent` calls it."""
    parser = CommandParser(prog="backpoint agent config-check")
    parser.set_defaults(json=False)
    parser.add_argument("-c", "--config", type=Path)
    config_check.add_arguments(parser)
    args: argparse.Namespace = parser.parse_args([str(word) for word in words])
    return config_check.run(args)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that `tidy` names, as it should be."""
    (tmp_path / "repository").mkdir()
    (tmp_path / "nfs" / "web01").mkdir(parents=True)
    (tmp_path / "state").mkdir(mode=0o700)
    for secret in ("password", "agent.credential"):
        (tmp_path / secret).touch(mode=0o600)
    return tmp_path


def tidy(folder: Path, more: str = "") -> str:
    """A configuration whose surroundings are all there."""
    text = VALID.replace("/srv/backpoint", "repository")
    job = 'schedule = "0 22 * * *"\nwindow = { start = "22:00", end = "06:00" }\n'
    mounts = '[transports.datastores]\nnfs01 = "nfs"\n[jobs.nightly.retention]\nkeep_daily = 14\n'
    return f'state = "state"\n{text}{job}{more}\n{mounts}'


def doubts(text: str, folder: Path) -> list[str]:
    """What is found in the folder's surroundings, the folder left out."""
    settings = examine_settings(text, folder)
    assert isinstance(settings, Settings), settings
    found = find_doubts(settings, EVENING, {"SET": "x"})
    return [doubt.replace(str(folder), "HERE") for doubt in found]


def test_a_right_file(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Says ok, what it comes to, and no warning; the file may come from the environment."""
    file = folder / "backpoint.toml"
    file.write_text(tidy(folder))
    assert check("-c", file) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines()[0] == f"ok: {file}"
    assert "vc1.example.com as backup" in told.out
    row = told.out.splitlines()[-1]
    for shown in ("nightly", "main", "22:00 to 06:00", "datastore, https, export", "14 daily"):
        assert shown in row
    monkeypatch.setenv("BACKPOINT_CONFIG", str(file))
    assert check() == 0
    assert capsys.readouterr().out.splitlines()[0] == f"ok: {file}"


def test_a_right_file_for_scripts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One record; the next run is a moment with its offset, after now."""
    file = folder / "backpoint.toml"
    file.write_text(tidy(folder).replace('"repository"', '"nowhere"'))
    assert check("-c", file, "--json") == 0
    told = capsys.readouterr()
    record: dict[str, Any] = json.loads(told.out)
    job = record["jobs"][0]
    next_run = datetime.fromisoformat(job.pop("next_run"))
    assert next_run > datetime.now(next_run.tzinfo)
    assert (next_run.hour, next_run.minute) == (22, 0)
    assert job["transports"] == ["datastore", "https", "export"]
    assert job["retention"] == {"keep_daily": 14}
    assert job["window"]["start"] == "22:00"
    assert record["ok"] is True
    assert record["warnings"] == [f"repository.path: there is no folder {folder / 'nowhere'}"]
    assert told.err == ""


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, a line each on stdout, and exit code 2; for scripts as one record."""
    file = tmp_path / "backpoint.toml"
    file.write_text(VALID.replace("user", "usr").replace("path", "paht"))
    assert check("-c", file) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{file}:1: repository.path: is missing",
        f'{file}:2: repository.paht: unknown key; did you mean "path"?',
        f"{file}:5: vcenters.main.user: is missing",
        f'{file}:7: vcenters.main.usr: unknown key; did you mean "user"?',
    ]
    assert check("-c", file, "--json") == 2
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] is False
    assert [mistake["line"] for mistake in record["mistakes"]] == [1, 2, 5, 7]
    assert record["mistakes"][0]["key"] == "repository.path"


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one is asked for, or what is wrong with it."""
    monkeypatch.delenv("BACKPOINT_CONFIG", raising=False)
    with pytest.raises(UsageError, match="Give -c FILE"):
        check()
    with pytest.raises(UsageError, match="No such file"):
        check("-c", tmp_path / "none.toml")


def test_the_example_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is right as it is printed; its surroundings are not here, which is no mistake."""
    assert check("--print-example") == 0
    file = tmp_path / "backpoint.toml"
    file.write_text(capsys.readouterr().out)
    assert check("-c", file) == 0
    told = capsys.readouterr()
    assert "nightly" in told.out
    assert "warning: vcenters.main.password.file" in told.err


def test_what_is_in_order_raises_no_doubt(folder: Path) -> None:
    """Everything named is there and private."""
    Certificate.make(folder)
    more = """
[vcenters.b]
address = "b"
user = "b"
password = { command = "sh -c pwd" }
ca_file = "vcenter.pem"
[vcenters.c]
address = "c"
user = "c"
password = { environment = "SET" }
"""
    text = tidy(folder, more).replace("select", 'vcenter = "main"\nselect')
    assert doubts(text, folder) == []


def test_open_places(folder: Path) -> None:
    """Secrets and state that others may use."""
    (folder / "password").chmod(0o644)
    (folder / "agent.credential").chmod(0o604)
    (folder / "state").chmod(0o755)
    assert doubts(tidy(folder), folder) == [
        "state: HERE/state is open to others; say `chmod 700 HERE/state`",
        "repository.credential: every user of this machine can use HERE/agent.credential; "
        "say `chmod 600 HERE/agent.credential`",
        "vcenters.main.password.file: every user of this machine can use HERE/password; "
        "say `chmod 600 HERE/password`",
    ]


def test_missing_places(folder: Path) -> None:
    """Each with its key; a missing state folder is made by the agent and no doubt."""
    for secret in ("password", "agent.credential"):
        (folder / secret).unlink()
    for empty in ("repository", "nfs/web01", "nfs", "state"):
        (folder / empty).rmdir()
    (folder / "no.pem").touch()
    more = """
[vcenters.b]
address = "b"
user = "b"
password = { environment = "NOT_SET" }
ca_file = "no.pem"
[vcenters.c]
address = "c"
user = "c"
password = { command = "no-such-program x" }
ca_file = "none.pem"
[transports.vddk]
libdir = "vddk"
command = ["no-such-nbdkit", "{libdir}"]
[transports.hotadd]
proxy = "501e4f52-8a1b-7c3d-9e6f-2b4a6c8d0e1f"
by_id = "by-id"
[report]
prometheus = "metrics/backpoint.txt"
"""
    text = tidy(folder, more).replace("select", 'vcenter = "main"\nselect')
    assert doubts(text, folder) == [
        "repository.path: there is no folder HERE/repository",
        "repository.credential: HERE/agent.credential cannot be used: No such file or directory",
        "vcenters.main.password.file: HERE/password cannot be used: No such file or directory",
        "vcenters.b.password.environment: NOT_SET is not set here",
        "vcenters.b.ca_file: HERE/no.pem holds no certificate in PEM form",
        "vcenters.c.password.command: there is no program no-such-program",
        "vcenters.c.ca_file: HERE/none.pem cannot be used: No such file or directory",
        "transports.datastores.nfs01: HERE/nfs cannot be used: No such file or directory",
        "transports.vddk: there is no program no-such-nbdkit",
        "transports.vddk.libdir: there is no folder HERE/vddk",
        "transports.hotadd.by_id: there is no folder HERE/by-id",
        "report.prometheus: node exporters read files that end in .prom only",
        "report.prometheus: there is no folder HERE/metrics",
    ]


@pytest.mark.parametrize(
    ("schedule", "days", "never"),
    [
        ("0 21 * * *", ["mon"], True),
        ("0 3 * * *", ["mon"], False),
        ("0 23 * * sun", ["mon"], True),
        ("0 3 * * sun", ["sat"], False),
        ("*/30 * * * *", ["sat"], False),
    ],
)
def test_schedules_that_never_meet_their_window(
    folder: Path, schedule: str, days: list[str], never: bool
) -> None:
    """A job that would be reported as missed every time."""
    text = tidy(folder).replace("0 22 * * *", schedule)
    text = text.replace('end = "06:00"', f'end = "06:00", days = {days}')
    told = "jobs.nightly.schedule: none of its next starts falls into the job's window"
    assert doubts(text, folder) == ([told] if never else [])


def test_datastores_that_are_not_mounted(folder: Path) -> None:
    """An empty mount point is there before its mount is."""
    (folder / "nfs" / "web01").rmdir()
    assert doubts(tidy(folder), folder) == [
        "transports.datastores.nfs01: HERE/nfs is empty; is the datastore mounted?"
    ]


def test_no_credential(folder: Path) -> None:
    """The environment is looked into then, which is worth a word."""
    text = tidy(folder).replace('credential = "agent.credential"\n', "")
    assert doubts(text, folder) == [
        "repository: no credential; the agent will look for one in its environment"
    ]
