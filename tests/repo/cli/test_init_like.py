"""`init --like`: a replica made and visited again, and points brought to it by an agent."""

from __future__ import annotations

from pathlib import Path

from backpoint_repo.errors import UsageError
from backpoint_repo.key_slots import add_slot, list_slots, revoke_slot
from backpoint_repo.repository import Passphrase, open_repository
from backpoint_repo.store.local import LocalStore
from command_line import CommandLine, opened
from small_repository import CHEAP, NOON, PASSPHRASE, assert_clean, new_repository, read_disk

SECOND = "battery staple"


def test_an_agent_makes_a_replica_and_brings_it_points(
    owner: CommandLine, agent: CommandLine, disk: Path
) -> None:
    agent.run("backup", "image", disk, "--vm", "vm1")
    there = agent.folder / "there"
    said = agent.run("-r", there, "init", "--like", agent.repo, "--min-age", "14d")
    identity = opened(owner).config.repository_id.hex()
    assert f"replica of {agent.repo} made at {there}: repository {identity}" in said.out
    assert "14d" in agent.run("-r", there, "protect").out
    agent.run("copy", "--to", there)
    replica = open_repository(LocalStore(there), PASSPHRASE)
    (summary,) = replica.catalog.refresh()
    point = replica.point(summary.point_id)
    assert read_disk(replica, point.disks[0]) == disk.read_bytes()
    assert_clean(replica)


def test_slots_are_brought_and_told(owner: CommandLine, agent: CommandLine) -> None:
    there = agent.folder / "there"
    agent.run("-r", there, "init", "--like", agent.repo)
    sealed = opened(owner).sealed
    (first,) = list_slots(sealed)
    second = add_slot(sealed, SECOND, "second", CHEAP, NOON)
    record = agent.run("-r", there, "init", "--like", agent.repo, "--json").record
    assert (record["made"], record["like"]) == (False, str(agent.repo))
    assert record["slots"] == {"added": [second.slot_id], "surplus": [], "spoiled": []}
    assert open_repository(LocalStore(there), Passphrase(SECOND))
    revoke_slot(sealed, first.slot_id, force=False)
    said = agent.run("-r", there, "init", "--like", agent.repo)
    assert f"key revoke {first.slot_id}" in said.error
    assert "key slots added: 0" in said.out


def test_what_makes_no_replica(agent: CommandLine) -> None:
    """And leaves the place alone."""
    there = agent.folder / "there"
    to_there = ("-r", there, "init", "--like", agent.repo)
    said = agent.run(*to_there, "--chunk-avg", "32K", code=UsageError.exit_code)
    assert "--chunk-avg" in said.error
    assert "no repository" in agent.run("-r", there, "init", "--like", there, code=4).error
    assert not there.exists()
    there.mkdir()
    (there / "notes.txt").write_text("mine")
    assert "not empty" in agent.run(*to_there, code=UsageError.exit_code).error
    assert [path.name for path in there.iterdir()] == ["notes.txt"]
    other = agent.folder / "other"
    new_repository(LocalStore(other))
    said = agent.run("-r", other, "init", "--like", agent.repo, code=UsageError.exit_code)
    assert "another repository" in said.error
