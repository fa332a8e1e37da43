"""`points` and `show`: a failed proof is as visible as a good one; an unreadable one is told."""

from __future__ import annotations

import pytest

from backpoint_repo.point_note import PointNote, put_note
from backpoint_repo.point_proof import put_proof
from backpoint_repo.proof import LEVELS, Proof, Step
from command_line import CommandLine, opened
from small_repository import back_up
from synthetic_disk import random_disk

AT = 1_795_000_000.0
DAY = "2026-11-18"


@pytest.fixture
def vms(agent: CommandLine) -> dict[str, bytes]:
    """Ids of the points of three VMs: `good` proved by a boot after a failed proof, `bad` the other
    way round, `none` without a proof."""
    repository = opened(agent)
    sealed, disk = repository.sealed, random_disk(1 << 20, 1)
    ids = {vm: back_up(repository, vm, disk).point_id for vm in ("bad", "good", "none")}
    for vm, first in (("good", False), ("bad", True)):
        put_proof(sealed, _proof(ids[vm], AT, first))
        put_proof(sealed, _proof(ids[vm], AT + 60, not first))
    return ids


def _rows(table: str) -> dict[str, str]:
    """By VM; the heading too."""
    return {row.split()[2]: row.rstrip() for row in table.splitlines()}


def _proof(point_id: bytes, at: float, good: bool) -> Proof:
    ends = (True, True, True, True) if good else (True, True, False)
    steps = tuple(
        Step(level, ok, 1.0, "as it should be" if ok else "sda1 does not list")
        for level, ok in zip(LEVELS, ends, strict=False)
    )
    sign_s = 4.25 if good else None
    return Proof(point_id, at, steps, "backpoint 9", "prover", 12.0, "login:", sign_s, "tcg")


@pytest.mark.usefixtures("vms")
def test_points_show_the_newest_proof(agent: CommandLine) -> None:
    """Good, failed, and none."""
    rows = _rows(agent.run("points").out)
    assert rows["good"].endswith(f"boot {DAY}")
    assert rows["bad"].endswith(f"FAILED trees {DAY}")
    assert rows["vm"].endswith("proof")
    assert DAY not in rows["none"]
    records = agent.run("points", "--json").record["points"]
    told = {record["vm"]: record["proof"] and record["proof"]["ok"] for record in records}
    assert told == {"good": True, "bad": False, "none": None}
    unproved = agent.run("points", "--unproved", "--json").record["points"]
    assert [record["vm"] for record in unproved] == ["bad", "none"]
    assert "no unproved points" in agent.run("points", "good", "--unproved").err


@pytest.mark.usefixtures("vms")
def test_show_tells_every_proof(agent: CommandLine) -> None:
    """Newest first, with what was seen and what was wrong."""
    text = agent.run("show", "bad").out
    assert text.index("trees FAILED") < text.index("boot ok")
    assert "FAILED: sda1 does not list" in text
    assert "login: after 4.2 s (tcg)" in text
    proofs = agent.run("show", "bad", "--json").record["proofs"]
    assert [proof["ok"] for proof in proofs] == [False, True]
    assert proofs[0]["failed_level"] == "trees"


def test_a_proof_that_cannot_be_read(agent: CommandLine, vms: dict[str, bytes]) -> None:
    """Is told as such, is not taken for a good one, and hides nothing else."""
    at = AT + 3600
    topic = f"proof{int(at * 1000):012x}" + "0" * 12
    put_note(opened(agent).sealed, PointNote(vms["good"], topic, at, {}))
    said = agent.run("points")
    assert "a proof cannot be read" in said.err
    rows = _rows(said.out)
    assert rows["good"].endswith(f"unreadable {DAY}")
    assert rows["bad"].endswith(f"FAILED trees {DAY}")
    shown = agent.run("show", "good", "--json").record["proofs"]
    assert ["unreadable" in proof for proof in shown] == [True, False, False]
