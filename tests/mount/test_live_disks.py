"""A session's disk as the programs use it that disks are made for: QEMU's tools, filesystems."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backpoint_repo.source.detect import open_image
from mounted_repository import MountedRepository, run
from small_repository import back_up

MIB = 1 << 20
SIZE = 24 * MIB


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with an ext4 filesystem on it, and a file in that."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "tree").mkdir()
    (folder / "tree/original").write_bytes(b"as it was backed up" * 1000)
    disk = folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    run("mkfs.ext4", "-q", "-d", folder / "tree", disk)
    return disk


@pytest.fixture(scope="module")
def mounted(shared_repository: MountedRepository, image: Path) -> Iterator[MountedRepository]:
    """With a point of the disk, which is the same at the end."""
    source = open_image(image)
    back_up(shared_repository.repository, "web", source)
    source.close()
    shared_repository.mount_live()
    yield shared_repository
    point = shared_repository.newest("web") / "disk0.vmdk"
    run("qemu-img", "compare", "-F", "raw", point, image)


@contextmanager
def filesystem_on(disk: Path, place: Path) -> Iterator[Path]:
    """Mounted by the kernel through a loop device, writable."""
    place.mkdir(exist_ok=True)
    run("mount", "-o", "loop", disk, place)
    try:
        yield place
    finally:
        run("umount", place)


def test_a_filesystem_on_the_disk_is_written(mounted: MountedRepository, tmp_path: Path) -> None:
    """By the kernel: whole when it is unmounted, there after the mount's restart, and the same
    for who reads the disk's bytes."""
    flat = mounted.start_session("web", "files") / "disk0-flat.vmdk"
    written = os.urandom(3 * MIB)
    with filesystem_on(flat, tmp_path / "ext4") as root:
        assert (root / "original").read_bytes() == b"as it was backed up" * 1000
        (root / "written").write_bytes(written)
        (root / "original").unlink()
        for number in range(50):
            (root / f"small {number}").write_text(str(number))
    run("e2fsck", "-fn", flat)
    mounted.umount()
    mounted.mount_live()
    run("e2fsck", "-fn", flat)
    with filesystem_on(flat, tmp_path / "ext4") as root:
        assert (root / "written").read_bytes() == written
        assert not (root / "original").exists()
        assert len(list(root.glob("small *"))) == 50
    assert written[: 256 << 10] in flat.read_bytes()


def test_qemu_compares_and_checks(mounted: MountedRepository, image: Path) -> None:
    """Before a write the session is the point, behind it only what was written differs; an image
    in another format that grows in the session is whole."""
    folder = mounted.start_session("web", "qemu")
    disk, point = folder / "disk0.vmdk", mounted.newest("web") / "disk0.vmdk"
    run("qemu-img", "compare", disk, point)
    for cache in ("writeback", "none", "writethrough", "directsync"):
        run("qemu-io", "-t", cache, "-c", "write -P 0x42 1M 64k", "-c", "flush", disk)
        run("qemu-io", "-t", cache, "-c", "read -P 0x42 1M 64k", disk)
    different = subprocess.run(["qemu-img", "compare", disk, point], capture_output=True)
    assert different.returncode == 1
    expected = image.with_name("expected.raw")
    run("cp", "--sparse=always", image, expected)
    run("qemu-io", "-f", "raw", "-c", "write -P 0x42 1M 64k", expected)
    run("qemu-img", "compare", "-F", "raw", disk, expected)
    growing = folder / "growing.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", disk, growing)
    run("qemu-io", "-c", "write -P 0x17 20M 2M", "-c", "write -z 0 512k", growing)
    run("qemu-img", "check", growing)
    run("qemu-img", "convert", "-O", "raw", growing, folder / "raw")
    reads = ("-c", "read -P 0x17 20M 2M", "-c", "read -P 0 0 512k")
    run("qemu-io", "-f", "raw", *reads, folder / "raw")


def test_a_random_writer_reads_what_it_wrote(mounted: MountedRepository) -> None:
    """fio, four jobs at once, asynchronous and direct, blocks of all sizes."""
    flat = mounted.start_session("web", "fio") / "disk0-flat.vmdk"
    run(
        *("fio", "--name=random", f"--filename={flat}", "--ioengine=libaio", "--iodepth=8"),
        *("--rw=randwrite", "--direct=1", "--bsrange=4k-256k", "--numjobs=4", "--size=6M"),
        *("--offset_increment=6M", "--verify=sha256", "--do_verify=1", "--verify_fatal=1"),
        "--verify_state_save=0",  # a file in the working folder
    )
