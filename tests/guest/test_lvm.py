"""Logical volumes are found where LVM2's own tools put them, byte for byte."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from backpoint_fusefs.guest.parsers.layout.find_volumes import find_volumes
from backpoint_fusefs.guest.parsers.layout.stretch import PiecedImage
from backpoint_fusefs.guest.volume import Volume
from backpoint_fusefs.guest.volume_places import check_volume
from guest_disks.tool import run
from guest_trees.file_image import FileImage
from guest_trees.lvm_disks import EXTENT, MIB, LvmDisk, LvmHost, lvm_host, whole_disk


def _found(paths: Sequence[Path]) -> dict[str, Volume]:
    """Every volume by name, each checked as the mount checks it."""
    images = [FileImage(path) for path in paths]
    volumes = find_volumes(images)
    for volume in volumes:
        check_volume(volume, [image.size for image in images])
    for image in images:
        image.close()
    return {volume.name: volume for volume in volumes}


def _content(paths: Sequence[Path], volume: Volume) -> bytes:
    """By several reads that do not fall on stripes, which must agree with one that reads all."""
    images = [FileImage(path) for path in paths]
    pieced = PiecedImage(volume, images)
    whole = pieced.read(0, volume.size)
    odd = 77_777
    assert whole == b"".join(pieced.read(at, odd) for at in range(0, volume.size, odd))
    for image in images:
        image.close()
    return whole


def _noise(extents: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(extents * EXTENT)


def _two_disks(folder: Path) -> list[LvmDisk]:
    return [whole_disk(folder / name, 24 * MIB) for name in ("a", "b")]


def test_a_volume_over_two_disks_holds_what_was_written(tmp_path: Path) -> None:
    """Linear over both disks, striped over both, and in two parts of one disk out of order."""
    disks = _two_disks(tmp_path)
    paths = [disk.image for disk in disks]
    ext = tmp_path / "ext"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "top", ext, "14M")
    contents = {"spa-n": ext.read_bytes(), "striped": _noise(6, 1), "parts": _noise(5, 2)}
    with lvm_host(disks, tmp_path / "sys") as host:
        host.group("vg-0")
        a, b = host.devices
        host.volume("vg-0", "spa-n", 14, f"{a}:0-9", f"{b}:0-3")
        host.volume("vg-0", "striped", 6, "-i", "2", "-I", "64k", f"{a}:10-12", f"{b}:4-6")
        host.volume("vg-0", "parts", 3, f"{b}:12-14")
        host.lvm("lvextend", "-l", "5", "vg-0/parts", f"{b}:9-10")
        for name, content in contents.items():
            host.write("vg-0", name, content)
    found = _found(paths)
    assert set(found) == {f"vg-0-{name}" for name in contents}
    for name, content in contents.items():
        assert _content(paths, found[f"vg-0-{name}"]) == content
    top = found["vg-0-spa-n"]
    assert (top.kind, top.label, top.problem) == ("ext", "top", "")
    assert top.uuid == run("blkid", "-p", "-s", "UUID", "-o", "value", ext).strip()
    assert top.devices == ("/dev/vg-0/spa-n", "/dev/mapper/vg--0-spa--n")
    assert len(top.pieces) == 2
    assert len(found["vg-0-striped"].pieces) == 1


def test_a_physical_volume_in_a_partition(tmp_path: Path) -> None:
    """Its partition is not a volume of its own; its neighbour is."""
    path = tmp_path / "disk"
    with path.open("xb") as image:
        image.truncate(40 * MIB)
    run("sfdisk", "-q", path, text="label: gpt\nsize=8M\nsize=20M, type=V\n")
    disk = LvmDisk(path, 9 * MIB, 20 * MIB)
    content = _noise(7, 3)
    with lvm_host([disk], tmp_path / "sys") as host:
        host.group("vg0")
        host.volume("vg0", "root", 7)
        host.write("vg0", "root", content)
    found = _found([path])
    assert set(found) == {"disk0-p1", "vg0-root"}
    assert _content([path], found["vg0-root"]) == content


def test_two_groups_with_one_name(tmp_path: Path) -> None:
    """Of two machines each has its own; on the disks of one machine they are told apart."""
    paths, contents = [], []
    for number in range(2):
        disk = whole_disk(tmp_path / f"disk{number}", 16 * MIB)
        contents.append(_noise(4, number))
        with lvm_host([disk], tmp_path / f"sys{number}") as host:
            host.group("vg0")
            host.volume("vg0", "root", 4)
            host.write("vg0", "root", contents[-1])
        paths.append(disk.image)
    for path, content in zip(paths, contents, strict=True):
        found = _found([path])
        assert set(found) == {"vg0-root"}
        assert _content([path], found["vg0-root"]) == content
    both = _found(paths)
    assert set(both) == {"vg0-root", "vg0-root~2"}
    assert {_content(paths, volume) for volume in both.values()} == set(contents)
    assert set(_found(paths[::-1])) == set(both)
    assert _content(paths[::-1], _found(paths[::-1])["vg0-root"]) == _content(
        paths, both["vg0-root"]
    )


def test_a_missing_disk_is_named(tmp_path: Path) -> None:
    """A volume on the disk that is there is read; one that needs the other says which."""
    disks = _two_disks(tmp_path)
    content = _noise(3, 4)
    with lvm_host(disks, tmp_path / "sys") as host:
        host.group("vg0")
        a, b = host.devices
        host.volume("vg0", "here", 3, f"{a}:0-2")
        host.volume("vg0", "over", 6, f"{a}:3-5", f"{b}:0-2")
        host.write("vg0", "here", content)
        missing = host.lvm("pvs", "--noheadings", "-o", "pv_uuid", b).strip()
    found = _found([disks[0].image])
    assert _content([disks[0].image], found["vg0-here"]) == content
    assert missing in found["vg0-over"].problem
    assert found["vg0-over"].size == 6 * EXTENT
    other = _found([disks[1].image])
    assert set(other) == {"vg0-here", "vg0-over"}
    assert all("missing" in volume.problem for volume in other.values())


def test_the_newest_metadata_win(tmp_path: Path) -> None:
    """A disk that was away while the group changed does not decide what the group is."""
    disks = _two_disks(tmp_path)
    paths = [disk.image for disk in disks]
    with lvm_host(disks, tmp_path / "sys") as host:
        host.group("vg0")
        host.volume("vg0", "old", 2)
        stale = paths[0].read_bytes()
        host.lvm("lvrename", "vg0", "old", "new")
        host.volume("vg0", "more", 2)
    paths[0].write_bytes(stale)
    assert set(_found(paths)) == set(_found(paths[::-1])) == {"vg0-new", "vg0-more"}


def test_metadata_that_wrap_and_metadata_twice(tmp_path: Path) -> None:
    """The ring buffer has gone round many times; the copy at the disk's end serves alone, too."""
    disk = whole_disk(tmp_path / "disk", 16 * MIB)
    content = _noise(2, 5)
    with lvm_host([disk], tmp_path / "sys") as host:
        host.group("vg0", pvcreate=["--metadatacopies", "2", "--metadatasize", "16k"])
        host.volume("vg0", "root", 2)
        host.write("vg0", "root", content)
        many = [f"--addtag={'x' * 1000}{number}" for number in range(150)]
        host.lvm("vgchange", *many, "vg0")
        for number in range(10):
            host.lvm("vgchange", f"--addtag=t{number}", "vg0")
            assert set(_found([disk.image])) == {"vg0-root"}
            if _text_wraps(disk.image):
                break
        else:
            raise AssertionError("the metadata never met the end of their area")
    assert _content([disk.image], _found([disk.image])["vg0-root"]) == content
    with disk.image.open("r+b") as image:
        image.seek(4096)
        image.write(bytes(8192))
    found = _found([disk.image])
    assert _content([disk.image], found["vg0-root"]) == content


