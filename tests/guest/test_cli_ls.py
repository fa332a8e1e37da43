"""`backpoint ls`: names, stat and links as the kernel shows them; and what volumes there are."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backpoint_repo.terminal import printable
from guest_points import DATA_UUID, SYSTEM_UUID, Machine, make_machine, run_here

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With one point."""
    made = make_machine(tmp_path_factory.mktemp("machine"))
    made.back_up()
    yield made
    made.assert_clean()


def test_records_say_what_the_kernel_says(machine: Machine) -> None:
    """Every file of the guest's own view, in order, across the mount at /data."""
    said = machine.owner.run("ls", "--recursive", "--json", "web:/")
    assert said.err == ""
    listed = [json.loads(line) for line in said.out.splitlines()]
    with machine.mounted() as root:
        expected = {path: _record(root, path) for path in _paths(root)}
    found = {_path_of(record, "path"): record for record in listed}
    assert list(found) == sorted(expected, key=lambda path: path.split(b"/"))
    for path, record in found.items():
        assert _of_stat(record) == expected[path], path
    assert found[b"/data/inner/file"]["volume"] == "disk1"
    assert b"/data/covered" not in found


def test_lines_are_for_people(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Names by themselves, sorted, nothing in them acts on the terminal; with -l as `ls -ln`."""
    with machine.mounted() as root:
        names = sorted(os.listdir(os.fsencode(root / "names/odd")))
        modes = {path.name: path.lstat().st_mode for path in (root / "attributes/modes").iterdir()}
    plain = run_here(machine.owner, capsys, "ls", "web:disk0/names/odd").out
    shown = [printable(name.decode("utf-8", "backslashreplace")) for name in names]
    assert plain.split("\n") == [*shown, ""]
    words = ("ls", "-l", "web:/attributes/modes/", "web:/bin/../../bin")
    lines = run_here(machine.owner, capsys, *words).out.splitlines()
    rows = [line.split(maxsplit=7) for line in lines]
    assert {row[7]: row[0] for row in rows[:-1]} == {
        name: stat.filemode(mode) for name, mode in modes.items()
    }
    assert rows[-1][7] == "tool"
    assert rows[-1][1:5] == ["1", "0", "0", "10"]


def test_volumes_are_listed_with_what_is_known_of_them(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Name, size, filesystem, label and UUID, why swap has no files, and the guest's own view."""
    said = machine.owner.run("ls", "--json", "web@latest:")
    records = [json.loads(line) for line in said.out.splitlines()]
    volumes, view = records[:-1], records[-1]
    assert [volume["name"] for volume in volumes] == ["disk0", "disk1", "disk2"]
    sizes = [path.stat().st_size for path in machine.disks]
    assert [volume["size"] for volume in volumes] == sizes
    assert [volume["label"] for volume in volumes[:2]] == ["system", "data"]
    assert [volume["uuid"] for volume in volumes[:2]] == [SYSTEM_UUID, DATA_UUID]
    assert [bool(volume["problem"]) for volume in volumes] == [False, False, True]
    assert view["kind"] == "unix"
    mounts = [(mount["path"], mount["volume"]) for mount in view["mounts"]]
    assert mounts == [("/", "disk0"), ("/data", "disk1")]
    lines = run_here(machine.owner, capsys, "ls", "web").out.splitlines()
    assert lines[0].split() == ["volume", "size", "filesystem", "label", "uuid", "problem"]
    assert lines[2].split()[:6] == ["disk1", "24.0", "MiB", "ext", "data", DATA_UUID]
    assert "/data is on disk1" in lines


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("web:/nowhere",), "there is no /nowhere"),
        (("web:/etc/fstab/x",), "no folder"),
        (("web:nothing/etc",), "there is no volume nothing; there are: disk0, disk1, disk2"),
        (("mail:/etc",), "no points of a VM named 'mail'"),
    ],
)
def test_what_is_not_there_is_told(
    machine: Machine, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence."""
    assert told in run_here(machine.owner, capsys, "ls", *words, code=2).error


def test_the_agent_is_refused(machine: Machine) -> None:
    """Names of a guest's files are its data."""
    assert "agent credential" in machine.agent.run("ls", "web:/etc", code=5).error


def _paths(root: Path) -> Iterator[bytes]:
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            yield os.path.join(folder, name)[len(top) :]


def _record(root: Path, path: bytes) -> dict[str, Any]:
    whole = os.fsencode(root) + path
    found = os.lstat(whole)
    device = stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)
    return {
        "type": _KINDS[stat.S_IFMT(found.st_mode)],
        "inode": found.st_ino,
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "links": found.st_nlink,
        "uid": found.st_uid,
        "gid": found.st_gid,
        "size": found.st_size,
        "allocated": found.st_blocks * 512,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
        "target": os.readlink(whole) if stat.S_ISLNK(found.st_mode) else b"",
        "device": (os.major(found.st_rdev), os.minor(found.st_rdev)) if device else None,
    }


def _of_stat(record: dict[str, Any]) -> dict[str, Any]:
    """A record as `_record` makes it."""
    numbers = ("type", "inode", "mode", "links", "uid", "gid", "size", "allocated", "mtime_ns")
    return {
        **{name: record[name] for name in (*numbers, "ctime_ns")},
        "target": _path_of(record, "target") if "target" in record else b"",
        "device": (record["major"], record["minor"]) if "major" in record else None,
    }


def _path_of(record: dict[str, Any], name: str) -> bytes:
    """Without loss."""
    if f"{name}_hex" in record:
        return bytes.fromhex(record[f"{name}_hex"])
    text = record[name]
    assert isinstance(text, str)
    return text.encode()
