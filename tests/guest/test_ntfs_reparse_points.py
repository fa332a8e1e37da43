"""What stands in the place of NTFS files: Windows' links, and content that is kept elsewhere."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import GuestFilesystem, GuestUnsupported, Stat
from backpoint_fusefs.guest.parsers.open_filesystem import open_filesystem
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage

_SYMLINK, _JUNCTION = 0xA000000C, 0xA0000003
_OVERLAY, _DEDUPLICATED, _CLOUD, _LAUNCHER = 0x80000017, 0x80000013, 0x9000301A, 0x8000001B


def _link(tag: int, target: str, shown: str = "", flags: int = 0) -> bytes:
    """A reparse point as Windows writes it: [MS-FSCC] 2.1.2.4 and 2.1.2.5."""
    real, print_name = target.encode("utf-16-le"), shown.encode("utf-16-le")
    body = struct.pack("<HHHH", len(print_name), len(real), 0, len(print_name))
    if tag == _SYMLINK:
        body += struct.pack("<I", flags)
    return _point(tag, body + print_name + real)


def _point(tag: int, body: bytes = b"\0" * 16) -> bytes:
    return struct.pack("<IHH", tag, len(body), 0) + body


@contextmanager
def _opened(
    path: Path, points: dict[str, bytes]
) -> Iterator[tuple[GuestFilesystem, dict[str, Stat]]]:
    """Names that end in `/` are folders, others files with content; `sparse` ones with a hole."""
    make_image(path, "ntfs", 16 << 20)
    with mounted_image(path, "ntfs") as top:
        for name, point in points.items():
            file = top / name.rstrip("/")
            if name.endswith("/"):
                file.mkdir()
            else:
                with file.open("wb") as opened:
                    opened.write(b"" if name.startswith("empty") else b"stored" * 2000)
                    opened.truncate(200_000 if name.startswith("sparse") else None)
            os.setxattr(file, "system.ntfs_reparse_data", point)
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "ntfs")
        entries = list(filesystem.entries(filesystem.root))
        stats = filesystem.stats([entry.file for entry in entries])
        found = {
            entry.name.decode(): one
            for entry, one in zip(entries, stats, strict=True)
            if one is not None
        }
        assert len(found) == len(points)
        yield filesystem, found


def test_links_of_windows(tmp_path: Path) -> None:
    """Drives are folders at the top of the guest's own view; backslashes become slashes."""
    targets = {
        "relative": (_link(_SYMLINK, "..\\x\\grüße", flags=1), "../x/grüße"),
        "absolute": (_link(_SYMLINK, "\\??\\C:\\Users\\All", "C:\\Users\\All"), "/C/Users/All"),
        "lower": (_link(_SYMLINK, "\\??\\d:\\x"), "/D/x"),
        "share": (_link(_SYMLINK, "\\??\\UNC\\server\\share"), "/UNC/server/share"),
        "rooted": (_link(_SYMLINK, "\\x\\y", flags=1), "/x/y"),
        "junction/": (_link(_JUNCTION, "\\??\\C:\\Data\\", "C:\\Data"), "/C/Data/"),
        "volume/": (_link(_JUNCTION, "\\??\\Volume{12}\\"), "/Volume{12}/"),
        "long": (_link(_SYMLINK, "p\\" * 1500 + "q", flags=1), "p/" * 1500 + "q"),
    }
    with _opened(tmp_path / "image", {name: point for name, (point, _) in targets.items()}) as (
        filesystem,
        found,
    ):
        for name, (_, target) in targets.items():
            one = found[name.rstrip("/")]
            assert stat.S_ISLNK(one.mode)
            assert filesystem.readlink(one.file).decode() == target
            assert one.size == len(target.encode())


@pytest.mark.parametrize("tag", [_OVERLAY, _DEDUPLICATED, _CLOUD, 0xC0001234])
def test_content_kept_elsewhere_is_refused(tmp_path: Path, tag: int) -> None:
    """Never shown as the zeros or leftovers that are in the file."""
    with _opened(tmp_path / "image", {"sparse": _point(tag)}) as (filesystem, found):
        one = found["sparse"]
        assert stat.S_ISREG(one.mode)
        with pytest.raises(GuestUnsupported, match="content is not in it"):
            list(filesystem.extents(one.file))
        with pytest.raises(GuestUnsupported, match="content is not in it"):
            filesystem.read(one.file, 0, 10)


def test_cloud_files_that_are_all_here_are_shown(tmp_path: Path) -> None:
    """And an app's launcher is empty, as it was for Windows."""
    points = {
        "here": _point(_CLOUD),
        "empty launcher": _point(_LAUNCHER),
        "folder/": _point(_CLOUD),
    }
    with _opened(tmp_path / "image", points) as (filesystem, found):
        assert filesystem.read(found["here"].file, 0, 20_000) == b"stored" * 2000
        assert filesystem.read(found["empty launcher"].file, 0, 10) == b""
        assert list(filesystem.entries(found["folder"].file)) == []
