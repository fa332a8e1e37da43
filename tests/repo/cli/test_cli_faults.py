"""Stores that refuse, runs that are stopped, runs that meet: one clear line, and nothing broken."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from command_line import CommandLine, make_repository

MIB = 1 << 20


def random_disk(path: Path, size: int, seed: int = 1) -> Path:
    path.write_bytes(np.random.default_rng(seed).bytes(size))
    return path


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A filesystem of its own, gone afterwards."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def assert_clean(line: CommandLine, points: int) -> None:
    record = line.run("check", "--json").record
    assert record["clean"] is True
    assert record["points"] == points


def test_not_a_repository(agent: CommandLine) -> None:
    (agent.folder / "file").write_text("")
    for place in ("/", "nowhere", "file"):
        for words in (("points",), ("backup", "image", "--vm=a", "file")):
            said = agent.run("-r", place, *words, code=4)
            assert "there is no repository at" in said.error


def test_a_newer_format_is_refused(agent: CommandLine) -> None:
    config = agent.repo / "config"
    data = bytearray(config.read_bytes())
    data[7] = 9
    config.write_bytes(data)
    said = agent.run("points", code=4).error
    assert "format version 9" in said
    assert "newer backpoint" in said


@pytest.mark.parametrize("change", ["truncated", "flipped"])
def test_a_damaged_configuration_is_named(agent: CommandLine, change: str) -> None:
    config = agent.repo / "config"
    data = bytearray(config.read_bytes())
    data[-1] ^= 1
    config.write_bytes(data[:20] if change == "truncated" else data)
    assert "config" in agent.run("points", code=4).error


def test_a_store_that_cannot_be_written(tmp_path: Path, disk: Path) -> None:
    with tmpfs(tmp_path / "store", "16M") as folder:
        _, agent = make_repository(tmp_path, folder / "repo")
        agent.run("backup", "image", "--vm", "a", disk)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        said = agent.run("backup", "image", "--vm", "a", disk, code=4)
        assert "Read-only file system" in said.error
        new = agent.having(BACKPOINT_REPO=folder / "new", BACKPOINT_PASSPHRASE="x")
        assert "Read-only file system" in new.run("init", code=4).err.splitlines()[-1]
        assert len(agent.run("points", "--json").record["points"]) == 1
        assert_clean(agent, points=1)


def test_a_store_that_is_full(tmp_path: Path, disk: Path) -> None:
    big = random_disk(tmp_path / "big.raw", 24 * MIB)
    with tmpfs(tmp_path / "store", "12M") as folder:
        _, agent = make_repository(tmp_path, folder / "repo")
        agent.run("backup", "image", "--vm", "a", disk)
        said = agent.run("backup", "image", "--vm", "a", big, code=4)
        assert "No space left on device" in said.error
        assert_clean(agent, points=1)
        assert list((folder / "repo" / "tmp").iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=64M", folder], check=True)
        agent.run("backup", "image", "--vm", "a", big)
        assert_clean(agent, points=2)


def interrupt_after_first_pack(line: CommandLine, disk: Path, number: signal.Signals) -> int:
    """Begin a backup, send the signal once data is durable; the exit code."""
    with line.start("backup", "image", "--vm", "a", "--json", disk) as process:
        assert process.stderr is not None
        # On a busy machine we must get our turn before the backup is done.
        os.setpriority(os.PRIO_PROCESS, process.pid, 19)
        assert json.loads(process.stderr.readline())["done_bytes"] == 0
        packs = line.repo / "packs"
        while process.poll() is None and not list(packs.glob("*/*")):
            # Progress wakes us; without any we look again.
            if select.select([process.stderr], [], [], 0.01)[0]:
                process.stderr.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert out == b""
    assert b"Traceback" not in err
    if number is signal.SIGINT:
        assert err.splitlines()[-1] == b"backpoint: interrupted"
    return process.returncode


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_backup_leaves_no_point_and_its_data_is_used(
    agent: CommandLine, number: signal.Signals, code: int
) -> None:
    size = 384 * MIB
    disk = random_disk(agent.folder / "big.raw", size)
    assert interrupt_after_first_pack(agent, disk, number) == code
    assert list((agent.repo / "leases").iterdir()) == []
    assert_clean(agent, points=0)
    before = sum(path.stat().st_size for path in (agent.repo / "packs").glob("*/*"))
    assert before > 0
    record = agent.run("backup", "image", "--vm", "a", "--json", disk).record
    assert record["new"] <= size - 0.9 * before
    assert_clean(agent, points=1)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "a")], ids=["two VMs", "one VM"])
def test_two_backups_at_once_both_succeed(agent: CommandLine, names: tuple[str, str]) -> None:
    disk = random_disk(agent.folder / "disk2.raw", 40 * MIB)
    both = [agent.start("backup", "image", "--vm", name, "--json", disk) for name in names]
    ids = []
    for process in both:
        with process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        ids.append(json.loads(out)["id"])
    points = agent.run("points", "--json").record["points"]
    assert {point["id"] for point in points} == set(ids)
    assert_clean(agent, points=2)
