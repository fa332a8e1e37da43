"""ISO 9660 discs show the folder they were made from: by Rock Ridge, by Joliet, or plainly."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported, check_extents
from backpoint_fusefs.guest.parsers.open_filesystem import open_filesystem
from guest_disks.tool import run
from guest_trees.file_image import FileImage
from guest_trees.walk import Seen, Tree, walk_folder, walk_parser

_SECOND = 10**9


def _make(path: Path, source: Path, options: Sequence[str]) -> Path:
    run("xorrisofs", "-quiet", "-o", path, *options, source)
    return path


def _walk(path: Path) -> Tree:
    with closing(FileImage(path)) as image:
        return walk_parser(open_filesystem(image, "iso9660"), image)


def _plain_files(folder: Path) -> Path:
    folder.mkdir()
    for size in (0, 1, 2047, 2048, 2049, 300_000):
        (folder / f"s{size}.bin").write_bytes(os.urandom(size))
    below = folder
    for level in range(7):
        below = below / f"deep{level}"
        below.mkdir()
        (below / "file.txt").write_bytes(b"%d" % level)
    (folder / "many").mkdir()
    for number in range(400):
        (folder / "many" / f"n{number}.txt").write_bytes(b"%d" % number)
    return folder


def _unix_files(folder: Path) -> Path:
    _plain_files(folder)
    below = folder
    for level in range(12):
        below = below / f"Deeper than ISO 9660 allows {level}"
        below.mkdir()
        (below / "file").write_bytes(b"%d" % level)
    for name in ("Grüße 😀.txt", "n" * 240, "x.tar.gz", "UPPER", ".hidden", "a;b", "back\\slash"):
        (folder / name).write_bytes(name.encode())
    for name, target in (
        ("link", "/abs/../x/./y"),
        ("long link", f"{'t' * 200}/{'u' * 200}/{'v' * 100}"),
        ("root link", "/"),
        ("here", "."),
        ("up", "../.."),
    ):
        os.symlink(target, folder / name)
    os.mknod(folder / "char", stat.S_IFCHR | 0o600, os.makedev(5, 30))
    os.mkfifo(folder / "fifo", 0o640)
    (folder / "UPPER").chmod(0o4751)
    os.chown(folder / "UPPER", 1000, 70_000)
    os.utime(folder / "UPPER", (10**9, 1_100_000_000))
    return folder


def _comparable(seen: Seen) -> Seen:
    """The disc keeps whole seconds; reading the source changed its times of access, and what hard
    links it has is not told."""
    nlink = 1 if stat.S_ISDIR(seen.mode) else seen.nlink
    mtime = seen.mtime_ns // _SECOND
    return replace(seen, nlink=nlink, mtime_ns=mtime, atime_ns=0, ctime_ns=0, xattrs=())


@pytest.mark.parametrize("options", [["-R"], ["-R", "-J", "-joliet-long"]])
def test_rock_ridge(tmp_path: Path, options: Sequence[str]) -> None:
    """Names, modes, owners, times, links, devices, and folders too deep for the format itself."""
    source = _unix_files(tmp_path / "source")
    found = _walk(_make(tmp_path / "iso", source, options))
    expected = {name: _comparable(seen) for name, seen in walk_folder(source).items()}
    assert {name: _comparable(seen) for name, seen in found.items()} == expected


def test_joliet(tmp_path: Path) -> None:
    """Long names in Unicode, where there is no Rock Ridge."""
    source = _plain_files(tmp_path / "source")
    for title in ("Grüße ☂.txt", "Mixed Case and Spaces.Text", "日本語"):
        (source / title).write_bytes(title.encode())
    found = _walk(_make(tmp_path / "iso", source, ["--norock", "-J", "-joliet-long"]))
    expected = walk_folder(source)
    assert found.keys() == expected.keys()
    for name, seen in found.items():
        assert seen.content == expected[name].content
        assert seen.mtime_ns // _SECOND == expected[name].mtime_ns // _SECOND
        assert seen.mode in (0o40755, 0o100644)


def test_plain_names(tmp_path: Path) -> None:
    """In capitals, without the version."""
    source = _plain_files(tmp_path / "source")
    found = _walk(_make(tmp_path / "iso", source, ["--norock", "-iso-level", "1"]))
    expected = {name.upper(): seen.content for name, seen in walk_folder(source).items()}
    assert {name: seen.content for name, seen in found.items()} == expected


def test_a_file_of_several_extents(tmp_path: Path) -> None:
    """As files of 4 GiB and more have: the second record of two is made to go on with the first."""
    source, contents = tmp_path / "source", [os.urandom(6144), os.urandom(5000)]
    source.mkdir()
    for name, content in zip("AB", contents, strict=True):
        (source / f"FILE{name}.BIN").write_bytes(content)
    path = _make(tmp_path / "iso", source, ["--norock", "-iso-level", "1"])
    raw = bytearray(path.read_bytes())
    flags_before_name = 33 - 25
    raw[raw.index(b"FILEA.BIN") - flags_before_name] |= 0x80
    path.write_bytes(raw.replace(b"FILEB.BIN", b"FILEA.BIN"))
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "iso9660")
        (entry,) = filesystem.entries(filesystem.root)
        assert entry.name == b"FILEA.BIN"
        assert filesystem.stat(entry.file).size == 11_144
        check_extents(filesystem.extents(entry.file), 11_144, image.size)
        assert filesystem.read(entry.file, 0, 20_000) == b"".join(contents)
        assert filesystem.read(entry.file, 6000, 300) == contents[0][6000:] + contents[1][:156]


def test_compressed_content_is_refused(tmp_path: Path) -> None:
    """zisofs is not read, so what it packed is not shown as if it were the file."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "text").write_bytes(b"the same again, " * 10_000)
    path = tmp_path / "iso"
    run(*("xorriso", "-outdev", path, "-map", source, "/"), *("-set_filter_r", "--zisofs", "/"))
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "iso9660")
        (entry,) = filesystem.entries(filesystem.root)
        assert filesystem.stat(entry.file).size == 160_000
        with pytest.raises(GuestUnsupported, match="zisofs"):
            filesystem.read(entry.file, 0, 10)


def test_a_cut_disc_is_refused_where_it_ends(tmp_path: Path) -> None:
    """Its folders are there, contents beyond the end are not."""
    source = _plain_files(tmp_path / "source")
    path = _make(tmp_path / "iso", source, ["-R"])
    os.truncate(path, path.stat().st_size - 700_000)
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "iso9660")
        files = [entry.file for entry in filesystem.entries(filesystem.root)]
        assert len(files) == 8
        stats = [one for one in filesystem.stats(files) if one and stat.S_ISREG(one.mode)]
        largest = max(stats, key=lambda one: one.size)
        with pytest.raises(GuestDamaged):
            filesystem.extents(largest.file)
