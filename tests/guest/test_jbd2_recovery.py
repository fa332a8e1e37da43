"""A crashed ext4 is shown as the kernel shows it once it has replayed the journal."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import GuestUnsupported, VolumeFacts
from backpoint_fusefs.guest.parsers.ext.ext_filesystem import open_ext
from guest_disks.tool import run
from guest_trees.crash_image import crash_image, settle, write_durably
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import Tree, walk_folder, walk_parser

_MIB = 1 << 20
_MAGIC = bytes.fromhex("c03b3998")
_BLOCK = 4096

# What mke2fs is told, and mount; "commit=300": nothing is committed that nobody asked for.
_VARIETIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ordered": ((), ("data=ordered",)),
    "with data": ((), ("data=journal",)),
    "with data, asynchronous": ((), ("data=journal", "journal_async_commit")),
    "writeback, asynchronous": ((), ("data=writeback", "journal_async_commit")),
    "32 bits": (("-O", "^64bit"), ("data=journal",)),
    "no checksums": (("-O", "^metadata_csum"), ("data=journal",)),
    "no checksums, 32 bits": (("-O", "^metadata_csum,^64bit"), ()),
    "checksums of commits": (("-O", "^metadata_csum"), ("data=journal", "journal_checksum")),
    "checksums of commits, asynchronous": (
        ("-O", "^metadata_csum"),
        ("data=journal", "journal_async_commit"),
    ),
    "small blocks": (("-b", "1024"), ("data=journal",)),
    "block maps": (("-O", "^extents,^64bit"), ()),
    "inline data": (("-O", "inline_data"), ()),
    "clusters": (("-O", "bigalloc"), ()),
}


def _disturb(top: Path, chance: random.Random, rounds: int) -> None:
    """Files and folders made, changed and removed, some of it synced; blocks are used again."""
    for number in range(rounds):
        folder = top / f"folder {chance.randrange(8)}"
        if folder.exists() and chance.random() < 0.3:
            shutil.rmtree(folder)
        elif not folder.exists():
            folder.mkdir()
            for below in range(chance.randrange(1, 90)):
                (folder / f"{below}".zfill(120)).write_bytes(chance.randbytes(below))
        file = top / f"file {chance.randrange(30)}"
        _change(file, chance)
        if chance.random() < 0.15:
            write_durably(top / f"durable {number}", chance.randbytes(700))


def _change(file: Path, chance: random.Random) -> None:
    if not file.exists():
        # The journal must escape a block that starts like its own.
        start = chance.choice((b"", _MAGIC))
        file.write_bytes(start + chance.randbytes(chance.choice((10, 5_000, 90_000))))
        return
    way = chance.randrange(6)
    if way == 0:
        file.unlink()
    elif way == 1:
        os.truncate(file, chance.randrange(150_000))
    elif way == 2:
        with file.open("r+b") as changed:
            changed.seek(chance.randrange(40) * _BLOCK)
            changed.write(_MAGIC * chance.randrange(2_500))
    elif way == 3:
        os.setxattr(file, f"user.{chance.randrange(3)}", chance.randbytes(chance.randrange(600)))
    elif way == 4:
        file.chmod(0o600 + chance.randrange(64))
    else:
        file.rename(file.with_name(f"file {chance.randrange(30)}"))


def _after_recovery(path: Path) -> Tree:
    """What the kernel shows when it has replayed the journal, of a copy."""
    copy = path.with_name("recovered")
    run("cp", "--sparse=always", path, copy)
    with mounted_image(copy, "ext4", options=["noatime"]) as top:
        return walk_folder(top)


def _names_on_disk(path: Path) -> list[str]:
    with mounted_image(path, "ext4", read_only=True) as top:
        return os.listdir(top)


def _ours(path: Path) -> tuple[Tree, VolumeFacts]:
    with closing(FileImage(path)) as image:
        filesystem = open_ext(image)
        return walk_parser(filesystem, image), filesystem.facts


def _crashed(
    folder: Path,
    change: Callable[[Path], None],
    options: Sequence[str] = (),
    mount: Sequence[str] = (),
) -> Path:
    make_image(folder / "image", "ext4", 80 * _MIB, ("-J", "size=4", *options))
    mount = ("noatime", "commit=300", *mount)
    return crash_image(folder / "image", "ext4", folder / "crashed", change, mount)


@pytest.mark.parametrize(("options", "mount"), _VARIETIES.values(), ids=_VARIETIES.keys())
def test_as_after_the_kernels_recovery(
    tmp_path: Path, options: Sequence[str], mount: Sequence[str]
) -> None:
    """Names, times and content are the kernel's, and without the journal they would not be."""

    def change(top: Path) -> None:
        chance = random.Random(1)
        _disturb(top, chance, 60)
        settle(top)
        _disturb(top, chance, 60)
        write_durably(top / "last", b"last")

    # Whoever calls sync on this machine just then has all written to its place: once more.
    paths = (_crashed(tmp_path, change, options, mount) for _ in range(5))
    path = next(path for path in paths if "last" not in _names_on_disk(path))
    found, facts = _ours(path)
    assert found == _after_recovery(path)
    assert b"last" in found
    assert not facts.recovery
    assert facts.replayed > 10


