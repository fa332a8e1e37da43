"""`backpoint scrub` as a user runs it: either credential, stopped and started, rot, I/O errors."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

import pytest

from backpoint_repo import opening
from backpoint_repo.commands import scrub
from backpoint_repo.errors import UsageError
from backpoint_repo.format import Kind
from command_line import CommandLine, opened
from repo.scrubbing.scrub_scene import WatchedStore, over
from small_repository import keys_of


@pytest.fixture
def filled(agent: CommandLine, owner: CommandLine, disk: Path) -> CommandLine:
    """The owner's line; one point."""
    agent.run("backup", "image", "--vm", "web", disk)
    return owner


def rot(line: CommandLine) -> Path:
    """Flip a bit in the first data pack; returns its file."""
    path = line.repo / keys_of(opened(line).sealed.store, Kind.DATA_PACK)[0]
    data = bytearray(path.read_bytes())
    data[500_000] ^= 1
    path.write_bytes(data)
    return path


def test_what_was_read_is_remembered(filled: CommandLine, agent: CommandLine) -> None:
    assert "2 packs" in agent.run("scrub").out
    said = filled.run("scrub", "--json").record
    assert (said["type"], said["packs"], said["due"], said["never_read"]) == ("scrub", 1, 0, 0)
    assert said["oldest_reading"] > 1.7e9
    again = filled.run("scrub").out.splitlines()
    assert "last read by scrub on 20" in again[0]
    assert again[-1] == "0 packs, 0 B read; nothing more is due"
    terms = ("--oldest-first", "--every=0s", "--rate=1G/s")
    assert filled.run("scrub", *terms, "--json").record["packs"] == 2
    assert filled.run("check", "--json").record["never_read"] == 0


def test_rot_is_told_with_what_it_hurts_until_it_is_stored_anew(
    filled: CommandLine, agent: CommandLine, disk: Path
) -> None:
    name = rot(filled).name
    said = agent.run("scrub", code=1)
    for part in (f"/{name}: ", "hurt: web@", "disk", "1 damaged chunk is marked", "heal`"):
        assert part in said.out
    found = filled.run("scrub", "--json", code=1).record
    assert [item["vm"] for item in found["hurt"]] == ["web"]
    assert found["marked"] == 0, "that was done by the first"
    agent.run("backup", "image", "--vm", "web", disk)
    assert "no point depends on it" in filled.run("scrub", "--oldest-first", code=1).out
    filled.run("scrub")


def test_what_cannot_be_read_now_is_no_damage(
    filled: CommandLine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told apart by its own exit code. No file of ours fails so, hence a store that says it."""
    watched = WatchedStore(opened(filled).sealed.store)
    watched.unavailable = {keys_of(watched, Kind.DATA_PACK)[0]}
    monkeypatch.setattr(opening, "open_from", lambda _: over(watched))
    parser = argparse.ArgumentParser()
    scrub.add_arguments(parser)
    parser.set_defaults(json=False)
    assert scrub.run(parser.parse_args([])) == 4
    said = capsys.readouterr().out
    assert "could not look at: cannot read packs/" in said
    assert "damaged" not in said
    assert said.endswith("still due\n")


def test_it_ends_at_a_signal_and_goes_on_later(filled: CommandLine) -> None:
    """At one byte a second it would take weeks."""
    with filled.start("scrub", "--rate=1/s", "--json") as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    said = filled.run("scrub", "--json")
    assert said.record["due"] == 0
    records = [json.loads(line) for line in said.err.splitlines()]
    assert {record["type"] for record in records} == {"progress"}
    last = [record for record in records if record.get("total_bytes")][-1]
    assert last["done_bytes"] == last["total_bytes"] == said.record["bytes"]


def test_time_that_is_over_before_it_began(filled: CommandLine) -> None:
    said = filled.run("scrub", "--for=0s")
    assert said.out == "0 packs, 0 B read; 2 packs are still due\n"


@pytest.mark.parametrize("word", ["--rate=fast", "--rate=0/s", "--every=soon", "--for=ever"])
def test_wrong_use(word: str) -> None:
    parser = argparse.ArgumentParser()
    scrub.add_arguments(parser)
    with pytest.raises(UsageError):
        scrub.run(parser.parse_args([word]))


def test_an_empty_repository(agent: CommandLine) -> None:
    assert agent.run("scrub").out == "0 packs, 0 B read; nothing more is due\n"
