"""Subvolumes and snapshots of a btrfs, where they are linked and which one is the default."""

from __future__ import annotations

import os
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import FileId
from backpoint_fusefs.guest.parsers.btrfs.btrfs_filesystem import open_btrfs
from guest_disks.tool import run
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import Seen, Tree, walk_folder, walk_parser

_SIZE = 256 << 20
_TOP = FileId(5, 256)
_LISTED = re.compile(r"ID (\d+) gen \d+ top level \d+ path (.*)")


def _fill(top: Path) -> None:
    """`@` with a subvolume in a folder of it, snapshots of it, one of them without its original."""
    for name in ("@", "@home"):
        run("btrfs", "subvolume", "create", top / name)
    (top / "@/etc/deep").mkdir(parents=True)
    run("btrfs", "subvolume", "create", top / "@/etc/deep/inner")
    (top / "@/etc/deep/inner/file").write_bytes(b"inside")
    run("btrfs", "subvolume", "create", top / "@/etc/deep/inner/innermost")
    (top / "@/file").write_bytes(b"before")
    os.link(top / "@/file", top / "@/link")
    (top / "snapshots").mkdir()
    run("btrfs", "subvolume", "snapshot", top / "@", top / "snapshots/one")
    (top / "@/file").write_bytes(b"after, and longer")
    run("btrfs", "subvolume", "snapshot", "-r", top / "@", top / "snapshots/two, read-only")
    for number in range(20):
        run("btrfs", "subvolume", "create", top / f"snapshots/{number}")
    for number in range(0, 20, 2):
        run("btrfs", "subvolume", "delete", top / f"snapshots/{number}")
    (top / "snapshots/1").rename(top / "@home/moved")
    run("btrfs", "subvolume", "snapshot", top / "snapshots/one", top / "snapshots/second hand")
    run("btrfs", "subvolume", "delete", top / "snapshots/one")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filesystem with nested subvolumes and snapshots, none of them read while it was made."""
    path = tmp_path_factory.mktemp("btrfs") / "image"
    make_image(path, "btrfs", _SIZE)
    with mounted_image(path, "btrfs", options=["commit=1"]) as top:
        _fill(top)
    return path


def _placeholders(tree: Tree) -> set[bytes]:
    """Where the snapshots here have the empty folder of a subvolume that stayed behind."""
    inner = b"etc/deep/inner"
    return {path for path in tree if path.endswith(inner) and path != b"@/" + inner}


def _without_their_times(tree: Tree, paths: set[bytes]) -> dict[bytes, Seen]:
    """The kernel shows the time of the look-up, and one device and inode number for all of them."""
    return {
        path: replace(seen, atime_ns=0, mtime_ns=0, ctime_ns=0, links=()) if path in paths else seen
        for path, seen in tree.items()
    }


def test_seen_from_the_top(disk: Path) -> None:
    """All subvolumes in their places; in a snapshot, an empty folder for each that was inside."""
    with mounted_image(disk, "btrfs", read_only=True, options=["subvolid=5"]) as top:
        expected = walk_folder(top)
    with closing(FileImage(disk)) as image:
        shown = walk_parser(open_btrfs(image), image)
    empty = _placeholders(expected)
    assert len(empty) == 2
    assert not {path for path in shown if os.path.dirname(path) in empty}
    assert _without_their_times(shown, empty) == _without_their_times(expected, empty)


def test_list_of_subvolumes(disk: Path) -> None:
    """Each with the path and number that the kernel gives; none that is deleted."""
    with mounted_image(disk, "btrfs", read_only=True, options=["subvolid=5"]) as top:
        listed = run("btrfs", "subvolume", "list", top)
    expected = {
        os.fsencode(path): FileId(int(number), 256) for number, path in _LISTED.findall(listed)
    }
    assert len(expected) > 15
    with closing(FileImage(disk)) as image:
        filesystem = open_btrfs(image)
        assert filesystem.subvolumes() == {b"": _TOP, **expected}
        assert filesystem.default_subvolume == _TOP


def test_each_subvolume_is_its_mount(disk: Path) -> None:
    """What `mount -o subvol=` shows is the tree below that subvolume's root."""
    with closing(FileImage(disk)) as image:
        filesystem = open_btrfs(image)
        for path, root in filesystem.subvolumes().items():
            option = f"subvol=/{os.fsdecode(path)}"
            if "," in option:
                continue
            with mounted_image(disk, "btrfs", read_only=True, options=[option]) as top:
                expected = sorted(os.listdir(os.fsencode(top)))
                assert top.stat().st_ino == root.ino
            assert sorted(entry.name for entry in filesystem.entries(root)) == expected


def test_default_subvolume(tmp_path: Path) -> None:
    """The default is told; the root stays the top."""
    path = tmp_path / "image"
    make_image(path, "btrfs", _SIZE)
    with mounted_image(path, "btrfs") as top:
        run("btrfs", "subvolume", "create", top / "system")
        (top / "system/file").touch()
        run("btrfs", "subvolume", "set-default", top / "system")
    with mounted_image(path, "btrfs", read_only=True) as top:
        assert os.listdir(top) == ["file"]
    with closing(FileImage(path)) as image:
        filesystem = open_btrfs(image)
        assert filesystem.root == _TOP
        assert filesystem.default_subvolume == filesystem.subvolumes()[b"system"]
        assert [one.name for one in filesystem.entries(filesystem.default_subvolume)] == [b"file"]
        assert [one.name for one in filesystem.entries(filesystem.root)] == [b"system"]
