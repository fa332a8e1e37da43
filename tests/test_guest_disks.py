"""The disks that all other tests stand on: sound, of the promised content, and really bootable."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import get_args

import pytest

from guest_disks import (
    Filesystem,
    NoMarker,
    attached,
    boot,
    build_bootable,
    build_data_disk,
    change_data_disk,
    mounted,
)
from guest_disks.tool import run

_MIB = 1 << 20
_CHECKERS: dict[Filesystem, tuple[str, ...]] = {
    "ext4": ("e2fsck", "-f", "-n"),
    "xfs": ("xfs_repair", "-n"),
    "ntfs": ("ntfsfix", "--no-action"),
    "fat": ("fsck.vfat", "-n"),
}


def _digests(disk: Path) -> dict[str, str]:
    with mounted(disk, read_only=True) as root:
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }


def _check(disk: Path, filesystem: Filesystem) -> None:
    with attached(disk, read_only=True) as device:
        run(*_CHECKERS[filesystem], device)


@pytest.mark.parametrize("filesystem", get_args(Filesystem))
def test_a_data_disk_is_sound_and_a_day_changes_a_little(
    tmp_path: Path, filesystem: Filesystem
) -> None:
    disk = tmp_path / "disk.raw"
    build_data_disk(disk, 320 * _MIB, seed=7, files_total_bytes=24 * _MIB, filesystem=filesystem)
    _check(disk, filesystem)
    before = _digests(disk)

    day = change_data_disk(disk, 1)

    _check(disk, filesystem)
    after = _digests(disk)
    assert before.keys() - after.keys() == set(day.deleted)
    links = {"newest", "second name of the first file"}
    assert after.keys() - before.keys() == set(day.added)
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed - links == {*day.appended, *day.rewritten}
    assert 0 < day.bytes_written < 2 * _MIB


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    trees = []
    for number, seed in enumerate((1, 1, 2)):
        disk = tmp_path / f"{number}.raw"
        build_data_disk(disk, 64 * _MIB, seed=seed, files_total_bytes=4 * _MIB, table="dos")
        change_data_disk(disk, 1)
        trees.append(_digests(disk))
    assert trees[0] == trees[1]
    assert trees[0] != trees[2]


def test_reading_a_disk_does_not_write_to_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    build_data_disk(disk, 64 * _MIB, seed=3, files_total_bytes=2 * _MIB)
    before = hashlib.sha256(disk.read_bytes()).digest()
    assert _digests(disk)
    assert hashlib.sha256(disk.read_bytes()).digest() == before


def test_a_guest_boots_counts_its_boots_and_reads_its_payload(tmp_path: Path) -> None:
    disk = tmp_path / "guest.raw"
    payload = random.Random(5).randbytes(_MIB)
    build_bootable(disk, hostname="web01", payload=payload)
    _check(disk, "ext4")
    drive = f"file={disk},format=raw"

    first = boot(drive, timeout_s=120, snapshot=False)
    second = boot(drive, timeout_s=120)

    assert first.fields["vm"] == "web01"
    assert first.fields["sum"] == hashlib.md5(payload).hexdigest()
    assert (first.fields["boots"], second.fields["boots"]) == ("1", "2")


def test_a_disk_that_cannot_boot_is_told_with_its_last_words(tmp_path: Path) -> None:
    disk = tmp_path / "empty.raw"
    disk.write_bytes(bytes(_MIB))
    with pytest.raises(NoMarker, match="last words"):
        boot(f"file={disk},format=raw", timeout_s=3)


def test_a_tool_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"mkfs\.xfs .* ended with"):
        build_data_disk(
            tmp_path / "small.raw", 16 * _MIB, seed=1, files_total_bytes=_MIB, filesystem="xfs"
        )