def test_unlinked_and_still_open(tmp_path: Path) -> None:
    """A file that only a running program holds is gone after a crash, as in a mount."""
    path = tmp_path / "crashed"
    make_image(tmp_path / "image", "ext4", 64 * _MIB)
    with mounted_image(tmp_path / "image", "ext4") as top:
        settle(top)
        with (top / "orphan").open("wb") as file:
            file.write(b"orphan" * 9_999)
            os.fsync(file.fileno())
            (top / "orphan").unlink()
            write_durably(top / "last", b"last")
            run("cp", "--sparse=always", tmp_path / "image", path)
    found, _ = _ours(path)
    assert found == _after_recovery(path)
    assert found.keys() == {b"", b"last", b"lost+found"}


def test_an_interrupted_truncation(tmp_path: Path) -> None:
    """A mount finishes it, of which only the file's times tell, which become the mount's."""
    path = tmp_path / "image"
    make_image(path, "ext4", 16 * _MIB, ("-O", "^metadata_csum"))
    with mounted_image(path, "ext4") as top:
        (top / "file").write_bytes(os.urandom(100_000))
        number = (top / "file").stat().st_ino
    for request in ("set_inode_field file size 5000", f"set_super_value last_orphan {number}"):
        run("debugfs", "-w", "-R", request, path)
    found, expected = _ours(path)[0], _after_recovery(path)
    assert found[b"file"].mtime_ns < expected[b"file"].mtime_ns
    seen, wanted = (replace(tree[b"file"], mtime_ns=0, ctime_ns=0) for tree in (found, expected))
    assert seen == wanted


def test_fast_commits_are_said_to_be_missing(tmp_path: Path) -> None:
    """The tree is that of the last whole commit."""

    def change(top: Path) -> None:
        write_durably(top / "file", b"old")
        settle(top)
        write_durably(top / "whole", b"commit")
        with (top / "file").open("ab") as file:
            file.write(b"new" * 9_999)
            file.flush()
            os.fsync(file.fileno())

    path = _crashed(tmp_path, change, ("-O", "fast_commit"))
    found, facts = _ours(path)
    assert "fast commits" in facts.recovery
    expected = _after_recovery(path)
    assert found.keys() == expected.keys()
    assert found[b"whole"] == expected[b"whole"]
    assert found[b"file"].size == 3
    assert expected[b"file"].size == 30_000


def test_a_journal_on_another_device(tmp_path: Path) -> None:
    """It is said to be missing; and the device with it has no files."""
    journal, path = tmp_path / "journal", tmp_path / "crashed"
    run("mke2fs", "-q", "-F", "-b", "4096", "-O", "journal_dev", journal, "16M")
    device = run("losetup", "--find", "--show", journal).strip()
    try:
        make_image(tmp_path / "image", "ext4", 64 * _MIB, ("-J", f"device={device}"))

        def change(top: Path) -> None:
            write_durably(top / "settled", b"on the disk")
            settle(top)
            write_durably(top / "file", b"in the journal")

        crash_image(tmp_path / "image", "ext4", path, change)
    finally:
        run("losetup", "--detach", device)
    with closing(FileImage(path)) as image:
        filesystem = open_ext(image)
        found = {os.fsdecode(entry.name) for entry in filesystem.entries(filesystem.root)}
    assert found == set(_names_on_disk(path))
    assert "another device" in filesystem.facts.recovery
    with closing(FileImage(journal)) as image, pytest.raises(GuestUnsupported, match="journal"):
        open_ext(image)
