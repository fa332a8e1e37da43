"""XFS of version 4, which kernels no longer mount: what mkfs.xfs and xfs_db put there is found."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import GuestFilesystem, Stat
from backpoint_fusefs.guest.parsers.xfs.xfs_filesystem import open_xfs
from guest_disks.tool import run
from guest_trees.file_image import FileImage
from guest_trees.walk import read_mapped

_CONTENT = bytes(range(256)) * 1200
_LONG = "far/" * 255
_NAMES = [f"name-{number:05}-{'n' * (number % 60)}" for number in range(5_000)]
_PROTOTYPE = f"""/
0 0
d--755 0 0
file ---640 5 70000 {{folder}}/content
setuid -u-755 0 0 {{folder}}/empty
short l--777 0 0 file
long l--777 1 2 {_LONG}
disk b--660 0 6 8 300
terminal c--666 0 0 5 1
pipe p--600 3 4
folder d--1750 9 9
below ---644 0 0 {{folder}}/empty
$
crowded d--755 0 0
{{crowd}}
$
$
"""
_VALUE_SIZES = [1, 200, 250, 3_000, 5_000, 65_536]

_GEOMETRIES = ["", "-n ftype=0,size=8192", "-i size=2048"]


@pytest.mark.parametrize("options", [*_GEOMETRIES, "-b size=512 -i attr=1"])
def test_names_and_content_of_version_4_are_found(tmp_path: Path, options: str) -> None:
    """Files, links, devices and 5,000 names, made by mkfs.xfs from a list."""
    with closing(_made(tmp_path, options)) as raw:
        filesystem = open_xfs(raw)
        found = dict(_walk(filesystem))
        assert set(found) == {
            *(b"file setuid short long disk terminal pipe folder crowded".split()),
            b"folder/below",
            *(f"crowded/{name}".encode() for name in _NAMES),
        }
        file = found[b"file"]
        assert (file.mode, file.uid, file.gid) == (stat.S_IFREG | 0o640, 5, 70_000)
        assert b"".join(read_mapped(filesystem, raw, file)) == _CONTENT
        assert filesystem.read(file.file, 300_000, 1 << 20) == _CONTENT[300_000:]
        assert found[b"setuid"].mode == stat.S_IFREG | stat.S_ISUID | 0o755
        assert filesystem.readlink(found[b"short"].file) == b"file"
        assert filesystem.readlink(found[b"long"].file) == _LONG.encode()
        assert found[b"disk"].rdev == os.makedev(8, 300)
        assert found[b"terminal"].rdev == os.makedev(5, 1)
        assert stat.S_ISFIFO(found[b"pipe"].mode)
        assert found[b"crowded"].nlink == 2
        assert filesystem.facts.recovery == ""


# Not with blocks of 512 bytes: xfs_db 6.1 crashes when it sets attributes there.
@pytest.mark.parametrize("options", _GEOMETRIES)
def test_attributes_of_version_4_are_found(tmp_path: Path, options: str) -> None:
    """Values in the inode, in leaf blocks and in blocks of their own, made by xfs_db."""
    image = tmp_path / "image"
    _made(tmp_path, options).close()
    commands = ["path /file"]
    for size in _VALUE_SIZES:
        commands += [f"attr_set -v {size} size-{size}", f"attr_set -r -v {size} root-{size}"]
    commands += [f"attr_set -s -v 20 {'n' * 100}-{number}" for number in range(150)]
    run("xfs_db", "-x", *(word for one in commands for word in ("-c", one)), image)
    with closing(FileImage(image)) as raw:
        filesystem = open_xfs(raw)
        file = dict(_walk(filesystem))[b"file"].file
        expected = {
            **{f"user.size-{size}": size for size in _VALUE_SIZES},
            **{f"trusted.root-{size}": size for size in _VALUE_SIZES},
            **{f"security.{'n' * 100}-{number}": 20 for number in range(150)},
        }
        assert filesystem.xattrs(file) == {
            name.encode(): b"v" * size for name, size in expected.items()
        }


def _made(folder: Path, options: str) -> FileImage:
    (folder / "content").write_bytes(_CONTENT)
    (folder / "empty").touch()
    crowd = "\n".join(f"{name} ---644 0 0 {folder}/empty" for name in _NAMES)
    (folder / "list").write_text(_PROTOTYPE.format(folder=folder, crowd=crowd))
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(310 << 20)
    words = options.split()
    run("mkfs.xfs", "-q", "-f", "-m", "crc=0", *words, "-p", folder / "list", image)
    return FileImage(image)


def _walk(filesystem: GuestFilesystem) -> Iterator[tuple[bytes, Stat]]:
    waiting = [(b"", filesystem.root)]
    while waiting:
        above, folder = waiting.pop()
        entries = list(filesystem.entries(folder))
        stats = filesystem.stats([entry.file for entry in entries])
        for entry, found in zip(entries, stats, strict=True):
            assert found == filesystem.stat(entry.file)
            yield above + entry.name, found
            if stat.S_ISDIR(found.mode):
                waiting.append((above + entry.name + b"/", entry.file))
