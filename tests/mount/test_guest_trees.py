"""Guest files in the mount are what the guest's own driver shows of the same disk."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from backpoint_repo.source.detect import open_image
from guest_trees.awkward import fill
from guest_trees.disks import Kind, abilities_of, make_image, mounted_image
from guest_trees.walk import Seen, Tree, walk_folder
from mounted_repository import MountedRepository, run
from small_repository import NOON, back_up

UNIX: tuple[Kind, ...] = ("ext4", "xfs", "btrfs")
SIZES: dict[Kind, int] = {"xfs": 320 << 20, "btrfs": 256 << 20}


@functools.cache
def filled(kind: Kind, folder: Path) -> Path:
    """A disk without a partition table, full of awkward cases; made once."""
    path = folder / f"{kind}.raw"
    make_image(path, kind, SIZES.get(kind, 128 << 20))
    with mounted_image(path, kind) as root:
        fill(root, abilities_of(kind))
    return path


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guests")


def mount_disks(repository: MountedRepository, vm: str, *disks: Path, options: str = "") -> Path:
    """`guest/` of the one point that is made of these disks."""
    sources = [open_image(disk) for disk in disks]
    back_up(repository.repository, vm, *sources, time=NOON)
    for source in sources:
        source.close()
    repository.mount(*options.split())
    return repository.newest(vm) / "guest"


def differences(ours: Tree, theirs: Tree) -> dict[bytes, tuple[Seen | None, Seen | None]]:
    return {
        path: (ours.get(path), theirs.get(path))
        for path in ours.keys() | theirs.keys()
        if ours.get(path) != theirs.get(path)
    }


@pytest.mark.parametrize("kind", UNIX)
def test_a_walk_sees_what_the_kernel_sees(
    checked_repository: MountedRepository, disks: Path, kind: Kind
) -> None:
    """Names, stat, links, attributes and content of every file, as the kernel's driver has them."""
    disk = filled(kind, disks)
    guest = mount_disks(checked_repository, "vm", disk)
    ours = walk_folder(guest / "disk0")
    with mounted_image(disk, kind, read_only=True) as root:
        assert differences(ours, walk_folder(root)) == {}
        # Whatever the walk does not look at, rsync does: it would transfer nothing.
        same = ("rsync", "-aHAXn", "--checksum", "--delete", "--itemize-changes")
        assert run(*same, "--exclude=/content/big*", f"{root}/", f"{guest}/disk0/") == ""
