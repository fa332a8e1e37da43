"""A mount of a repository in an object store: what was read once is on this machine."""

from __future__ import annotations

import errno
import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo.check import check_repository
from backpoint_repo.repository import open_repository
from backpoint_repo.store.address import open_store
from mounted_repository import MountedRepository
from object_server import ObjectServer, object_server
from paced_proxy import Harm, PacedProxy, paced_proxy
from small_repository import PASSPHRASE, back_up, new_repository
from synthetic_disk import SyntheticDisk

MIB = 1 << 20
DISK = random.Random(7).randbytes(24 * MIB)
NO_CONTENT = Harm(
    "access-denied", method="GET", key="/(packs|nodes|index|catalog|points)/", times=None
)
"""Listing works, and nothing that it lists can be read."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with object_server(tmp_path_factory.mktemp("objects")) as running:
        yield running


@pytest.fixture
def proxy(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PacedProxy]:
    """Commands find the server behind it."""
    with paced_proxy(server.endpoint) as running:
        for name, value in ObjectServer(running.endpoint).environment().items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def address() -> str:
    return f"s3://tests/{secrets.token_hex(8)}"


@pytest.fixture
def far(
    proxy: PacedProxy, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MountedRepository]:
    """Two VMs with a point each, of a disk; unmounted and checked when the test ends."""
    monkeypatch.setenv("BACKPOINT_CACHE", str(tmp_path / "unasked"))
    repository = new_repository(open_store(address, os.environ))
    for vm, content in (("web", DISK), ("db", DISK[: 2 * MIB][::-1])):
        disk = SyntheticDisk(len(content))
        disk.write(0, content)
        back_up(repository, vm, disk)
    place = tmp_path / "mount"
    place.mkdir()
    made = MountedRepository(repository, tmp_path / "nowhere", place, tmp_path / "state")
    try:
        yield made
    finally:
        proxy.calm()
        if made.mounted:
            made.umount("--lazy")
    fresh = open_repository(open_store(address, os.environ), PASSPHRASE)
    report = check_repository(fresh, read_share=1.0)
    assert report.clean, report


def read(far: MountedRepository, vm: str, offset: int = 0, length: int = len(DISK)) -> bytes:
    """Without what the kernel has of it already."""
    with (far.newest(vm) / "disk0-flat.vmdk").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(offset)
        return file.read(length)


def blocks(cache: Path) -> list[Path]:
    """All that a mount has kept when it has ended."""
    return [path for path in cache.glob("*/blocks/*/*") if path.is_file()]


def test_what_was_read_is_readable_without_the_store(
    far: MountedRepository, proxy: PacedProxy, address: str, tmp_path: Path
) -> None:
    """By the next mount, which asks the store for no content at all; what was never read fails. A
    cache of which every block is spoiled costs fetching it again."""
    cache = tmp_path / "cache"
    options = ("-r", address, "--cache", str(cache), "--cache-size", "1G")
    far.mount(*options, "--memory", "16M")
    for _ in range(2):  # the second time what the disk was too slow to take the first time
        assert read(far, "web") == DISK
    far.umount()
    proxy.harm(NO_CONTENT)
    far.mount(*options)
    assert read(far, "web") == DISK
    assert (far.newest("web") / "point.json").read_bytes()
    assert proxy.counts().harmed == 0
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read(far, "db")
    assert proxy.counts().harmed > 0
    far.umount()
    proxy.calm()
    for path in blocks(cache):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    far.mount(*options)
    assert read(far, "web") == DISK
    assert "fetched again" in far.log()


def test_a_cache_is_bounded_and_may_be_removed_at_any_time(
    far: MountedRepository, address: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    far.mount("-r", address, "--cache", str(cache), "--cache-size", "16M", "--memory", "16M")
    assert read(far, "web", 0, 10 * MIB) == DISK[: 10 * MIB]
    cache.rename(tmp_path / "removed")  # at once: reading ahead may still be going on
    assert read(far, "web", 10 * MIB) == DISK[10 * MIB :]
    assert read(far, "web") == DISK
    far.umount()
    assert 0 < sum(path.stat().st_size for path in blocks(cache)) <= 16 * MIB


def test_an_object_store_has_a_cache_unasked(
    far: MountedRepository, address: str, tmp_path: Path
) -> None:
    unasked = tmp_path / "unasked"
    far.mount("-r", address, "--no-cache")
    assert read(far, "web", 0, MIB) == DISK[:MIB]
    far.umount()
    assert not blocks(unasked)
    far.mount("-r", address)
    assert read(far, "web", 0, MIB) == DISK[:MIB]
    far.umount()
    assert blocks(unasked)


def test_a_folder_that_others_can_write_into_is_refused(
    far: MountedRepository, address: str, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    done = far.backpoint("-r", address, "mount", "--cache", tmp_path / "open", far.place)
    assert done.returncode == 2
    assert "chmod go-w" in done.stderr
