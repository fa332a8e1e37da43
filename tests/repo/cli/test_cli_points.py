"""`points`, `show`, `stats`, `check`, `restore`: what owner and agent see of a repository."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from backpoint_repo.format import Kind
from command_line import CommandLine, opened
from small_repository import keys_of

MIB = 1 << 20
TIMES = ("2026-11-20T02:00", "2026-11-20T22:00", "2026-11-21T02:00")


@pytest.fixture
def filled(agent: CommandLine, disk: Path) -> CommandLine:
    """The agent's line; three points of web01, one of db."""
    for time in TIMES:
        agent.run("backup", "image", "--vm", "web01", "--time", time, "--label", "nightly", disk)
    agent.run("backup", "image", "--vm", "db", "--time", TIMES[0], disk)
    return agent


def test_points_are_listed_by_vm_and_time(filled: CommandLine) -> None:
    rows = [line.split() for line in filled.run("points").out.splitlines()]
    assert rows[0][:4] == ["point", "id", "vm", "label"]
    shown = [(row[2], row[0]) for row in rows[1:]]
    assert shown == sorted(shown)
    assert shown[0] == ("db", "2026-11-20T02-00-00Z")
    assert rows[2][3:] == ["nightly", "1", "3.0", "MiB", "2.0", "MiB", "2.0", "MiB"]
    own = filled.run("points", "web01", "--json").record["points"]
    assert [point["point"] for point in own] == [
        "2026-11-20T02-00-00Z",
        "2026-11-20T22-00-00Z",
        "2026-11-21T02-00-00Z",
    ]
    assert own[0]["size"] == 3 * MIB
    assert "no points of a VM named 'mail'" in filled.run("points", "mail", code=2).error


def test_a_selector_names_one_point(filled: CommandLine) -> None:
    points = filled.run("points", "web01", "--json").record["points"]
    newest = points[-1]
    for which in ("latest", "-1", "2", "2026-11-21", newest["id"][:12]):
        assert filled.run("show", f"web01@{which}", "--json").record["id"] == newest["id"]
    text = filled.run("show", "web01").out
    for part in (
        newest["id"],
        "nightly",
        "disk 0",
        "3.0 MiB (3145728 bytes)",
        "generation",
        "crash",
    ):
        assert part in text


def test_an_ambiguous_selector_lists_the_candidates(filled: CommandLine) -> None:
    said = filled.run("show", "web01@2026-11-20", code=2).error
    assert "ambiguous" in said
    assert "2026-11-20T02-00-00Z (" in said
    assert "2026-11-20T22-00-00Z (" in said
    assert "names no point" in filled.run("show", "web01@2025", code=2).error
    assert "there are: db, web01" in filled.run("show", "mail", code=2).error


def test_a_broken_point_is_told_and_hides_no_other(filled: CommandLine) -> None:
    store = opened(filled.having()).sealed.store
    key = keys_of(store, Kind.POINT)[0]
    path = filled.repo / key
    path.write_bytes(path.read_bytes()[:-1])
    said = filled.run("points", "--json")
    assert len(said.record["points"]) == 3
    assert list(said.record["unreadable"]) == [Path(key).name]
    assert key in said.error
    assert "warning" in said.error
    assert key in filled.run("stats", "--json").record["unreadable"][0]
    checked = filled.run("check", code=1)
    assert f"damaged: {key}" in checked.out
    assert "DAMAGED" in checked.out
    record = filled.run("check", "--json", code=1).record
    assert record["clean"] is False
    assert [found["key"] for found in record["damaged"]] == [key]


def test_check_reads_data_for_the_owner(owner: CommandLine, filled: CommandLine) -> None:
    assert filled.run("check").out.endswith("0 B read: clean\n")
    record = owner.run("check", "--read-data", "--json").record
    assert record["clean"] is True
    assert record["read_bytes"] > 2 * MIB
    assert owner.run("check", "--read-data=50%").out.endswith("clean\n")
    for share in ("10", "0%", "101%", "-1%", "x%"):
        assert "share of the data" in owner.run("check", f"--read-data={share}", code=2).err


