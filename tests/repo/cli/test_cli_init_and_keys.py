"""Making a repository, and everything `key` does; these pay for real scrypt."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from backpoint_repo.repository import Passphrase
from command_line import CommandLine, opened


@pytest.fixture
def new(tmp_path: Path) -> CommandLine:
    """A place for a repository that is not there yet."""
    variables = {"BACKPOINT_REPO": str(tmp_path / "new"), "BACKPOINT_PASSPHRASE": "first"}
    return CommandLine(tmp_path, variables)


def test_init_with_a_recovery_key_that_opens(new: CommandLine) -> None:
    said = new.run("init", "--recovery-key", "recovery", "--chunk-avg", "32KiB")
    assert str(new.repo) in said.out
    assert "print it" in said.out
    assert said.err == ""
    path = new.folder / "recovery"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert opened(new, Passphrase("first")).config.chunks.avg_blocks == 8
    slots = new.having(BACKPOINT_PASSPHRASE_FILE=path).run("key", "list", "--json").record["slots"]
    assert [slot["method"] for slot in slots] == ["passphrase", "recovery"]
    again = new.run("init", code=2).error
    assert again == f"there is a repository at {new.repo} already"


def test_init_without_a_recovery_key_warns(new: CommandLine) -> None:
    said = new.run("init", "--json")
    assert "there is no recovery key" in said.error
    assert said.record["repository"] == opened(new, Passphrase("first")).config.repository_id.hex()


def test_init_refuses_before_it_makes_anything(new: CommandLine, agent: CommandLine) -> None:
    taken = new.folder / "taken"
    taken.write_text("precious")
    assert "exists" in new.run("init", "--recovery-key", taken, code=2).error
    for size in ("65000", "8K", "8M", "-1", "64Q"):
        new.run("init", f"--chunk-avg={size}", code=2)
    with_agent = new.having(BACKPOINT_CREDENTIAL=agent.variables["BACKPOINT_CREDENTIAL"])
    assert "made by its owner" in with_agent.run("init", code=5).error
    assert taken.read_text() == "precious"
    assert not new.repo.exists()
    new.repo.mkdir()
    (new.repo / "notes.txt").write_text("mine")
    assert "has notes.txt" in new.run("init", code=2).error
    assert [path.name for path in new.repo.iterdir()] == ["notes.txt"]


def test_a_recovery_key_that_cannot_be_written_is_told(owner: CommandLine) -> None:
    said = owner.run("key", "recovery", "-o", "no/such/folder", code=2)
    assert "cannot write no/such/folder" in said.error
    assert len(owner.run("key", "list", "--json").record["slots"]) == 1


def test_keys_are_added_changed_and_revoked(owner: CommandLine) -> None:
    text = owner.variables["BACKPOINT_PASSPHRASE"]
    adding = owner.having(BACKPOINT_PASSPHRASE=text, BACKPOINT_NEW_PASSPHRASE="second")
    slot = adding.run("key", "add", "--label", "alice", "--json").record["slot"]
    second = owner.having(BACKPOINT_PASSPHRASE="second")
    assert f"{slot}  passphrase  alice" in second.run("key", "list").out
    changing = owner.having(
        BACKPOINT_PASSPHRASE="second", BACKPOINT_NEW_PASSPHRASE_COMMAND="echo third"
    )
    changed = changing.run("key", "change", "--json").record
    assert changed["revoked"] == slot
    assert "wrong passphrase" in second.run("points", code=5).error
    third = owner.having(BACKPOINT_PASSPHRASE="third")
    slots = third.run("key", "list", "--json").record["slots"]
    assert [found["label"] for found in slots] == ["first passphrase", "alice"]
    assert "revoked" in third.run("key", "revoke", slots[0]["id"]).out
    assert "wrong passphrase" in owner.run("points", code=5).error
    assert "last key slot" in third.run("key", "revoke", slots[1]["id"], code=2).error
    assert "names 0 key slots" in third.run("key", "revoke", "ffff0", code=2).error


def test_a_recovery_key_opens_and_is_not_changed(owner: CommandLine) -> None:
    assert "lock it away" in owner.run("key", "recovery", "-o", "paper").out
    paper = owner.having(
        BACKPOINT_PASSPHRASE_FILE=owner.folder / "paper", BACKPOINT_NEW_PASSPHRASE="new"
    )
    assert "only a passphrase can be changed" in paper.run("key", "change", code=2).error
    paper.run("key", "add")
    owner.having(BACKPOINT_PASSPHRASE="new").run("points")


def test_no_new_passphrase_changes_nothing(owner: CommandLine) -> None:
    for action in ("add", "change"):
        assert "BACKPOINT_NEW_PASSPHRASE_FILE" in owner.run("key", action, code=5).error
    assert len(owner.run("key", "list", "--json").record["slots"]) == 1


def test_an_exported_credential_works_and_is_private(owner: CommandLine) -> None:
    owner.run("key", "export-agent", "-o", "exported")
    path = owner.folder / "exported"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    owner.having(BACKPOINT_CREDENTIAL=path).run("points")
    assert "exists" in owner.run("key", "export-agent", "-o", path, code=2).error


def test_the_agent_manages_no_keys(agent: CommandLine) -> None:
    slot = agent.run("key", "list", "--json").record["slots"][0]["id"]
    for words in (
        ("add",),
        ("change",),
        ("revoke", slot, "--force"),
        ("recovery", "-o", "new"),
        ("export-agent", "-o", "new"),
    ):
        assert "passphrase" in agent.run("key", *words, code=5).error
    assert not (agent.folder / "new").exists()
    assert len(agent.run("key", "list", "--json").record["slots"]) == 1
