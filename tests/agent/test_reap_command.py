"""`backpoint agent reap`, as a user says it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backpoint_agent.commands import reap
from backpoint_agent.ledger import Ledger
from backpoint_repo.command_parser import CommandParser
from backpoint_repo.errors import UsageError
from reaper_scene import Scene, running_scene


@dataclass
class Console:
    """The command with a configuration of one vCenter."""

    scene: Scene
    config: Path
    capture: pytest.CaptureFixture[str]

    def say(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        parser = CommandParser()
        parser.set_defaults(json=False)
        parser.add_argument("-c", dest="config", type=Path)
        reap.add_arguments(parser)
        self.capture.readouterr()
        code = reap.run(parser.parse_args(["-c", str(self.config), *words]))
        said = self.capture.readouterr()
        return code, said.out, said.err

    def records(self, *words: str) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and the JSON records."""
        code, out, _ = self.say("--json", *words)
        return code, [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Console]:
    with running_scene(tmp_path) as scene:
        config = tmp_path / "backpoint.toml"
        config.write_text(
            f"""
state = "{scene.state.path}"
[repository]
path = "{tmp_path / "repository"}"
[vcenters.vc1]
address = "{scene.account.address}"
user = "{scene.account.user}"
password = {{ file = "{scene.account.password.file}" }}
ca_file = "{scene.account.ca_file}"
request_limit_s = 2
"""
        )
        yield Console(scene, config, capsys)


def test_where_nothing_is_left_behind_it_says_so(console: Console) -> None:
    """Exit code 0, and not one method with an effect was called."""
    console.scene.simulator.forget_calls()
    code, out, err = console.say()
    assert (code, out) == (0, "")
    assert "nothing is left behind" in err
    assert console.scene.acts() == []


def test_it_removes_and_says_what_it_did(console: Console) -> None:
    """A line for each leftover: the VM, what, how it went, its number; then there are none."""
    console.scene.leave_snapshot()
    (effect,) = console.scene.open()
    code, out, _ = console.say()
    assert code == 0
    for word in ("vc1", effect.vm_name, "remove snapshot", "done", effect.number):
        assert word in out
    assert console.scene.tree() == []
    assert console.say()[1] == ""


def test_a_dry_run_shows_the_same_and_changes_nothing(console: Console) -> None:
    """The plan is printed, and nothing with an effect is called; the real run then does it."""
    console.scene.leave_snapshot()
    console.scene.simulator.orphan_delta(console.scene.vm(1))
    console.scene.simulator.forget_calls()
    code, planned = console.records("--dry-run", "--consolidate")
    assert code == 0
    assert [(r["action"], r["result"]) for r in planned] == [
        ("remove-snapshot", "planned"),
        ("consolidate", "planned"),
    ]
    assert console.scene.acts() == []
    assert len(console.scene.tree()) == 1
    code, done = console.records("--consolidate")
    assert code == 0
    assert [(r["action"], r["what"], r["vm"]) for r in done] == [
        (r["action"], r["what"], r["vm"]) for r in planned
    ]
    assert {r["result"] for r in done} == {"done"}


def test_what_cannot_be_undone_makes_exit_code_7(console: Console) -> None:
    """It stays open, its record says why; --forget strikes it off by its number."""
    with console.scene.dying() as ledger:
        effect = console.scene.intend(ledger, "restore-over")
    code, (record,) = console.records()
    assert code == 7
    assert (record["result"], record["effect"]) == ("kept", effect.number)
    assert "half way" in record["said"]
    assert console.records("--forget", effect.number) == (0, [])
    with pytest.raises(UsageError, match=effect.number):
        console.say("--forget", effect.number)


def test_an_orphan_is_told_and_is_no_failure(console: Console) -> None:
    """A snapshot that may be another agent's is listed with the reason that it is left."""
    with console.scene.dying(age_s=0) as ledger:
        effect = console.scene.intend(ledger, "snapshot")
        console.scene.our_snapshot(effect)
        ledger.undone(effect, "the ledger is lost")
    code, (record,) = console.records("--orphans")
    assert (code, record["action"], record["result"]) == (0, "tell", "told")
    assert "a run may be using it" in record["said"]
    assert len(console.scene.tree()) == 1


def test_a_vcenter_that_does_not_answer_leaves_all_open(console: Console) -> None:
    """Exit code 7, a warning that names it, and a record for what stays open; later it is done."""
    console.scene.leave_snapshot()
    console.scene.simulator.stop()
    code, out, err = console.say("--json")
    assert code == 7
    assert "vc1" in err
    assert [json.loads(line)["result"] for line in out.splitlines()] == ["kept"]
    console.scene.simulator.start()
    assert console.say()[0] == 0
    assert console.scene.tree() == []


def test_effects_of_a_vcenter_that_is_not_configured_are_told(console: Console) -> None:
    """Whoever takes a vCenter out of the file is reminded of what is left there."""
    with console.scene.dying() as ledger:
        ledger.intend("snapshot", "another vCenter", "vm-1", "db01", {})
    code, (record,) = console.records()
    assert (code, record["vm_name"], record["result"]) == (7, "db01", "kept")


def test_damage_of_the_ledger_is_told(console: Console) -> None:
    """What a broken line said is unknown: the user is told which file it is, and exit code 7."""
    with console.scene.dying() as ledger:
        console.scene.intend(ledger, "change-tracking")
    (file,) = console.scene.state.ledger.glob("*.jsonl")
    file.write_bytes(b"broken\n" + file.read_bytes())
    code, _, err = console.say()
    assert code == 7
    assert f"{file}: line 1" in err
    assert console.scene.machine().change_tracking
    with Ledger(console.scene.state.ledger) as ledger:
        assert ledger.open_effects() == []
