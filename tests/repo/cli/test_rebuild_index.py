"""`backpoint rebuild-index` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import CommandLine


def keys(line: CommandLine, folder: str) -> list[Path]:
    return sorted(path for path in (line.repo / folder).rglob("*") if path.is_file())


def spoil(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_index_is_made_anew(owner: CommandLine, agent: CommandLine, disk: Path) -> None:
    owner.run("backup", "image", "--vm", "web01", disk)
    (segment,) = keys(owner, "index")
    spoil(segment, 100)
    assert "damaged: index/" in owner.run("check", code=1).out
    before = keys(owner, "index")
    said = agent.run("rebuild-index", "--dry-run")
    assert "of 2 packs: 1 new segment would replace 1" in said.out
    assert keys(owner, "index") == before
    said = agent.run("rebuild-index")
    assert "of 2 packs: 1 new segment replaced 1" in said.out
    assert keys(owner, "index") != before
    assert "clean" in owner.run("check", "--read-data").out


def test_a_damaged_directory_is_named(owner: CommandLine, disk: Path) -> None:
    owner.run("backup", "image", "--vm", "web01", disk)
    (pack,) = keys(owner, "packs")
    spoil(pack, -1)
    said = owner.run("rebuild-index", code=1)
    assert f"damaged directory: packs/{pack.parent.name}/{pack.name}" in said.out
    assert "entries of packs that are damaged or gone are kept from the old index" in said.out


def test_as_json(owner: CommandLine, disk: Path) -> None:
    owner.run("backup", "image", "--vm", "web01", disk)
    (owner.repo / "catalog").mkdir(exist_ok=True)
    (owner.repo / "catalog" / ("ab" * 16)).write_bytes(b"BCKPNT\x0b\x01 garbage")
    said = owner.run("rebuild-index", "--json")
    record = said.record
    assert record["type"] == "rebuild-index"
    assert (record["packs"], record["written"], record["replaced"]) == (2, 1, 1)
    assert [found["what"] for found in record["cleared"]] == ["catalog/" + "ab" * 16]
    assert record["damaged"] == record["unreadable"] == []
    assert record["dry_run"] is False
    progress = [json.loads(line) for line in said.err.splitlines()]
    assert all(line["type"] == "progress" for line in progress)


def test_help(owner: CommandLine) -> None:
    said = owner.run("rebuild-index", "--help").out
    for word in ("examples:", "exit codes:", "--dry-run", "BACKPOINT_CACHE"):
        assert word in said
