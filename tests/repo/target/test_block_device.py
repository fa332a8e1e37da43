"""A real device: written over only when it is free, and never half looking like a disk."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo.errors import UsageError
from backpoint_repo.target.block_device import BlockDeviceTarget
from backpoint_repo.target.choose import open_target

MIB = 1 << 20
CAPACITY = 8 * MIB
OLD = b"old content" * (CAPACITY // 11 + 1)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A loop device full of something else."""
    backing = tmp_path / "backing"
    backing.write_bytes(OLD[:CAPACITY])
    attach = ["losetup", "--find", "--show", str(backing)]
    loop = Path(subprocess.check_output(attach, text=True).strip())
    yield loop
    subprocess.run(["losetup", "--detach", loop], check=True)


def content_of(device: Path) -> bytes:
    subprocess.run(["blockdev", "--flushbufs", device], check=True)
    return device.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 4097, MIB, 3 * MIB + 511, CAPACITY])
def test_overwrites_holes_too(device: Path, size: int) -> None:
    expected = bytearray(random.Random(size).randbytes(size))
    middle = size // 2
    expected[middle:] = bytes(size - middle)
    target = open_target(device, size, "raw", b"")
    assert isinstance(target, BlockDeviceTarget)
    target.zero_at(middle, size - middle)
    for offset in reversed(range(0, middle, 700_000)):
        target.write_at(offset, bytes(expected[offset : min(offset + 700_000, middle)]))
    target.finish()
    found = content_of(device)
    assert found[:size] == expected
    assert found[size:] == OLD[size:CAPACITY], "what lies behind the disk is not ours"


def test_abandoned_has_no_beginning(device: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    target = BlockDeviceTarget(device, CAPACITY)
    target.write_at(0, b"\x55" * CAPACITY)
    target.abandon()
    found = content_of(device)
    assert found[:MIB] == bytes(MIB)
    assert subprocess.run(["blkid", "--probe", device], check=False).returncode == 2


def test_too_small(device: Path) -> None:
    with pytest.raises(UsageError, match=rf"has {CAPACITY} bytes, too few"):
        BlockDeviceTarget(device, CAPACITY + 1)
    assert content_of(device) == OLD[:CAPACITY]


def test_mounted(device: Path, tmp_path: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mount", device, place], check=True)
    try:
        with pytest.raises(UsageError, match="mounted or otherwise in use"):
            BlockDeviceTarget(device, MIB)
    finally:
        subprocess.run(["umount", place], check=True)
    subprocess.run(["e2fsck", "-fn", device], check=True)


@pytest.mark.parametrize("format_name", ["vmdk", "qcow2"])
def test_other_formats_leave_devices_alone(device: Path, format_name: str) -> None:
    with pytest.raises(UsageError, match="exists"):
        open_target(device, MIB, format_name, b"")
    assert content_of(device) == OLD[:CAPACITY]