def _text_wraps(path: Path) -> bool:
    header = path.read_bytes()[4096 : 4096 + 512]
    size, at, length = (int.from_bytes(header[n : n + 8], "little") for n in (32, 40, 48))
    return at + length > size


def _add_volumes(text: str, volumes: str) -> str:
    """More logical volumes at the end of their section."""
    at = text.index("logical_volumes {") + len("logical_volumes {")
    return text[:at] + volumes + text[at:]


def _lv(name: str, number: int, segment: str, *, visible: bool = True, extents: int = 2) -> str:
    letters = f"{number:06d}"
    status = '"READ", "WRITE"' + (', "VISIBLE"' if visible else "")
    return (
        f'\n{name} {{\nid = "{letters}-aaaa-bbbb-cccc-dddd-eeee-ffffff"\nstatus = [{status}]\n'
        f"flags = []\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = {extents}\n"
        f"{segment}\n}}\n}}\n"
    )


def _linear(pv: str, extent: int) -> str:
    return f'type = "striped"\nstripe_count = 1\nstripes = ["{pv}", {extent}]'


_RAID1 = "".join(
    (
        *(_lv(f"r_rmeta_{leg}", leg, _linear(f"pv{leg}", 0), visible=False, extents=1)
          for leg in range(2)),
        *(_lv(f"r_rimage_{leg}", 2 + leg, _linear(f"pv{leg}", 1), visible=False)
          for leg in range(2)),
        _lv("r", 5, 'type = "raid1"\ndevice_count = 2\nregion_size = 1024\n'
            'raids = ["r_rmeta_0", "r_rimage_0", "r_rmeta_1", "r_rimage_1"]'),
    )
)  # fmt: skip
_RAID0 = "".join(
    (
        *(_lv(f"z_rimage_{leg}", 6 + leg, _linear(f"pv{leg}", 4), visible=False)
          for leg in range(2)),
        _lv("z", 8, 'type = "raid0"\nstripe_count = 2\nstripe_size = 128\n'
            'raid0_lvs = ["z_rimage_0", "z_rimage_1"]', extents=4),
    )
)  # fmt: skip
_SNAPSHOT = _lv("store", 11, _linear("pv0", 12)) + _lv(
    "snapshot0",
    12,
    'type = "snapshot"\nchunk_size = 8\norigin = "plain"\ncow_store = "store"',
    visible=False,
)
_ERROR = _lv("broken", 13, 'type = "error"')


