"""Every way a passphrase can come, and every way it can fail to."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
from pathlib import Path

import pytest

from command_line import COMMAND, CommandLine
from small_repository import PASSPHRASE

TEXT = PASSPHRASE.text


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "secret file"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def on_terminal(line: CommandLine, typed: list[str], *words: str) -> tuple[int, str]:
    """Run with a terminal of its own, typing a line at each prompt; exit code and the screen."""
    ours, theirs = pty.openpty()
    command = ["setsid", "--ctty", "--wait", str(COMMAND), *words]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=line.environment()
    ) as process:
        os.close(theirs)
        screen, answers = "", iter(typed)
        while True:
            try:
                screen += os.read(ours, 4096).decode()
            except OSError:  # the terminal's other end was closed by the last who had it
                break
            if screen.endswith(": "):
                screen += "<typed>"
                os.write(ours, next(answers).encode() + b"\n")
        os.close(ours)
    return process.returncode, screen


def test_from_the_variable_itself(owner: CommandLine) -> None:
    assert owner.run("points", "--json").record["points"] == []


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nsecond line\n"])
def test_from_the_first_line_of_a_file(owner: CommandLine, end: str) -> None:
    path = secret_file(owner.folder, TEXT.encode() + end.encode())
    assert (
        owner.having(BACKPOINT_PASSPHRASE_FILE=path).run("points").err.endswith("no points yet\n")
    )


def test_a_file_everybody_can_read_is_warned_about(owner: CommandLine) -> None:
    path = secret_file(owner.folder, TEXT.encode(), 0o644)
    said = owner.having(BACKPOINT_PASSPHRASE_FILE=path).run("points", "--json")
    assert "every user of this machine can read" in said.error
    assert said.record["points"] == []


def test_from_a_command_without_a_shell(owner: CommandLine) -> None:
    path = secret_file(owner.folder, TEXT.encode() + b"\n")
    line = owner.having(BACKPOINT_PASSPHRASE_COMMAND=f"cat {shlex.quote(str(path))}")
    assert line.run("points", "--json").record["points"] == []
    # A shell would expand this to the passphrase.
    line = owner.having(BACKPOINT_PASSPHRASE_COMMAND="echo $SECRET", SECRET=TEXT)
    assert "wrong passphrase" in line.run("points", code=5).error


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("false", "ended with 1"),
        ("/no/such/program", "cannot run"),
        ("'unbalanced", "cannot run"),
        ("true", "first line is empty"),
    ],
)
def test_a_command_that_fails_is_named(owner: CommandLine, command: str, why: str) -> None:
    line = owner.having(BACKPOINT_PASSPHRASE_COMMAND=command)
    assert why in line.run("points", code=5).error


def test_a_file_that_fails_is_named(owner: CommandLine) -> None:
    missing = owner.having(BACKPOINT_PASSPHRASE_FILE="/no/such/file")
    assert "/no/such/file" in missing.run("points", code=5).error
    empty = owner.having(BACKPOINT_PASSPHRASE_FILE=secret_file(owner.folder, b"\nlater"))
    assert "first line is empty" in empty.run("points", code=5).error


def test_a_wrong_passphrase_says_so(owner: CommandLine) -> None:
    line = owner.having(BACKPOINT_PASSPHRASE="nonsense")
    assert line.run("points", code=5).error == "wrong passphrase: it opens no key slot"
    binary = owner.having(BACKPOINT_PASSPHRASE_FILE=secret_file(owner.folder, b"\xff\xfe\n"))
    assert "wrong passphrase" in binary.run("points", code=5).error


def test_a_mistyped_recovery_key_says_so(owner: CommandLine) -> None:
    line = owner.having(BACKPOINT_PASSPHRASE="BPR-AAAA-BBBB")
    assert "mistyped" in line.run("points", code=5).error


def test_two_sources_are_refused_by_name(owner: CommandLine, agent: CommandLine) -> None:
    both = owner.having(BACKPOINT_PASSPHRASE="a", BACKPOINT_PASSPHRASE_COMMAND="true")
    said = both.run("points", code=5).error
    assert said.startswith("BACKPOINT_PASSPHRASE and BACKPOINT_PASSPHRASE_COMMAND are set")
    mixed = owner.having(**{**agent.variables, "BACKPOINT_PASSPHRASE_FILE": "x"})
    said = mixed.run("points", code=5).error
    assert "BACKPOINT_CREDENTIAL and BACKPOINT_PASSPHRASE_FILE" in said


def test_an_empty_variable_is_not_set(agent: CommandLine) -> None:
    line = agent.having(**{**agent.variables, "BACKPOINT_PASSPHRASE": ""})
    assert line.run("points", "--json").record["points"] == []


def test_without_any_all_ways_are_named(owner: CommandLine) -> None:
    said = owner.having().run("points", code=5).error
    for name in ("PASSPHRASE", "PASSPHRASE_FILE", "PASSPHRASE_COMMAND", "CREDENTIAL"):
        assert f"BACKPOINT_{name}" in said


def test_a_bad_credential_is_named(agent: CommandLine) -> None:
    path = agent.folder / "other"
    path.write_text("{}")
    assert "not an agent credential" in (
        agent.having(BACKPOINT_CREDENTIAL=path).run("points", code=5).error
    )


def test_asked_for_on_a_terminal_without_echo(owner: CommandLine) -> None:
    code, screen = on_terminal(owner.having(), [TEXT], "points")
    assert code == 0
    assert "passphrase: <typed>" in screen
    assert TEXT not in screen
    code, screen = on_terminal(owner.having(), [""], "points")
    assert code == 5
    assert "no passphrase was typed" in screen


def test_nobody_is_asked_for_a_place_without_a_repository(owner: CommandLine) -> None:
    code, screen = on_terminal(owner.having(), [], "-r", "/no/such/place", "points")
    assert code == 4
    assert "there is no repository at /no/such/place" in screen


def test_init_asks_twice(owner: CommandLine, tmp_path: Path) -> None:
    new = owner.having(BACKPOINT_REPO=tmp_path / "new")
    code, screen = on_terminal(new, ["one", "two"], "init")
    assert code == 5
    assert "do not match" in screen
    assert not new.repo.exists()
    code, screen = on_terminal(new, ["one", "one"], "init")
    assert code == 0
    assert "passphrase, again: <typed>" in screen
