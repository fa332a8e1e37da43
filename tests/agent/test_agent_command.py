"""`backpoint agent` as a whole: the help of its actions, and completion."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from backpoint_repo.cli import main
from backpoint_repo.commands.completion import SHELLS

ACTIONS = ("inventory", "backup", "run", "reap", "restore", "status", "config-check")


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    """The command line has one of its own for SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def said_by(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def test_the_help_lists_every_action(capsys: pytest.CaptureFixture[str]) -> None:
    """With a line for each, and where the configuration comes from."""
    text = said_by(capsys, "agent", "--help")
    for action in ACTIONS:
        assert f"\n    {action} " in text
    assert "BACKPOINT_CONFIG" in text


@pytest.mark.parametrize("action", ACTIONS)
def test_the_help_of_an_action(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Says what it does, shows examples of itself, its exit codes, and fits a terminal."""
    text = said_by(capsys, "agent", action, "--help")
    assert text.startswith(f"usage: backpoint agent {action} ")
    assert f"\n  backpoint agent {action} " in text.partition("\nexamples:")[2]
    assert "\nexit codes:\n" in text
    assert "-c FILE, --config FILE" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_the_actions(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And their options; bash reads the script without complaint."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*ACTIONS, "--dry-run", "--orphans", "--power-on", "--config"):
        assert word.removeprefix("--") in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_bash_completes_within_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    """The words that bash offers, asked of the script itself."""
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    ask = '\nfor word in "${COMPREPLY[@]}"; do echo "$word"; done\n'
    words = "COMP_WORDS=(backpoint agent ''); COMP_CWORD=2; COMP_LINE='backpoint agent '\n"
    function = script.partition("\ncomplete -o bashdefault -F ")[2].split()[0]
    text = f"{script}\n{words}{function} backpoint '' agent{ask}"
    offered = subprocess.run(["bash"], input=text, text=True, check=True, capture_output=True)
    assert set(ACTIONS) <= set(offered.stdout.split())