def _put(disk: LvmDisk, extent: int, content: bytes) -> None:
    with disk.image.open("r+b") as image:
        image.seek(MIB + extent * EXTENT)
        image.write(content)


def test_mirrors_snapshots_and_what_is_not_read(tmp_path: Path) -> None:
    """A mirror by a leg, stripes of hidden volumes, and a sentence with the type of all others."""
    disks = _two_disks(tmp_path)
    paths = [disk.image for disk in disks]
    mirrored, striped = _noise(2, 6), _noise(4, 7)
    with lvm_host(disks, tmp_path / "sys") as host:
        host.group("vg0")
        host.volume("vg0", "plain", 2, f"{host.devices[0]}:10-11")
        host.edit("vg0", lambda text: _add_volumes(text, _RAID1 + _RAID0 + _SNAPSHOT + _ERROR))
        assert "raid1" in host.lvm("lvs", "-o", "segtype", "vg0")
    units = [striped[at : at + 65536] for at in range(0, len(striped), 65536)]
    for leg, disk in enumerate(disks):
        _put(disk, 1, mirrored)
        _put(disk, 4, b"".join(units[leg::2]))
    found = _found(paths)
    assert set(found) == {f"vg0-{name}" for name in ("plain", "r", "z", "store", "broken")}
    assert _content(paths, found["vg0-r"]) == mirrored
    assert _content(paths, found["vg0-z"]) == striped
    assert "snapshot of plain" in found["vg0-store"].problem
    assert "error" in found["vg0-broken"].problem
    alone = _found(paths[1:])
    assert _content(paths[1:], alone["vg0-r"]) == mirrored


def _notes(position: int, events: int, failed: int, recovered: int = (1 << 64) - 1) -> bytes:
    """struct dm_raid_superblock."""
    numbers = (0x64526D44, 0, 2, position, events, failed, recovered, (1 << 64) - 1)
    return b"".join(
        number.to_bytes(size, "little")
        for number, size in zip(numbers, (4, 4, 4, 4, 8, 8, 8, 8), strict=True)
    )


@pytest.mark.parametrize(
    ("first", "second", "believed"),
    [
        (_notes(0, 9, 0), _notes(1, 9, 0), 0),
        (_notes(0, 3, 0), _notes(1, 9, 0b01), 1),
        (_notes(0, 9, 0, recovered=100), _notes(1, 9, 0), 1),
        (_notes(0, 9, 0b10), _notes(1, 3, 0), 0),
        (_notes(0, 9, 0b11), _notes(1, 9, 0b11), None),
    ],
)
def test_a_mirror_is_read_from_a_leg_that_is_whole(
    tmp_path: Path, first: bytes, second: bytes, believed: int | None
) -> None:
    """What the kernel noted beside the legs decides; with no leg that is whole, none is shown."""
    disks = _two_disks(tmp_path)
    paths = [disk.image for disk in disks]
    legs = [_noise(2, 8), _noise(2, 9)]
    with lvm_host(disks, tmp_path / "sys") as host:
        host.group("vg0")
        host.volume("vg0", "plain", 1, f"{host.devices[0]}:10-10")
        host.edit("vg0", lambda text: _add_volumes(text, _RAID1))
    for disk, leg, notes in zip(disks, legs, (first, second), strict=True):
        _put(disk, 0, notes)
        _put(disk, 1, leg)
    volume = _found(paths)["vg0-r"]
    if believed is None:
        assert "no leg" in volume.problem
    else:
        assert _content(paths, volume) == legs[believed]


def _shown_itself(host: LvmHost, paths: list[Path]) -> str:
    (volume,) = _found(paths).values()
    assert (volume.name, volume.kind) == ("disk0", "lvm2")
    assert volume.uuid == host.lvm("pvs", "--noheadings", "-o", "pv_uuid").strip()
    return volume.problem


def test_a_physical_volume_without_readable_group_is_shown(tmp_path: Path) -> None:
    """Of no group, of one without volumes, with damaged metadata, and the clone of another."""
    disk = whole_disk(tmp_path / "disk", 16 * MIB)
    path = disk.image
    with lvm_host([disk], tmp_path / "sys") as host:
        host.lvm("pvcreate", "-y", host.devices[0])
        assert "no volume group" in _shown_itself(host, [path])
        host.lvm("vgcreate", "-y", "vg0", host.devices[0])
        assert "no logical volumes" in _shown_itself(host, [path])
        host.lvm("lvcreate", "-an", "-Zn", "-Wn", "-y", "-l", "1", "-n", "one", "vg0")
        whole = path.read_bytes()
    clone = tmp_path / "clone"
    clone.write_bytes(whole)
    twice = _found([path, clone])
    assert set(twice) == {"vg0-one", "disk1"}
    assert "second copy" in twice["disk1"].problem
    texts = [match.start() for match in re.finditer(rb"vg0 \{", whole)]
    with path.open("r+b") as image:
        for at in texts:
            image.seek(at + 10)
            image.write(b"X")
    (damaged,) = _found([path]).values()
    assert "checksum" in damaged.problem
