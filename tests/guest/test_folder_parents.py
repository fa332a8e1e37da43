"""The way up from a folder's number alone, in every filesystem that can hold folders."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import FileId, GuestFilesystem
from backpoint_fusefs.guest.parsers.open_filesystem import load_parser
from backpoint_fusefs.guest.worker import folder_parents
from backpoint_fusefs.guest.worker.folder_parents import FolderParents, KnowsParents
from guest_trees.disks import Kind, make_image, mounted_image
from guest_trees.file_image import FileImage

_MIB = 1 << 20
_SIZES: dict[Kind, int] = {"xfs": 320, "btrfs": 128, "ext4": 24, "ntfs": 24, "exfat": 8}
_PARSERS: dict[Kind, str] = {"ext4": "ext"}


def _fill(root: Path) -> None:
    for number in range(300):
        (root / f"many/{number:03}-with-a-name-of-some-length/inner").mkdir(parents=True)
    (root / "a/b/c/d").mkdir(parents=True)
    (root / "old").mkdir()
    (root / "moved/here").mkdir(parents=True)
    (root / "old").rename(root / "moved/here/new")
    shutil.rmtree(root / "many/007-with-a-name-of-some-length")
    for number in range(200):
        (root / f"a/b/file with a long name {number}").touch()


@pytest.fixture(params=_SIZES)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GuestFilesystem]:
    """One of each kind."""
    kind: Kind = request.param
    path = tmp_path / "disk"
    make_image(path, kind, _SIZES[kind] * _MIB)
    with mounted_image(path, kind) as root:
        _fill(root)
    image = FileImage(path)
    yield load_parser(_PARSERS.get(kind, kind), streams=False)(image)
    image.close()


def _links(files: GuestFilesystem) -> Iterator[tuple[FileId, FileId]]:
    """Every folder and the one it was found in."""
    ahead = [files.root]
    while ahead:
        folder = ahead.pop()
        for entry in files.entries(folder):
            if stat.S_ISDIR(files.stat(entry.file).mode):
                yield entry.file, folder
                ahead.append(entry.file)


def _asked(parents: FolderParents, folder: FileId) -> FileId | None:
    found, more = parents.parent(folder)
    while found is None and more:
        found, more = parents.parent(folder)
    return found


def test_every_folder_knows_where_it_is(
    files: GuestFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The larger filesystems at once, the others by a walk that needs many requests."""
    monkeypatch.setattr(folder_parents, "_ENTRIES_AT_ONCE", 50)
    parents, links = FolderParents(files), dict(_links(files))
    assert len(links) > 600
    assert {folder: _asked(parents, folder) for folder in links} == links
    assert _asked(parents, files.root) is None
    if isinstance(files, KnowsParents):  # all but exfat
        assert {folder: files.parent(folder) for folder in links} == links
    else:
        assert _asked(FolderParents(files), FileId(0, 1 << 30)) is None
