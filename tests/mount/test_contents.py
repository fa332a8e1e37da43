"""What programs read from a mount is what was backed up."""

from __future__ import annotations

import json
import mmap
import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.source.detect import open_image
from guest_disks import attached, build_data_disk, mounted
from mounted_repository import MountedRepository, run

MIB = 1 << 20


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with an ext4 partition full of files."""
    path = tmp_path_factory.mktemp("guest") / "disk.raw"
    build_data_disk(path, 96 * MIB, seed=7, files_total_bytes=24 * MIB)
    return path


@pytest.fixture
def guest(checked_repository: MountedRepository, disk: Path) -> MountedRepository:
    """A mounted repository with one point of that disk and two configuration files."""
    source = open_image(disk)
    with checked_repository.repository.begin_backup("web 1") as session:
        session.store_disk(DiskJob("disk0", source), lambda _: None)
        session.store_file("web.vmx", b"guestOS = debian\n" * 10_000)
        session.store_file("point.json", b"not ours")
        session.publish(time=1795176000.5, label="first")
    source.close()
    checked_repository.mount()
    return checked_repository


def test_a_disk_and_its_files_are_equal_to_the_source(guest: MountedRepository, disk: Path) -> None:
    folder = guest.newest("web 1")
    run("cmp", disk, folder / "disk0-flat.vmdk")
    assert os.readlink(folder) == "2026-11-20T12-00-00Z"
    assert (folder / "web.vmx").read_bytes() == b"guestOS = debian\n" * 10_000
    by_date = guest.place / "by-date/2026-11-20/web 1"
    assert json.loads((by_date / "point.json").read_text())["label"] == "first"
    assert len(os.listdir(folder)) == 6
    assert os.listdir(folder).count("guest") == 1
    assert sorted(os.listdir(guest.place)) == ["README.txt", "by-date", "vms"]
    run("find", guest.place, "-ls")


def test_qemu_reads_the_disk_through_its_descriptor(guest: MountedRepository, disk: Path) -> None:
    descriptor = guest.newest("web 1") / "disk0.vmdk"
    info = json.loads(run("qemu-img", "info", "--output=json", descriptor))
    assert info["virtual-size"] == disk.stat().st_size
    assert info["format"] == "vmdk"
    run("qemu-img", "compare", "-f", "vmdk", "-F", "raw", descriptor, disk)


def test_the_kernel_mounts_and_e2fsck_passes_what_is_inside(
    guest: MountedRepository, disk: Path
) -> None:
    flat = guest.newest("web 1") / "disk0-flat.vmdk"
    with mounted(flat, read_only=True) as inside, mounted(disk, read_only=True) as original:
        run("diff", "-r", "--no-dereference", original, inside)
    with attached(flat, read_only=True) as device:
        run("e2fsck", "-fn", device)


def test_attributes_tell_the_true_and_the_allocated_size(
    guest: MountedRepository, disk: Path
) -> None:
    flat = guest.newest("web 1") / "disk0-flat.vmdk"
    found = flat.stat()
    assert found.st_size == disk.stat().st_size
    assert 0 < found.st_blocks * 512 < found.st_size
    assert found.st_mtime_ns == 1795176000_500_000_000
    assert found.st_mode & 0o777 == 0o400
    assert (guest.place / "vms").stat().st_nlink == 3
    assert os.getxattr(flat, "user.backpoint.size") == str(found.st_size).encode()
    folder = guest.newest("web 1")
    assert os.getxattr(folder, "user.backpoint.label") == b"first"
    assert b"user.backpoint.consistency" in [name.encode() for name in os.listxattr(folder)]
    with pytest.raises(OSError, match="No data"):
        os.getxattr(flat, "user.other")


def test_nothing_can_be_written(guest: MountedRepository) -> None:
    flat = guest.newest("web 1") / "disk0-flat.vmdk"
    with pytest.raises(OSError, match="Read-only"):
        flat.open("r+b")
    with pytest.raises(OSError, match="Read-only"):
        (guest.place / "vms/new").mkdir()


def test_a_sparse_copy_is_as_small_as_the_source(
    guest: MountedRepository, disk: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.raw"
    run("cp", "--sparse=always", guest.newest("web 1") / "disk0-flat.vmdk", copy)
    run("cmp", disk, copy)
    assert copy.stat().st_blocks <= disk.stat().st_blocks + 2048


def test_the_second_rsync_of_a_point_transfers_nothing(
    guest: MountedRepository, tmp_path: Path
) -> None:
    source, target = f"{guest.newest('web 1')}/", tmp_path / "copy"
    options = ("-aS", "--stats", "--no-owner", "--no-group", "--exclude=/guest")
    command = ("rsync", *options, source, target)
    assert "Number of regular files transferred: 5" in run(*command)
    assert "Number of regular files transferred: 0" in run(*command)


def test_many_readers_at_once_read_the_right_bytes(guest: MountedRepository, disk: Path) -> None:
    flat, content = guest.newest("web 1") / "disk0-flat.vmdk", disk.read_bytes()

    def reader(seed: int) -> None:
        draw = random.Random(seed)
        fd = os.open(flat, os.O_RDONLY | (os.O_DIRECT if seed % 2 == 0 else 0))
        try:
            for _ in range(150):
                length = draw.choice([4096, 4096, 65536, MIB])
                offset = draw.randrange((len(content) - length) // 4096) * 4096
                assert _pread(fd, length, offset) == content[offset : offset + length]
        finally:
            os.close(fd)

    with ThreadPoolExecutor(12) as readers:
        list(readers.map(reader, range(12)))


def _pread(fd: int, length: int, offset: int) -> bytes:
    with mmap.mmap(-1, length) as page:  # O_DIRECT wants aligned memory
        done = os.preadv(fd, [page], offset)
        return page[:done]


@pytest.mark.parametrize("size", [0, 1, 511, 4096, 4097, MIB + 513])
def test_disks_of_odd_sizes(
    checked_repository: MountedRepository, tmp_path: Path, size: int
) -> None:
    source = tmp_path / "odd.raw"
    source.write_bytes(os.urandom(size))
    image = open_image(source)
    with checked_repository.repository.begin_backup("..") as session:
        session.store_disk(DiskJob("disk0", image), lambda _: None)
        session.publish(time=None, label="")
    image.close()
    checked_repository.mount()
    folder = checked_repository.newest("%2E%2E")
    run("cmp", source, folder / "disk0-flat.vmdk")
    with (folder / "disk0-flat.vmdk").open("rb") as file:
        assert os.pread(file.fileno(), 100, size) == b""
        assert os.pread(file.fileno(), 100, size + 10 * MIB) == b""
    done = subprocess.run(["qemu-img", "info", folder / "disk0.vmdk"], capture_output=True)
    assert done.returncode == 0, done.stderr
