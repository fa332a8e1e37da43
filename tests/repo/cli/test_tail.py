"""`backpoint tail`: a replica that follows, what it says of itself, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from backpoint_repo.format import Kind
from backpoint_repo.repository import open_repository
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.local import LocalStore
from command_line import CommandLine, opened
from repo.copying.resealed_scene import THERE, assert_all_clean
from small_repository import NOON, StandingClock, assert_clean, back_up, keys_of, read_disk

CLOCK = StandingClock()


def backed_up(line: CommandLine, disk: Path, vm: str) -> str:
    return back_up(opened(line), vm, RawImage(disk), time=NOON).point_id.hex()


def assert_whole(both: CommandLine, there: Path, disk: Path, points: int) -> None:
    target = open_repository(LocalStore(there), THERE)
    copies = target.catalog.refresh()
    assert len(copies) == points
    for summary in copies:
        assert read_disk(target, target.point(summary.point_id).disks[0]) == disk.read_bytes()
    assert_clean(opened(both))
    assert_all_clean(LocalStore(there), THERE, CLOCK)


def test_once(both: CommandLine, there: Path, disk: Path) -> None:
    """What there was to copy, and how far each VM is, in words and as records."""
    backed_up(both, disk, "web01")
    backed_up(both, disk, "db")
    before, web, after = map(
        json.loads,
        both.run("tail", "--to", there, "--once", "--json", "web*").out.splitlines(),
    )
    assert (before["pending"], before["behind"], before["copied"]) == (1, 1, 0)
    assert before["vms"][0]["lag_s"] == before["lag_s"] > 0
    assert before["vms"][0]["newest"] is None
    assert (web["type"], web["vm"]) == ("copied", "web01")
    assert (after["pending"], after["lag_s"], after["copied"]) == (0, 0, 1)
    (row,) = after["vms"]
    assert (row["vm"], row["newest_time"], row["lag_s"]) == ("web01", NOON, 0)
    said = both.run("tail", "--to", there, "--once").out.splitlines()
    assert said[0].startswith("copied db@")
    assert [line.split() for line in said[2:4]] == [
        ["db", "2023-11-14T22-13-20Z"],
        ["web01", "2023-11-14T22-13-20Z"],
    ]
    assert said[-1] == "in step: 2 VMs"
    assert_whole(both, there, disk, 2)


def test_once_with_damage(both: CommandLine, there: Path, disk: Path) -> None:
    backed_up(both, disk, "web01")
    (pack,) = keys_of(opened(both).sealed.store, Kind.DATA_PACK)
    moved = both.folder / "pack"
    (both.repo / pack).rename(moved)
    said = both.run("tail", "--to", there, "--once", code=1)
    assert "web01@2023-11-14T22-13-20Z" in said.err
    assert "cannot be read: disk0: bytes " in said.err
    moved.rename(both.repo / pack)
    both.run("tail", "--to", there, "--once")
    assert_whole(both, there, disk, 1)


def test_wrong_use(both: CommandLine, there: Path) -> None:
    assert "too often" in both.run("tail", "--to", there, "--every", "0s", code=2).error
    nowhere = both.folder / "nowhere"
    assert "make one with" in both.run("tail", "--to", nowhere, "--once", code=4).error


def test_it_follows_survives_an_absence_and_ends_cleanly(
    both: CommandLine, there: Path, disk: Path
) -> None:
    """A new VM, a destination that is unmounted for a while, a point made meanwhile, SIGTERM."""
    backed_up(both, disk, "web01")
    away = there.with_name("unmounted")
    with both.start("tail", "--to", there, "--every", "1s", "--json") as process:
        wait_for(process, lambda record: record.get("copied") == 1)
        there.rename(away)
        there.mkdir()
        backed_up(both, disk, "db")
        assert process.stderr is not None
        for line in process.stderr:
            if b"is away" in line and b"trying again in 1.0 s" in line:
                break
        there.rmdir()
        away.rename(there)
        wait_for(process, lambda record: record.get("vm") == "db")
        wait_for(process, lambda record: record.get("pending") == 0)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 0
    assert err.endswith(b"ended; what was stored of a point under way is found again\n")
    assert not keys_of(LocalStore(there), Kind.LEASE)
    assert_whole(both, there, disk, 2)


def test_it_waits_for_a_place_that_is_away_when_it_starts(
    both: CommandLine, there: Path, disk: Path
) -> None:
    backed_up(both, disk, "web01")
    aside = there / "config.aside"
    (there / "config").rename(aside)
    (there / "config").mkdir()
    with both.start("tail", "--to", there, "--every", "1s", "--json") as process:
        assert process.stderr is not None
        assert b"trying again in 1.0 s" in process.stderr.readline()
        (there / "config").rmdir()
        aside.rename(there / "config")
        wait_for(process, lambda record: record.get("copied") == 1)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0
    assert_whole(both, there, disk, 1)


def wait_for(process: subprocess.Popen[bytes], seen: Any) -> None:
    """Read records until one of them is what is waited for."""
    assert process.stdout is not None
    for line in process.stdout:
        if seen(json.loads(line)):
            return
    raise AssertionError("it ended before")
