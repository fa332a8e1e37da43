"""A btrfs copied while it was mounted: what only its log tree has is not shown, but told."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from backpoint_fusefs.guest.parsers.btrfs.btrfs_filesystem import open_btrfs
from guest_disks.tool import run
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import walk_folder, walk_parser


def _written(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())


def test_log_tree_is_told(tmp_path: Path) -> None:
    """After a crash: the state of the last commit, and a sentence about the rest."""
    path, crashed = tmp_path / "image", tmp_path / "crashed"
    make_image(path, "btrfs", 128 << 20)
    with mounted_image(path, "btrfs", options=["commit=300"]) as top:
        _written(top / "committed", b"old" * 10_000)
        os.sync()
        _written(top / "committed", b"new" * 20_000)
        _written(top / "only in the log", b"fresh")
        run("cp", "--sparse=always", path, crashed)
    with mounted_image(crashed, "btrfs", read_only=True) as top:
        expected = walk_folder(top)
    assert b"only in the log" not in expected
    with closing(FileImage(crashed)) as image:
        filesystem = open_btrfs(image)
        assert "log tree" in filesystem.facts.recovery
        assert walk_parser(filesystem, image) == expected


def test_a_clean_unmount_leaves_no_log(tmp_path: Path) -> None:
    """Nothing is said where nothing is missing, though files were written with fsync."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 128 << 20)
    with mounted_image(path, "btrfs") as top:
        _written(top / "file", b"content")
    with closing(FileImage(path)) as image:
        filesystem = open_btrfs(image)
        assert filesystem.facts.recovery == ""
        assert [entry.name for entry in filesystem.entries(filesystem.root)] == [b"file"]
