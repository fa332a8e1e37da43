"""Starting: what is imported, what help says, how wrong use and our own faults end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backpoint_repo import version
from backpoint_repo.cli import BUG, find_commands
from command_line import COMMAND, CommandLine, make_repository

HEAVY = {"trio", "pyfuse3", "pyVmomi", "shtab"}
_RUN_AND_TELL = """
import json, sys
from backpoint_repo.cli import main
sys.argv[1:] = json.loads(sys.argv[1])
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def modules_after(line: CommandLine, *words: str) -> set[str]:
    """What is imported once a command has ended."""
    run = subprocess.run(
        [sys.executable, "-c", _RUN_AND_TELL, json.dumps(words)],
        env=line.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(run.stderr.splitlines()[-1]))


@pytest.mark.parametrize("command", ["check", "points", "stats"])
def test_a_command_starts_without_what_mounting_needs(agent: CommandLine, command: str) -> None:
    found = modules_after(agent, command)
    assert "backpoint_repo.repository" in found
    assert not found & HEAVY
    others = set(find_commands()) - {command}
    assert not {f"backpoint_repo.commands.{name}" for name in others} & found


def test_help_lists_all_commands_and_imports_nothing_heavy(agent: CommandLine) -> None:
    found = modules_after(agent, "--help")
    assert not found & (HEAVY | {"numpy", "Crypto", "backpoint_repo.repository"})
    text = agent.having(COLUMNS="200").run("--help").out
    for name, point in find_commands().items():
        assert re.search(rf"^    {name} +{re.escape(point.load().HELP)}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [("backup", "image"), ("init",), ("points",), ("check",), ("key", "add"), ("restore",)],
    ids=" ".join,
)
def test_each_help_has_examples_environment_and_exit_codes(
    agent: CommandLine, words: tuple[str, ...]
) -> None:
    text = agent.run(*words, "--help").out
    for part in ("examples:\n  backpoint", "BACKPOINT_PASSPHRASE_COMMAND", "exit codes:", "--json"):
        assert part in text


def test_version(agent: CommandLine) -> None:
    for words in (("--version",), ("points", "--version")):
        assert agent.run(*words).out == f"backpoint {version.VERSION}\n"


def test_wrong_use_ends_with_2(agent: CommandLine) -> None:
    assert "no command 'pionts'" in agent.run("pionts", code=2).error
    assert "COMMAND" in agent.run(code=2).err
    assert "--nonsense" in agent.run("points", "--nonsense", code=2).err
    assert "--repo" in agent.run("-r", code=2).err


def test_global_options_stand_before_or_after(agent: CommandLine) -> None:
    elsewhere = agent.having(BACKPOINT_REPO="/nowhere", **_credential(agent))
    here = str(agent.repo)
    for words in (
        ("-r", here, "--json", "points"),
        ("points", "--json", "-r", here),
        ("--json", "points", f"--repo={here}"),
        ("--json", "key", "-r", here, "list"),
        ("key", "list", "--json", "-r", here),
    ):
        assert elsewhere.run(*words).record.keys() & {"points", "slots"}


def test_without_a_repository_it_asks_for_one(agent: CommandLine) -> None:
    line = CommandLine(agent.folder, _credential(agent))
    assert "-r REPO or set BACKPOINT_REPO" in line.run("points", code=2).error
    assert "name of a bucket" in line.run("points", "-r", "s3://b/c", code=2).error


def test_an_unexpected_fault_shows_where_and_has_its_own_code(tmp_path: Path) -> None:
    """A plugin of ours that fails; 1 would say that `check` found damage."""
    plugin = tmp_path / "plugin"
    (plugin / "broken-1.dist-info").mkdir(parents=True)
    (plugin / "broken-1.dist-info" / "METADATA").write_text("Name: broken\nVersion: 1\n")
    entry = "[backpoint.commands]\nbreak = broken\n"
    (plugin / "broken-1.dist-info" / "entry_points.txt").write_text(entry)
    (plugin / "broken.py").write_text(
        "HELP = 'fail'\ndef add_arguments(parser): pass\ndef run(args): return {}['gone']\n"
    )
    line = CommandLine(tmp_path, {"PYTHONPATH": str(plugin)})
    with line.start("break") as process:
        _, err = process.communicate()
    assert process.returncode == BUG
    assert b"KeyError: 'gone'" in err
    assert b"bug in backpoint" in err.splitlines()[-1]


def test_a_reader_that_goes_away_is_no_error(agent: CommandLine) -> None:
    with agent.start("--help") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode in (0, 141)
    with subprocess.Popen(
        f"'{COMMAND}' points --json | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env=agent.environment(),
        stderr=subprocess.PIPE,
    ) as shell:
        err += shell.communicate()[1]
    assert shell.returncode in (0, 141)
    assert err == b""


def test_an_output_that_is_full_is_told(agent: CommandLine) -> None:
    """By one line of ours: the log of a nightly run may lie on the disk that is full."""
    with open("/dev/full", "wb") as full:
        run = subprocess.run(
            [COMMAND, "stats"], env=agent.environment(), stdout=full, stderr=subprocess.PIPE
        )
    assert (run.returncode, run.stderr.count(b"\n")) == (4, 1), run.stderr
    assert b"No space left" in run.stderr


def test_verbose_shows_where_an_error_arose(tmp_path: Path) -> None:
    line = CommandLine(tmp_path, {"BACKPOINT_REPO": str(tmp_path)})
    with line.start("points", "-v") as process:
        _, err = process.communicate()
    assert process.returncode == 4
    assert b"Traceback" in err
    assert err.splitlines()[-1].startswith(b"backpoint: there is no repository")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_and_options(agent: CommandLine, shell: str) -> None:
    script = agent.run("completion", shell).out
    for word in ("restore", "export-agent", "changed-list"):
        assert word in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_two_repositories_do_not_mix(tmp_path: Path, agent: CommandLine) -> None:
    (tmp_path / "b").mkdir()
    _, other = make_repository(tmp_path / "b", tmp_path / "b" / "repo")
    said = other.run("points", "-r", agent.repo, code=5)
    assert "this credential is for repository" in said.error


def _credential(agent: CommandLine) -> dict[str, str]:
    return {"BACKPOINT_CREDENTIAL": agent.variables["BACKPOINT_CREDENTIAL"]}