def test_damage_is_told_as_what_it_hurts_and_marked(
    owner: CommandLine, filled: CommandLine, disk: Path
) -> None:
    pack = max((filled.repo / "packs").glob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    assert filled.run("check").out.endswith("clean\n")
    said = owner.run("check", "--read-data", code=1)
    assert "hurt: web01@2026-11-20T02-00-00Z (" in said.out
    assert "hurt: db@2026-11-20T02-00-00Z (" in said.out
    assert "disk0, bytes " in said.out
    assert "marked" in said.out
    hurt = owner.run("check", "--read-data", "--json", code=1).record["hurt"]
    assert {found["vm"] for found in hurt} == {"web01", "db"}
    assert "cannot be read" in owner.run("restore", "db", "--disk=0", "-o", "x", code=4).error
    assert not (owner.folder / "x").exists()
    healed = filled.run("backup", "image", "--vm", "web01", disk, "--json").record
    assert healed["new"] > 0
    assert owner.run("check", "--read-data").out.endswith("clean\n")
    owner.run("restore", "db@latest", "--disk", "0", "-o", "x")
    assert (owner.folder / "x").read_bytes() == disk.read_bytes()


def test_stats_add_up(filled: CommandLine) -> None:
    record = filled.run("stats", "--json").record
    assert (record["points"], record["vms"]) == (4, 2)
    assert (record["logical_bytes"], record["allocated_bytes"]) == (12 * MIB, 8 * MIB)
    assert record["chunks"]["plain_bytes"] == record["chunks"]["blob_plain_bytes"] == 2 * MIB
    assert record["dedup_ratio"] == 4.0
    assert 0.9 < record["compression_ratio"] <= 1
    assert record["unlisted_packs"] == 0
    files = [path for path in filled.repo.rglob("*") if path.is_file()]
    assert record["stored_total_bytes"] == sum(path.stat().st_size for path in files)
    assert sum(record["objects"].values()) == len(files)
    text = filled.run("stats").out
    assert "4 of 2 VMs" in text
    assert "4.00x" in text


def test_an_empty_repository_is_no_error(agent: CommandLine) -> None:
    assert agent.run("points").error == "no points yet"
    assert agent.run("stats", "--json").record["dedup_ratio"] is None
    assert "deduplication" in agent.run("stats").out
    assert agent.run("check").out.startswith("0 points")
    assert "none at all" in agent.run("show", "web01", code=2).error


@pytest.mark.parametrize("format_name", ["raw", "vmdk", "qcow2"])
def test_restore_writes_the_disk(
    owner: CommandLine, filled: CommandLine, disk: Path, format_name: str
) -> None:
    out = owner.folder / f"out.{format_name}"
    said = owner.run("restore", "web01@-1", "--disk", "0", "-o", out, "--format", format_name)
    assert said.out.startswith("disk 0 of web01@2026-11-21T02-00-00Z written to ")
    compare: list[str | Path] = ["qemu-img", "compare", "-f", "raw", "-F", format_name, disk, out]
    subprocess.run(compare, check=True, capture_output=True)
    before = hashlib.sha256(out.read_bytes()).digest()
    again = owner.run("restore", "web01@-1", "--disk", "0", "-o", out, code=2)
    assert "exists" in again.error
    assert hashlib.sha256(out.read_bytes()).digest() == before


def test_restore_tells_what_it_did_in_json(owner: CommandLine, filled: CommandLine) -> None:
    record = owner.run("restore", "db", "--disk", "0", "-o", "out.raw", "--json").record
    assert record["type"] == "restored"
    assert (record["file"], record["size"], record["allocated"]) == ("out.raw", 3 * MIB, 2 * MIB)


def test_restore_knows_the_disks(owner: CommandLine, filled: CommandLine) -> None:
    for number in ("1", "-1"):
        said = owner.run("restore", "db", f"--disk={number}", "-o", "out.raw", code=2)
        assert "its disks: 0 to 0" in said.error
    assert "no folder" in owner.run("restore", "db", "--disk=0", "-o", "no/folder/x", code=2).error


def test_the_agent_does_all_but_read(filled: CommandLine) -> None:
    """It backed up, listed, counted and checked above; reading is refused with a sentence."""
    for words in (("restore", "db", "--disk=0", "-o", "stolen"), ("check", "--read-data")):
        said = filled.run(*words, code=5).error
        assert "cannot read them" in said
        assert "owner's passphrase" in said
    assert not (filled.folder / "stolen").exists()
