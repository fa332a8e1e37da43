"""`protect` and what `init` is told of age and parity."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpoint_repo.policy import Policy, put_policy, read_policy, read_policy_objects
from command_line import COMMAND, CommandLine, opened
from small_repository import assert_clean, back_up
from synthetic_disk import random_disk

DAY = 86400.0


def test_the_minimum_age_is_raised_and_never_lowered(
    owner: CommandLine, agent: CommandLine
) -> None:
    """It keeps parity as it is, and what is asked twice is stored once."""
    repository = opened(owner)
    put_policy(repository.sealed, Policy(0.0, (4, 1)), repository.clock)
    assert owner.run("protect").out == "minimum age  none\nparity       4+1\n"
    assert agent.run("protect", "--min-age", "14d").out.startswith("minimum age  14d\n")
    owner.run("protect", "--min-age", "2w")
    assert len(read_policy_objects(repository.sealed)) == 2
    said = owner.run("protect", "--min-age", "36h", code=2).error
    assert said == "the minimum age is 14d and can only be raised, not lowered to 36h"
    record = owner.run("protect", "--json").record
    assert record == {"type": "policy", "min_age_s": 14 * DAY, "parity": [4, 1]}
    assert "100 years" in owner.run("protect", "--min-age", "101y", code=2).error
    for number in range(3):
        back_up(repository, "vm", random_disk(1 << 14, number))
    said = owner.run("prune", "--keep-last", "1", "--dry-run").out
    assert said.count("younger than 14d, the minimum age") == 3
    assert_clean(repository)


def test_init_sets_both(tmp_path: Path) -> None:
    line = CommandLine(
        tmp_path, {"BACKPOINT_REPO": str(tmp_path / "new"), "BACKPOINT_PASSPHRASE": "x y z"}
    )
    assert COMMAND.exists()
    line.run("init", "--min-age", "14d", "--parity", "10+2")
    record = line.run("protect", "--json").record
    assert (record["min_age_s"], record["parity"]) == (14 * DAY, [10, 2])


@pytest.mark.parametrize(
    "words", [("--min-age", "long"), ("--min-age", "101y"), ("--parity", "3"), ("--parity", "0+1")]
)
def test_init_refuses_the_impossible_before_anything_is_made(
    tmp_path: Path, words: tuple[str, str]
) -> None:
    line = CommandLine(
        tmp_path, {"BACKPOINT_REPO": str(tmp_path / "new"), "BACKPOINT_PASSPHRASE": "x y z"}
    )
    line.run("init", *words, code=2)
    assert not (tmp_path / "new").exists()


def test_without_a_policy_nothing_is_asked(owner: CommandLine) -> None:
    assert read_policy(opened(owner).sealed) == Policy()
    assert owner.run("protect").out == "minimum age  none\nparity       none\n"
