"""A btrfs of which we have only a part is refused when it is opened, with the reason."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported
from backpoint_fusefs.guest.parsers.btrfs.btrfs_filesystem import open_btrfs
from guest_disks.tool import run
from guest_trees.disks import make_image
from guest_trees.file_image import FileImage

_MIB = 1 << 20


def test_cut_off(tmp_path: Path) -> None:
    """A volume smaller than its filesystem is not read."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 128 * _MIB)
    for size in (0, 100_000, 100 * _MIB):
        with closing(FileImage(path, size=size)) as image, pytest.raises(GuestDamaged):
            open_btrfs(image)


@pytest.mark.parametrize("profile", ["single", "raid1", "raid0"])
def test_several_devices_are_unsupported(tmp_path: Path, profile: str) -> None:
    """One device of two does not have all of the files."""
    paths = [tmp_path / "first", tmp_path / "second"]
    for path in paths:
        with path.open("xb") as file:
            file.truncate(256 * _MIB)
    run("mkfs.btrfs", "-q", "-f", "-m", profile, "-d", profile, *paths)
    for path in paths:
        with closing(FileImage(path)) as image, pytest.raises(GuestUnsupported, match="2 devices"):
            open_btrfs(image)
