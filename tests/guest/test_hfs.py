"""HFS+ as the library reads it, from volumes that xorriso makes: the root folder of a small one."""

from __future__ import annotations

import os
import unicodedata
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import GuestDamaged, VolumeFacts
from backpoint_fusefs.guest.parsers.open_filesystem import open_filesystem
from guest_disks.tool import run
from guest_trees.file_image import FileImage
from guest_trees.walk import Seen, walk_folder, walk_parser

_SECOND = 10**9
_MAP_ENTRY = 512


def _volume(path: Path, source: Path) -> FileImage:
    """The HFS+ volume of a disc, as its Apple partition map says."""
    run("xorrisofs", "-quiet", "-hfsplus", "-o", path, source)
    content = path.read_bytes()
    for at in range(_MAP_ENTRY, 8 * _MAP_ENTRY, _MAP_ENTRY):
        entry = content[at : at + _MAP_ENTRY]
        if entry[48:57] == b"Apple_HFS":
            start, length = (int.from_bytes(entry[n : n + 4], "big") * 512 for n in (8, 12))
            return FileImage(path, start, length)
    raise AssertionError("the disc has no HFS+ volume")


def _source(folder: Path) -> Path:
    folder.mkdir()
    for size in (0, 1, 4096, 300_000):
        (folder / f"s{size}").write_bytes(os.urandom(size))
    (folder / unicodedata.normalize("NFD", "Grüße ☂.txt")).write_bytes(b"x")
    (folder / "folder").mkdir()
    (folder / "folder" / "below").write_bytes(b"deeper")
    os.symlink("folder/below", folder / "link")
    (folder / "s1").chmod(0o4751)
    os.chown(folder / "s1", 1000, 100)
    return folder


def _comparable(seen: Seen) -> Seen:
    """xorriso keeps whole seconds, and no counts of a folder's links."""
    mtime = seen.mtime_ns // _SECOND
    return replace(seen, nlink=1, mtime_ns=mtime, atime_ns=0, ctime_ns=0)


def test_what_was_put_in_is_found(tmp_path: Path) -> None:
    """Names as they are stored, modes, owners, links and contents; none of HFS+'s own files."""
    source = _source(tmp_path / "source")
    with closing(_volume(tmp_path / "iso", source)) as image:
        filesystem = open_filesystem(image, "hfsplus")
        assert filesystem.facts == VolumeFacts()
        found = walk_parser(filesystem, image)
    # The root's own metadata are xorriso's.
    del found[b""]
    expected = {name: _comparable(seen) for name, seen in walk_folder(source).items() if name}
    assert {name: _comparable(seen) for name, seen in found.items()} == expected


def test_a_volume_that_was_not_unmounted_says_so(tmp_path: Path) -> None:
    path = tmp_path / "iso"
    volume = _volume(path, _source(tmp_path / "source"))
    with closing(volume):
        place = path.read_bytes().index(volume.read(1024, 512)) + 4
    with path.open("r+b") as file:
        file.seek(place + 2)
        file.write(b"\0")
    with closing(FileImage(path, place - 1028, volume.size)) as image:
        assert "not unmounted" in open_filesystem(image, "hfsplus").facts.recovery


def test_a_failing_read_is_not_taken_for_damage(tmp_path: Path) -> None:
    """What the volume raised comes out of the library as it was."""

    class Failing(FileImage):
        """Answers the reader's own question, and none of the library's."""

        def read(self, offset: int, length: int) -> bytes:
            if length > 512:
                raise ConnectionResetError("the mount is gone")
            return super().read(offset, length)

    path = tmp_path / "iso"
    with closing(_volume(path, _source(tmp_path / "source"))) as sound:
        start = path.read_bytes().index(sound.read(1024, 512)) - 1024
    failing: FileImage = Failing(path, start)
    with closing(failing), pytest.raises(ConnectionResetError, match="the mount is gone"):
        open_filesystem(failing, "hfsplus")
    with closing(FileImage(path, start, 2048)) as cut, pytest.raises(GuestDamaged):
        open_filesystem(cut, "hfsplus")
