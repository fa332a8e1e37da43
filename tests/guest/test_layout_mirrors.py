"""Mirrors of Linux's software RAID show what is in them, from a member that has all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpoint_fusefs.guest.parsers.layout.find_volumes import find_volumes
from backpoint_fusefs.guest.parsers.layout.stretch import PiecedImage
from backpoint_fusefs.guest.volume import Volume
from guest_disks.tool import run
from guest_trees.file_image import FileImage
from guest_trees.lvm_disks import LvmDisk, lvm_host
from guest_trees.md_members import new_superblock, old_superblock, old_superblock_at

_MIB = 1 << 20
_SIZE = 8 * _MIB


def _member(path: Path, content: bytes, at: int, superblock: bytes, offset: int = 0) -> Path:
    with path.open("xb") as image:
        image.truncate(_SIZE)
        image.seek(offset)
        image.write(content)
        image.seek(at)
        image.write(superblock)
    return path


def _ext(folder: Path, label: str, size: int = 4 * _MIB) -> bytes:
    path = folder / f"ext-{label}"
    with path.open("xb") as image:
        image.truncate(size)
    run("mke2fs", "-q", "-F", "-L", label, path)
    return path.read_bytes()


def _found(*paths: Path) -> list[Volume]:
    images = [FileImage(path) for path in paths]
    volumes = find_volumes(images)
    for image in images:
        image.close()
    return volumes


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_a_mirror_is_one_volume(tmp_path: Path, version: str) -> None:
    """Of two members the one that is up to date, whatever the place of the metadata."""
    at = {"1.0": _SIZE - 8192, "1.1": 0, "1.2": 4096}[version]
    offset = 0 if version == "1.0" else _MIB
    contents = [_ext(tmp_path, label) for label in ("stale", "fresh")]
    members = [
        _member(
            *(tmp_path / str(role), contents[role], at),
            new_superblock(at, offset=offset, size=4 * _MIB, role=role, events=20 + 10 * role),
            offset,
        )
        for role in range(2)
    ]
    (volume,) = _found(*members)
    assert (volume.name, volume.kind, volume.label) == ("md-data", "ext", "fresh")
    assert volume.devices == ("/dev/md/data",)
    images = [FileImage(path) for path in members]
    assert PiecedImage(volume, images).read(0, volume.size) == contents[1]
    for image in images:
        image.close()


def test_an_old_mirror(tmp_path: Path) -> None:
    """Metadata 0.90 know the array by a number."""
    at = old_superblock_at(_SIZE)
    path = _member(tmp_path / "disk", _ext(tmp_path, "old"), at, old_superblock(size=4 * _MIB))
    (volume,) = _found(path)
    assert (volume.name, volume.kind, volume.label, volume.size) == ("md3", "ext", "old", 4 * _MIB)
    assert volume.devices == ("/dev/md3", "/dev/md/3")


@pytest.mark.parametrize("role", [2, 3])
def test_a_member_that_is_spare_or_failed_is_not_believed(tmp_path: Path, role: int) -> None:
    """Alone it is shown as what it is."""
    block = new_superblock(4096, offset=_MIB, size=4 * _MIB, role=role)
    path = _member(tmp_path / "disk", _ext(tmp_path, "no"), 4096, block, _MIB)
    (volume,) = _found(path)
    assert (volume.name, volume.kind) == ("disk0", "md")
    assert "not complete" in volume.problem


def test_a_stale_member_is_not_shown_while_the_fresh_one_is_incomplete(tmp_path: Path) -> None:
    """Neither: one is old, the other still being filled."""
    members = [
        _member(
            *(tmp_path / str(role), b"", 4096),
            new_superblock(
                *(4096,), offset=_MIB, size=4 * _MIB, role=role, events=20 + 10 * role,
                features=0x2 * role,
            ),
        )
        for role in range(2)
    ]  # fmt: skip
    assert [volume.kind for volume in _found(*members)] == ["md", "md"]


@pytest.mark.parametrize(("level", "word"), [(0, "level 0"), (5, "level 5"), (-1, "linear")])
def test_other_levels_are_named(tmp_path: Path, level: int, word: str) -> None:
    """Their bytes are in no one place."""
    block = new_superblock(4096, offset=_MIB, size=4 * _MIB, level=level)
    (volume,) = _found(_member(tmp_path / "disk", b"", 4096, block))
    assert word in volume.problem
    assert volume.label == "host:data"


def test_a_volume_group_on_a_mirror(tmp_path: Path) -> None:
    """Its physical volume is inside, not on the partition."""
    block = new_superblock(4096, offset=_MIB, size=6 * _MIB, name="host:0")
    path = _member(tmp_path / "disk", b"", 4096, block)
    content = bytes(range(256)) * 4096
    with lvm_host([LvmDisk(path, _MIB, 6 * _MIB)], tmp_path / "sys") as host:
        host.group("vg0")
        host.volume("vg0", "root", 1)
        host.write("vg0", "root", content)
    (volume,) = _found(path)
    assert volume.name == "vg0-root"
    image = FileImage(path)
    assert PiecedImage(volume, [image]).read(0, volume.size) == content
    image.close()
