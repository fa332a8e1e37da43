"""A Windows guest in the mount: drive letters, alternate streams, what its driver shows of it."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_repo.source.detect import open_image
from guest_disks.tool import run
from guest_trees.awkward import fill
from guest_trees.disks import abilities_of, make_image, mounted_image
from guest_trees.hives import filled
from guest_trees.walk import Tree, walk_folder
from mounted_repository import MountedRepository
from small_repository import NOON, back_up

MIB = 1 << 20
LARGE = os.urandom(MIB)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An NTFS disk as Windows' own, with a file that has streams."""
    path = tmp_path_factory.mktemp("windows") / "system"
    make_image(path, "ntfs", 64 * MIB, ("-L", "System"))
    with mounted_image(path, "ntfs", options=("streams_interface=windows",)) as root:
        (root / "Windows/System32/config").mkdir(parents=True)
        (root / "Windows/explorer.exe").write_bytes(b"MZ" + bytes(100_000))
        (root / "report.txt").write_bytes(b"content")
        (root / "report.txt:author").write_bytes(b"anna")
        (root / "report.txt:scan").write_bytes(LARGE)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An NTFS disk full of awkward cases."""
    path = tmp_path_factory.mktemp("windows") / "data"
    make_image(path, "ntfs", 128 * MIB, ("-L", "Data"))
    with mounted_image(path, "ntfs") as root:
        fill(root, abilities_of("ntfs"))
    return path


def mounted_guest(repository: MountedRepository, *disks: Path, options: str = "") -> Path:
    sources = [open_image(disk) for disk in disks]
    back_up(repository.repository, "win", *sources, time=NOON)
    for source in sources:
        source.close()
    repository.mount(*options.split())
    return repository.newest("win") / "guest"


def test_drives_are_folders(
    checked_repository: MountedRepository, system: Path, data: Path
) -> None:
    """Without a registry the letters go by order, and a note says so."""
    guest = mounted_guest(checked_repository, system, data)
    assert sorted(os.listdir(guest)) == ["disk0", "disk1", "root", "root.WHY.txt"]
    assert sorted(os.listdir(guest / "root")) == ["C", "D"]
    assert (guest / "root/C/report.txt").read_bytes() == b"content"
    assert sorted(os.listdir(guest / "root/D")) == sorted(os.listdir(guest / "disk1"))
    assert os.getxattr(guest / "disk1", "user.backpoint.label") == b"Data"
    assert "order" in (guest / "root.WHY.txt").read_text()


def test_letters_are_the_registrys(checked_repository: MountedRepository, tmp_path: Path) -> None:
    """Windows on the second partition is C, and the first is what it was mounted as."""
    data, windows, disk = (tmp_path / name for name in ("data", "windows", "disk"))
    drives = {
        f"\\DosDevices\\{letter}:": struct.pack("<IQ", 0x12345678, offset)
        for letter, offset in (("C", 33 * MIB), ("M", MIB))
    }
    hive = filled(tmp_path / "SYSTEM", {"MountedDevices": drives})
    make_image(data, "ntfs", 32 * MIB)
    make_image(windows, "ntfs", 32 * MIB)
    with mounted_image(data, "ntfs") as root:
        (root / "invoices").mkdir()
    with mounted_image(windows, "ntfs") as root:
        (root / "Windows/System32/config").mkdir(parents=True)
        shutil.copy(hive, root / "Windows/System32/config/SYSTEM")
    with disk.open("wb") as file:
        file.truncate(66 * MIB)
    table = "label: dos\nlabel-id: 0x12345678\nstart=1MiB, size=32MiB, type=7\nsize=32MiB, type=7\n"
    run("sfdisk", "-q", disk, text=table)
    with disk.open("r+b") as file:
        os.pwrite(file.fileno(), data.read_bytes(), MIB)
        os.pwrite(file.fileno(), windows.read_bytes(), 33 * MIB)
    guest = mounted_guest(checked_repository, disk)
    assert sorted(os.listdir(guest / "root")) == ["C", "M"]
    assert os.listdir(guest / "root/M") == ["invoices"]
    assert os.listdir(guest / "root/C") == ["Windows"]
    assert "root.WHY.txt" not in os.listdir(guest)


def test_small_streams_are_attributes(checked_repository: MountedRepository, system: Path) -> None:
    """And a large one is seen only by who asks for streams as files."""
    guest = mounted_guest(checked_repository, system)
    report = guest / "disk0/report.txt"
    assert os.listxattr(report) == ["user.author"]
    assert os.getxattr(report, "user.author") == b"anna"
    assert "report.txt:scan" not in os.listdir(report.parent)


def test_large_streams_are_files_on_demand(
    checked_repository: MountedRepository, system: Path
) -> None:
    guest = mounted_guest(checked_repository, system, options="--streams")
    assert (guest / "disk0/report.txt:scan").read_bytes() == LARGE
    assert (guest / "disk0/report.txt").read_bytes() == b"content"


@pytest.mark.parametrize("folder", ["content", "names"])
def test_ntfs_is_what_its_driver_shows(
    checked_repository: MountedRepository, data: Path, folder: str
) -> None:
    """Names, sizes, times and contents; owners and modes are made up by each reader.


    Links, streams and reparse points are compared in `tests/guest`.
    """
    guest = mounted_guest(checked_repository, data)
    ours = _comparable(walk_folder(guest / "disk0" / folder))
    with mounted_image(data, "ntfs", read_only=True) as root:
        assert ours == _comparable(walk_folder(root / folder))
    assert "disk0.WHY.txt" not in os.listdir(guest)


def _comparable(tree: Tree) -> Tree:
    return {
        path: replace(
            seen, mode=stat.S_IFMT(seen.mode), nlink=0, uid=0, gid=0, atime_ns=0, ctime_ns=0
        )
        for path, seen in tree.items()
    }
