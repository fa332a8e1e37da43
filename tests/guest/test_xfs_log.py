"""What is said of a log that was not written back: at a crash, when quiesced, wherever it ends."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backpoint_fusefs.guest.parsers.xfs.log_state import DIRTY, EXTERNAL
from backpoint_fusefs.guest.parsers.xfs.superblock import read_superblock
from backpoint_fusefs.guest.parsers.xfs.xfs_filesystem import open_xfs
from guest_disks.tool import run
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import walk_folder, walk_parser

_MIB = 1 << 20


def test_a_crash_leaves_changes_that_are_not_shown(tmp_path: Path) -> None:
    """A copy of the disk taken while files were being made and flushed."""
    image, crashed = tmp_path / "image", tmp_path / "crashed"
    make_image(image, "xfs", 310 * _MIB)
    with mounted_image(image, "xfs") as root:
        _make_files(root, 50)
        _copy(image, crashed)
    assert _recovery(crashed) == DIRTY
    assert _recovery(image) == ""


def test_after_its_recovery_nothing_is_missing(tmp_path: Path) -> None:
    """The kernel replays the crashed copy; unmounted, it has no changes in its log."""
    image, crashed = tmp_path / "image", tmp_path / "crashed"
    make_image(image, "xfs", 310 * _MIB)
    with mounted_image(image, "xfs") as root:
        _make_files(root, 50)
        _copy(image, crashed)
    with mounted_image(crashed, "xfs") as root:
        assert len(list(root.iterdir())) == 50
    assert _recovery(crashed) == ""


def test_a_quiesced_guest_has_nothing_missing(tmp_path: Path) -> None:
    """Frozen as a guest's tools do it for a snapshot, the log is in use and yet all is shown."""
    image, frozen = tmp_path / "image", tmp_path / "frozen"
    make_image(image, "xfs", 310 * _MIB)
    with mounted_image(image, "xfs") as root:
        _make_files(root, 50)
        with _frozen(root):
            _copy(image, frozen)
        expected = walk_folder(root)
    raw = FileImage(frozen)
    with closing(raw):
        filesystem = open_xfs(raw)
        assert filesystem.facts.recovery == ""
        assert walk_parser(filesystem, raw) == expected


def test_a_log_that_goes_round_is_understood(tmp_path: Path) -> None:
    """Wherever in the ring its end lies: changes are told from a quiesced guest's counters."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(310 * _MIB)
    # Without these mkfs.xfs refuses a log below 64 MiB, which takes 20 s to go round.
    small = {"TEST_DIR": "x", "TEST_DEV": "x", "QA_CHECK_FS": "x"}
    run("mkfs.xfs", "-q", "-f", "-l", "size=8m", image, environment=small)
    said: list[str] = []
    with mounted_image(image, "xfs") as root:
        # How much of it is logged depends on how busy the machine is.
        while _rounds(image) < 2 and len(said) < 200:
            _log_much(root)
            said.append(_recovery(image))
            with _frozen(root):
                said.append(_recovery(image))
    assert said == [DIRTY, ""] * (len(said) // 2)
    assert _recovery(image) == ""
    assert _rounds(image) > 1


def test_a_log_elsewhere_is_said(tmp_path: Path) -> None:
    """With the log on its own device the volume alone cannot tell."""
    image, log = tmp_path / "image", tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(64 * _MIB)
    make_image(image, "xfs", 310 * _MIB, ["-l", f"logdev={log},size=64m"])
    assert _recovery(image) == EXTERNAL


def _make_files(root: Path, count: int) -> None:
    for number in range(count):
        with (root / str(number)).open("wb") as file:
            file.write(b"flushed")
            os.fsync(file.fileno())


@contextmanager
def _frozen(root: Path) -> Iterator[None]:
    run("fsfreeze", "--freeze", root)
    try:
        yield
    finally:
        run("fsfreeze", "--unfreeze", root)


def _log_much(root: Path) -> None:
    """Each of these values is written to the log whole."""
    for number in range(300):
        os.setxattr(root, "user.value", bytes([number % 256]) * 3000)
    run("sync", "--file-system", root)


def _rounds(image: Path) -> int:
    """The number in the log's first record: how often the log has been begun at its start."""
    raw = FileImage(image)
    with closing(raw):
        superblock = read_superblock(raw)
        header = raw.read(superblock.block_at(superblock.log_start), 8)
    magic, cycle = struct.unpack(">II", header)
    return int(cycle if magic == 0xFEEDBABE else magic)


def _copy(image: Path, copy: Path) -> None:
    run("cp", "--sparse=always", image, copy)


def _recovery(image: Path) -> str:
    raw = FileImage(image)
    with closing(raw):
        return open_xfs(raw).facts.recovery
