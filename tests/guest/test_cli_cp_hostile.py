"""`backpoint cp` of guests that are damaged or mean harm: they cost what they cost, no more."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from backpoint_repo.format import Kind
from backpoint_repo.source.raw_image import RawImage
from command_line import CommandLine, make_repository, opened
from guest_disks.tool import run
from guest_trees.disks import make_image, mounted_image
from small_repository import assert_clean, back_up, keys_of

_MIB = 1 << 20


@pytest.fixture
def line(tmp_path: Path) -> CommandLine:
    """The owner's commands."""
    return make_repository(tmp_path, tmp_path / "repo")[0]


def backed_up(
    line: CommandLine, fill: Callable[[Path], None], spoil: Callable[[Path], None], *options: str
) -> None:
    """A point of an ext4 disk that is spoiled after it was filled."""
    image = line.folder / "guest.raw"
    make_image(image, "ext4", 12 * _MIB, options)
    with mounted_image(image, "ext4") as root:
        fill(root)
    spoil(image)
    back_up(opened(line), "vm", RawImage(image))


def test_a_link_in_the_way_of_a_folder_leads_nowhere(line: CommandLine) -> None:
    """A guest whose folder has one name twice, for a link out of the copy and for a folder with
    files: the link is not followed."""
    outside = line.folder / "outside"
    outside.mkdir()

    def fill(root: Path) -> None:
        (root / "bad").mkdir()
        (root / "bad/way-out-1").symlink_to(outside)
        (root / "bad/way-out-2").mkdir()
        (root / "bad/way-out-2/planted").write_bytes(b"evil")
        (root / "good").write_bytes(b"good")

    def spoil(image: Path) -> None:
        content = image.read_bytes()
        assert content.count(b"way-out-2") == 1
        image.write_bytes(content.replace(b"way-out-2", b"way-out-1"))

    backed_up(line, fill, spoil, "-O", "^metadata_csum,^has_journal")
    said = line.run("cp", "vm:disk0", line.folder / "copy", code=2)
    assert said.err == "backpoint: disk0/bad/way-out-1: is there already, and is no folder\n"
    assert os.listdir(outside) == []
    assert os.readlink(line.folder / "copy/bad/way-out-1") == str(outside)
    assert (line.folder / "copy/good").read_bytes() == b"good"
    assert_clean(opened(line))


def test_links_in_the_way_at_the_destination_lead_nowhere(line: CommandLine) -> None:
    """What an earlier copy of a hostile guest has left cannot send a later one astray."""
    outside = line.folder / "outside"
    outside.mkdir()
    (line.folder / "copy").mkdir()
    (line.folder / "copy/folder").symlink_to(outside)
    (line.folder / "copy/file").symlink_to(outside / "file")

    def fill(root: Path) -> None:
        (root / "folder").mkdir()
        (root / "folder/planted").write_bytes(b"evil")
        (root / "file").write_bytes(b"evil")

    backed_up(line, fill, lambda _: None)
    said = line.run("cp", "--force", "vm:disk0/folder", "vm:disk0/file", "copy", code=2)
    assert said.err == "backpoint: disk0/folder: is there already, and is no folder\n"
    assert os.listdir(outside) == []
    assert not (line.folder / "copy/file").is_symlink()
    assert_clean(opened(line))


def test_a_folder_in_itself_is_entered_once(line: CommandLine) -> None:
    """The rest is copied, and the place is named."""

    def fill(root: Path) -> None:
        (root / "a/b").mkdir(parents=True)
        (root / "a/b/file").write_bytes(b"deep")

    def spoil(image: Path) -> None:
        run("debugfs", "-w", "-R", "link /a /a/b/again", image)

    backed_up(line, fill, spoil)
    said = line.run("cp", "vm:disk0/a", line.folder / "copy", code=3)
    assert "disk0/a/b/again: this folder is somewhere else already" in said.error
    assert (line.folder / "copy/b/file").read_bytes() == b"deep"
    assert_clean(opened(line))


def test_an_unreadable_file_costs_itself(line: CommandLine) -> None:
    """One whose inode is damaged is named; the others are copied and the exit code is the
    guest's."""

    def fill(root: Path) -> None:
        for name in ("before", "broken", "further"):
            (root / name).write_bytes(name.encode() * 9000)

    def spoil(image: Path) -> None:
        said = run("debugfs", "-R", "imap /broken", image)
        found = re.search(r"at block (\d+), offset (0x[0-9a-f]+)", said)
        assert found is not None, said
        with image.open("r+b") as file:
            file.seek(int(found[1]) * 4096 + int(found[2], 16) + 4)
            file.write(b"\xff")

    backed_up(line, fill, spoil)
    said = line.run("cp", "--json", "vm:disk0/", line.folder / "copy", code=3)
    record = said.record
    assert [failure["path"] for failure in record["failures"]] == ["disk0/broken"]
    copied = set(os.listdir(line.folder / "copy"))
    assert copied == {"before", "further", "lost+found"}
    assert (line.folder / "copy/further").read_bytes() == b"further" * 9000
    assert_clean(opened(line))


def test_a_damaged_repository_costs_the_files_that_lie_there(line: CommandLine) -> None:
    """A file of which a chunk is lost is named and absent, not cut short."""

    def fill(root: Path) -> None:
        (root / "large").write_bytes(os.urandom(3 * _MIB))
        (root / "small").write_bytes(b"small")

    backed_up(line, fill, lambda _: None)
    store = opened(line).sealed.store
    pack = max((line.repo / key for key in keys_of(store, Kind.DATA_PACK)), key=_size)
    good = pack.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    pack.write_bytes(bad)
    said = line.run("cp", "vm:disk0/", line.folder / "copy", code=4)
    assert "disk0/large: " in said.err.splitlines()[0]
    assert set(os.listdir(line.folder / "copy")) == {"small", "lost+found"}
    pack.write_bytes(good)
    assert_clean(opened(line))


def test_a_full_destination_ends_it(line: CommandLine) -> None:
    """With the name of the file and no part of it left."""

    def fill(root: Path) -> None:
        (root / "large").write_bytes(os.urandom(4 * _MIB))

    image = line.folder / "small.raw"
    make_image(image, "ext4", 4 * _MIB)
    backed_up(line, fill, lambda _: None)
    with mounted_image(image, "ext4") as root:
        said = line.run("cp", "vm:disk0/large", root, code=6)
        assert said.error.startswith("cannot write disk0/large: No space")
        assert os.listdir(root) == ["lost+found"]
    assert_clean(opened(line))


def _size(path: Path) -> int:
    return path.stat().st_size
