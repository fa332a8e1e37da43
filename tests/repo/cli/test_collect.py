"""`backpoint collect`: what it frees, what it says, how it ends."""

from __future__ import annotations

import json
import random

import pytest

from backpoint_repo.format import FOLDERS, Kind
from backpoint_repo.lease import MOUNT, Lease, LeaseTerms
from backpoint_repo.pin import pin_of
from backpoint_repo.policy import Policy, put_policy
from command_line import CommandLine, opened
from small_repository import assert_clean, back_up, keys_of, read_disk
from synthetic_disk import SyntheticDisk

MIB = 1 << 20


@pytest.fixture
def pruned(agent: CommandLine) -> CommandLine:
    """The agent's line; web01 has one point, db had one that is removed."""
    repository = opened(agent)
    back_up(repository, "web01", filled(1))
    gone = back_up(repository, "db", filled(2))
    repository.sealed.delete(Kind.POINT, gone.point_id.hex())
    return agent


def filled(seed: int) -> SyntheticDisk:
    disk = SyntheticDisk(3 * MIB)
    content = random.Random(seed)
    disk.write(0, content.randbytes(MIB))
    disk.write(2 * MIB, content.randbytes(MIB))
    return disk


def files_of(line: CommandLine) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in line.repo.rglob("*") if path.is_file()}


def test_space_is_given_back(pruned: CommandLine) -> None:
    """A preview writes nothing and says what will be; the rest reads and is clean."""
    before = files_of(pruned)
    preview = pruned.run("collect", "--dry-run").out
    assert files_of(pruned) == before
    assert "nothing needs it" in preview
    assert "2.0 MiB would be freed, 0 B copied for it" in preview
    said = pruned.run("collect", "--max-repack", "1G", "--wait", "0")
    assert said.out.startswith("2 packs deleted, 2.0 MiB; 0 B copied")
    repository = opened(pruned)
    point = repository.point(repository.catalog.refresh()[0].point_id)
    assert read_disk(repository, point.disks[0]) == filled(1).content(0, 3 * MIB)
    assert_clean(repository)
    assert pruned.run("collect").out.startswith("0 packs deleted")


def test_as_records(pruned: CommandLine) -> None:
    preview = pruned.run("collect", "--dry-run", "--json").record
    assert preview["dry_run"]
    assert preview["freed"] == 0
    fates = {(fate["what"], fate["packs"]) for fate in preview["plan"]}
    assert fates == {("delete", 2), ("keep", 2)}
    record = pruned.run("collect", "--json").record
    assert record["type"] == "collect"
    assert record["freed"] == next(f["freed"] for f in preview["plan"] if f["what"] == "delete")
    assert (record["epoch"], record["freed_packs"], record["waiting"]) == (1, 2, [])


def test_what_others_hold_is_told(pruned: CommandLine) -> None:
    """With who it is, and how it can be freed; that is no failure."""
    repository = opened(pruned)
    point = repository.point(repository.catalog.refresh()[0].point_id)
    mount = Lease(
        repository.sealed, b"m" * 16, LeaseTerms(MOUNT, 0, (pin_of(point),)), repository.clock
    )
    said = pruned.run("collect", "--wait", "0")
    assert "waiting: 2 packs, 2.0 MiB, for mount on" in said.out
    stats = pruned.run("stats", "--json").record
    assert stats["trashed_packs"] == 2
    assert 2 * MIB < stats["trashed_bytes"] < 2.1 * MIB
    assert "end it, or run collect again" in said.out
    repository.sealed.delete(Kind.POINT, point.point_id.hex())
    record = pruned.run("collect", "--wait", "0", "--json").record
    assert record["pinned"][0]["by"].startswith("mount on")
    assert record["pinned"][0]["size"] > 2 * MIB
    assert record["waiting"][0]["packs"] == 2
    mount.release()
    assert pruned.run("collect", "--json").record["freed"] > 4 * MIB


def test_a_point_that_cannot_be_read(pruned: CommandLine) -> None:
    """Nothing may go: exit code 4, and what to do about it."""
    key = keys_of(opened(pruned).sealed.store, Kind.POINT)[0]
    path = pruned.repo / key
    path.write_bytes(path.read_bytes()[:-1])
    said = pruned.run("collect", code=4)
    assert f"stopped: {key} cannot be read" in said.out
    assert "put that object back from a copy" in said.out
    assert json.loads(pruned.run("collect", "--json", code=4).out)["stopped"]


def test_what_is_freed_is_what_was_said(pruned: CommandLine) -> None:
    """Also where packs are copied; and spares are called for, where there are to be some."""
    repository = opened(pruned)
    back_up(repository, "web01", half := filled(1))
    half.punch(0, MIB)
    back_up(repository, "web01", half)
    put_policy(repository.sealed, Policy(parity=(2, 1)), repository.clock)
    pruned.run("prune", "web01", "--keep-last", "1")
    preview = pruned.run("collect", "--dry-run").out.splitlines()[-1]
    freed = preview.partition(" would be freed")[0]
    copied = preview.partition("freed, ")[2].partition(" copied")[0]
    assert copied.startswith("1.0 MiB")
    said = pruned.run("collect", "--wait", "0").out.splitlines()
    assert said[0].endswith(f"; {copied} copied to compact: {freed} freed")
    assert said[1].startswith("now run `backpoint parity`")
    assert_clean(opened(pruned))


def test_damage_that_is_in_the_way(pruned: CommandLine) -> None:
    """Exit code 1: a blob that must be copied is spoiled."""
    repository = opened(pruned)
    old = repository.catalog.refresh()[0]
    disk = filled(1)
    disk.punch(0, MIB)
    back_up(repository, "web01", disk)
    repository.sealed.delete(Kind.POINT, old.point_id.hex())
    for path in pruned.repo.glob(f"{FOLDERS[Kind.DATA_PACK]}/*/*"):
        data = bytearray(path.read_bytes())
        data[int(0.75 * len(data))] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)
    said = pruned.run("collect", code=1)
    assert "run heal" in said.out


def test_wrong_use(agent: CommandLine) -> None:
    for words in (("--max-repack", "much"), ("--wait", "long"), ("--wait", "-1")):
        assert agent.run("collect", *words, code=2).out == ""
    help_ = agent.run("collect", "--help").out
    for part in ("--max-repack", "--dry-run", "exit codes:", "examples:"):
        assert part in help_
