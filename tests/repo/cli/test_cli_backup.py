"""`backup image`: what it stores, what it says, and everything it refuses before it begins."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from command_line import CommandLine, opened
from small_repository import assert_clean, read_disk

MIB = 1 << 20


def content_of(owner: CommandLine, point_id: str, disk: int = 0) -> bytes:
    """A stored disk, read back through the library."""
    repository = opened(owner)
    return read_disk(repository, repository.point(bytes.fromhex(point_id)).disks[disk])


def write_list(path: Path, *ranges: tuple[int, int]) -> Path:
    lines = [json.dumps({"offset": offset, "length": length}) for offset, length in ranges]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_backup_tells_what_it_cost(owner: CommandLine, agent: CommandLine, disk: Path) -> None:
    said = agent.run("backup", "image", "--vm", "web01", "--time", "2026-11-20T02:00Z", disk)
    assert said.out.startswith("point web01@2026-11-20T02-00-00Z (")
    assert "disks 3.0 MiB, read 2.0 MiB, new 2.0 MiB, stored 2." in said.out
    assert said.err == ""
    again = agent.run("backup", "image", "--vm", "web01", "--json", "--label", "two", disk)
    record = again.record
    assert (record["size"], record["new"], record["stored"]) == (3 * MIB, 0, 0)
    assert (record["label"], record["generation"], record["disks"][0]["key"]) == ("two", 1, "disk0")
    assert content_of(owner, record["id"]) == disk.read_bytes()
    assert_clean(opened(owner))


def test_json_progress_goes_to_stderr(agent: CommandLine, disk: Path) -> None:
    said = agent.run("--json", "backup", "image", "--vm", "a", disk)
    records = [json.loads(line) for line in said.err.splitlines()]
    assert all(record["type"] == "progress" for record in records)
    first, last = records[0], records[-1]
    assert (first["done_bytes"], last["done_bytes"]) == (0, 3 * MIB)
    assert last.keys() == {"type", "done_bytes", "total_bytes", "rate", "eta_s"}


def test_several_disks_and_files_keep_their_order(
    owner: CommandLine, agent: CommandLine, disk: Path
) -> None:
    odd, empty = agent.folder / "odd.raw", agent.folder / "empty.raw"
    odd.write_bytes(b"x" * 5001)
    empty.write_bytes(b"")
    files = {"web01.vmx": b'guestOS = "other"\n', "web01.nvram": bytes(range(256)) * 300}
    config = []
    for name, data in files.items():
        (agent.folder / name).write_bytes(data)
        config += ["--config", name]
    record = agent.run("backup", "image", "--vm", "w", *config, disk, odd, empty, "--json").record
    assert [found["size"] for found in record["disks"]] == [3 * MIB, 5001, 0]
    assert content_of(owner, record["id"], 1) == odd.read_bytes()
    assert content_of(owner, record["id"], 2) == b""
    repository = opened(owner)
    stored = repository.point(bytes.fromhex(record["id"])).files
    assert {file.name: repository.read_file(file) for file in stored} == files


def test_formats_are_told_from_content_or_named(
    owner: CommandLine, agent: CommandLine, disk: Path
) -> None:
    image = agent.folder / "disk.img"
    command: list[str | Path] = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image]
    subprocess.run(command, check=True, capture_output=True)
    for words in ((), ("--format", "qcow2")):
        record = agent.run("backup", "image", "--vm", "q", *words, image, "--json").record
        assert content_of(owner, record["id"]) == disk.read_bytes()
    raw = agent.run("backup", "image", "--vm", "r", "--format", "raw", image, "--json").record
    assert content_of(owner, raw["id"]) == image.read_bytes()


def test_a_changed_list_reads_only_what_it_names(
    owner: CommandLine, agent: CommandLine, disk: Path
) -> None:
    backup = ("backup", "image", "--vm", "web01", "--json")
    agent.run(*backup, disk)
    with disk.open("r+b") as file:
        file.seek(8192)
        file.write(b"new" * 1000)
    changed = write_list(agent.folder / "changed.jsonl", (8192, 3000))
    record = agent.run(*backup, "--changed-list", changed, disk).record
    assert 3000 <= record["read"] < MIB
    assert record["warnings"] == []
    assert content_of(owner, record["id"]) == disk.read_bytes()


def test_a_changed_list_that_cannot_be_used_is_told(agent: CommandLine, disk: Path) -> None:
    changed = write_list(agent.folder / "changed.jsonl", (0, 4096))
    said = agent.run("backup", "image", "--vm", "new", "--changed-list", changed, disk)
    assert "no earlier point holds this disk" in said.error
    assert "read 2.0 MiB" in said.out


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "must be"),
        ('[["offset", 0], ["length", 1]]', "must be"),
        ('{"offset": 0}', "must be"),
        ('{"offset": 0, "length": 1, "more": 1}', "must be"),
        ('{"offset": 0, "offset": 4096, "length": 1}', "must be"),
        ('{"offset": -1, "length": 1}', "offset must be a whole number"),
        ('{"offset": 0.0, "length": 1}', "offset must be a whole number"),
        ('{"offset": 0, "length": true}', "length must be a whole number"),
        ('{"offset": 0, "length": "9"}', "length must be a whole number"),
        ('{"offset": 3145728, "length": 1}', "behind the disk's end"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_changed_list_is_read_strictly(
    agent: CommandLine, disk: Path, line: str, why: str
) -> None:
    path = agent.folder / "list"
    text = f'{{"offset": 0, "length": 1}}\n\n{line}\n'
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    said = agent.run("backup", "image", "--vm", "a", "--changed-list", path, disk, code=2)
    assert why in said.error
    assert str(path) in said.error
    if "UTF-8" not in why:
        assert f"{path}:3:" in said.error
    assert agent.run("points", "--json").record["points"] == []


def test_as_many_lists_as_disks(agent: CommandLine, disk: Path) -> None:
    changed = write_list(agent.folder / "list", (0, 1))
    words = ("backup", "image", "--vm", "a", "--changed-list", changed, disk, disk)
    assert "1 --changed-list for 2 disks" in agent.run(*words, code=2).error
    agent.run(*words, "--changed-list", changed)


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("1700000000", "2023-11-14T22-13-20Z"),
        ("1700000000.9", "2023-11-14T22-13-20Z"),
        ("2026-11-20", "2026-11-20T00-00-00Z"),
        ("2026-11-20T02:00:00+02:00", "2026-11-20T00-00-00Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00-00-00Z"),
    ],
)
def test_times_as_people_write_them(agent: CommandLine, disk: Path, time: str, shown: str) -> None:
    record = agent.run("backup", "image", "--vm", "a", "--time", time, disk, "--json").record
    assert record["point"] == shown


@pytest.mark.parametrize(
    "time", ["yesterday", "1969-12-31", "99999999999999", "10000-01-01", "1e9"]
)
def test_no_times(agent: CommandLine, disk: Path, time: str) -> None:
    said = agent.run("backup", "image", "--vm", "a", f"--time={time}", disk, code=2)
    assert time in said.error


NAMES = [
    "a/b",
    "line\nbreak",
    "Büro \u202e東京",
    "@",
    "a@latest",
    "-x",
    "..",
    "v" * 255,
    "\x1b[2Jx",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_kept_and_shown_on_one_line(agent: CommandLine, disk: Path, name: str) -> None:
    words = ("backup", "image", f"--vm={name}", f"--label={name}", "--format=raw")
    point = agent.run(*words, disk).out
    assert point.count("\n") == 2
    listed = agent.run("points", "--json", "--", name).record["points"]
    assert [(found["vm"], found["label"]) for found in listed] == [(name, name)]
    table = agent.run("points").out
    assert table.count("\n") == 2
    assert not {"\x1b", "\u202e"} & set(table + point)
    shown = agent.run("show", "--json", "--", f"{name}@latest").record
    assert shown["vm"] == name


def test_names_that_cannot_be_kept_are_refused(agent: CommandLine, disk: Path) -> None:
    backup = ("backup", "image", "--format=raw")
    for name in (b"v" * 256, b"\xff\xfe", b"", "ü".encode() * 128):
        said = agent.run(*backup, "--vm", name, disk, code=2)
        assert "name" in said.error or "UTF-8" in said.error
    for folder in ("a", "b"):
        (agent.folder / folder).mkdir()
        (agent.folder / folder / "x.vmx").write_text("")
    twice = ("--config", "a/x.vmx", "--config", "b/x.vmx")
    assert "same name" in agent.run(*backup, "--vm=a", *twice, disk, code=2).error
    assert agent.run("points", "--json").record["points"] == []


def test_a_disk_may_have_a_name_that_is_no_text(agent: CommandLine, disk: Path) -> None:
    path = os.fsencode(agent.folder) + b"/\xff.raw"
    disk.rename(os.fsdecode(path))
    record = agent.run("backup", "image", "--vm=a", path, "--json").record
    assert record["disks"][0]["source"].endswith("/\\udcff.raw")


def test_a_disk_that_is_none_ends_with_3(agent: CommandLine, disk: Path) -> None:
    bad = agent.folder / "bad.qcow2"
    bad.write_bytes(b"QFI\xfb" + b"\xff" * 2000)
    for path in ("missing.raw", agent.folder, bad):
        said = agent.run("backup", "image", "--vm", "a", disk, path, code=3)
        assert Path(path).name in said.error
    assert "cannot read missing.vmx" in (
        agent.run("backup", "image", "--vm", "a", "--config", "missing.vmx", disk, code=2).error
    )
    assert agent.run("points", "--json").record["points"] == []
