"""Damaged and forged tables, labels and metadata end in volumes that are possible, or in a
sentence: never in anything else, and never in more work than a few thousand reads."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import GuestError
from backpoint_fusefs.guest.parsers.layout.find_volumes import MAX_VOLUMES, find_volumes
from backpoint_fusefs.guest.parsers.layout.lvm_group import VolumeGroup, read_group
from backpoint_fusefs.guest.parsers.layout.lvm_mapping import GroupMapping
from backpoint_fusefs.guest.parsers.layout.lvm_text import parse_text
from backpoint_fusefs.guest.parsers.layout.stretch import PiecedImage, Stretch
from backpoint_fusefs.guest.volume import Piece, Volume
from backpoint_fusefs.guest.volume_places import check_volume
from backpoint_fusefs.guest.volume_record import from_record, to_record
from guest_disks.tool import run
from guest_trees.lvm_disks import MIB, LvmDisk, lvm_host
from guest_trees.md_members import new_superblock

_SECTOR = 512
_SEEDS = 200
_MAX_READS = 4000
_MAX_BYTES = 256 * MIB


class _Bytes:
    """An image in memory, which counts."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = content
        self.size = len(content)
        self.reads = 0
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length >= 0
        found = bytes(self._content[offset : offset + length])
        self.reads += 1
        self.bytes_read += len(found)
        return found


def _checked(disks: Sequence[_Bytes]) -> list[Volume]:
    """As the mount checks them, and every one that claims to be readable is read."""
    volumes = find_volumes(disks)
    assert sum(disk.reads for disk in disks) < _MAX_READS
    assert sum(disk.bytes_read for disk in disks) < _MAX_BYTES
    assert len(volumes) <= MAX_VOLUMES
    assert len({volume.name for volume in volumes}) == len(volumes)
    for volume in volumes:
        assert from_record(to_record(volume)) == volume
        check_volume(volume, [disk.size for disk in disks])
        if volume.kind == "":
            assert volume.problem
        if not volume.problem:
            length = min(volume.size, 100_000)
            image = PiecedImage(volume, disks)
            assert len(image.read(volume.size - length, length)) == length
    return volumes


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A GPT with a filesystem of each sort of boot sector and a physical volume; an MBR with a
    chain, the other physical volume and a mirror."""
    folder = tmp_path_factory.mktemp("hostile")
    gpt, mbr = folder / "gpt", folder / "mbr"
    for path, table in (
        (gpt, "label: gpt\nsize=1M\nsize=2M\nsize=3M\nsize=2M\nsize=4M, type=V\n"),
        (mbr, "label: dos\nsize=4M, type=8e\nsize=2M, type=fd\ntype=5\n"
              "5: size=1M\n6: size=1M\n7: size=1M\n"),
    ):  # fmt: skip
        with path.open("xb") as image:
            image.truncate(14 * MIB)
        run("sfdisk", "-q", path, text=table)
    makers = [
        ["mkfs.fat", "-n", "LABEL"],
        ["mke2fs", "-q", "-F", "-L", "label"],
        ["mkfs.ntfs", "-q", "-F", "-f", "-s", "512", "-p", "0", "-L", "label"],
        ["mkfs.exfat", "-b", "64K", "-n", "label"],
    ]
    at = MIB
    for size, command in zip((1, 2, 3, 2), makers, strict=True):
        part = folder / command[0]
        part.write_bytes(bytes(size * MIB))
        run(*command, part)
        _put(gpt, at, part.read_bytes())
        at += size * MIB
    _put(mbr, 5 * MIB + 4096, new_superblock(4096, offset=MIB, size=MIB))
    with lvm_host([LvmDisk(gpt, at, 4 * MIB), LvmDisk(mbr, MIB, 4 * MIB)], folder / "sys") as host:
        host.group("vg0")
        one, two = host.devices
        host.volume("vg0", "over", 3, f"{one}:0-1", f"{two}:0-0")
        host.volume("vg0", "striped", 2, "-i", "2", "-I", "4k", f"{one}:2", f"{two}:2")
    return [path.read_bytes() for path in (gpt, mbr)]


def _put(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as image:
        image.seek(offset)
        image.write(content)


def test_the_disks_are_whole_before_they_are_damaged(disks: list[bytes]) -> None:
    """Or the rest of this module would test nothing."""
    found = {volume.name: volume.kind for volume in _checked([_Bytes(disk) for disk in disks])}
    assert found == {
        "disk0-p1": "fat12",
        "disk0-p2": "ext",
        "disk0-p3": "ntfs",
        "disk0-p4": "exfat",
        "md-data": "",
        "disk1-p3": "extended",
        "disk1-p5": "",
        "disk1-p6": "",
        "disk1-p7": "",
        "vg0-over": "",
        "vg0-striped": "",
    }


def _crc(data: bytes) -> int:
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _set(disk: bytearray, at: int, value: int) -> None:
    struct.pack_into("<I", disk, at, value)


def _seal(disk: bytearray, pv: int) -> None:
    """Make the checksums right again: of the GPT, the label and the metadata."""
    if disk[512:520] == b"EFI PART":
        count, size = struct.unpack_from("<II", disk, 512 + 80)
        (at,) = struct.unpack_from("<Q", disk, 512 + 72)
        if count * size <= MIB and at < 1000:
            _set(disk, 512 + 88, zlib.crc32(disk[at * 512 : at * 512 + count * size]))
        (length,) = struct.unpack_from("<I", disk, 512 + 12)
        _set(disk, 512 + 16, 0)
        _set(disk, 512 + 16, zlib.crc32(disk[512 : 512 + min(length, 512)]))
    _set(disk, pv + 512 + 16, _crc(bytes(disk[pv + 512 + 20 : pv + 1024])))
    at, length = struct.unpack_from("<QQ", disk, pv + 4096 + 40)
    if length < MIB and at < MIB:
        text = bytes(disk[pv + 4096 + at : pv + 4096 + at + length])
        _set(disk, pv + 4096 + 56, _crc(text))
    _set(disk, pv + 4096, _crc(bytes(disk[pv + 4100 : pv + 4096 + 512])))


_PVS = (9 * MIB, MIB)
_HUGE = (0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def _places(number: int, disk: bytes) -> list[int]:
    """Where there is something that this parser reads."""
    pv = _PVS[number]
    (text,) = struct.unpack_from("<Q", disk, pv + 4096 + 40)
    ranges = [(0, 2048), (pv + 512, 96), (pv + 4096, 80), *[(pv + 4096 + text, 2500)] * 3]
    if number == 0:
        # In turn of FAT, ext, NTFS and exFAT: boot sectors, superblock, labels.
        ranges += [(MIB, 96), (2 * MIB + 1024, 400), (4 * MIB, 96), (7 * MIB, 120)]
    else:
        ranges += [(5 * MIB + 4096, 300), *((at, 512) for at in range(7 * MIB, 11 * MIB, 2 * MIB))]
    return [at for start, size in ranges for at in range(start, start + size) if disk[at]]


def _damage(disk: bytearray, places: Sequence[int], chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.choice(places)
        way = chance.randrange(4)
        if way == 0:
            disk[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            width = chance.choice((1, 2, 4, 8))
            at -= at % width
            value = chance.choice(_HUGE) % (1 << 8 * width)
            disk[at : at + width] = value.to_bytes(width, "little")
        elif way == 2:
            source = chance.choice(places)
            count = chance.choice((1, 4, 16))
            disk[at : at + count] = disk[source : source + count]
        else:
            # A digit, mostly: the metadata's text stays readable and means something else.
            disk[at] = chance.choice(b'0123456789"{}[],=# \n-p')


@pytest.mark.parametrize("block", range(8))
def test_damage_and_forgery(disks: list[bytes], block: int) -> None:
    """Of each seed's disks all that is found is possible; most checksums are made right again."""
    places = [_places(number, disk) for number, disk in enumerate(disks)]
    for seed in range(block, _SEEDS, 8):
        chance = random.Random(seed)
        changed = [bytearray(disk) for disk in disks]
        for number in chance.choice(((0,), (1,), (0, 1))):
            _damage(changed[number], places[number], chance)
            if chance.random() < 0.8:
                _seal(changed[number], _PVS[number])
            if chance.random() < 0.05:
                del changed[number][chance.randrange(len(changed[number])) :]
        _checked([_Bytes(disk) for disk in changed])


def test_a_gpt_of_thousands_of_partitions(disks: list[bytes]) -> None:
    """No more volumes than there may be, none of them twice."""
    disk = bytearray(disks[0])
    entry = disk[1024 : 1024 + 128]
    for number in range(4096):
        disk[1024 + 128 * number : 1152 + 128 * number] = entry
    _set(disk, 512 + 80, 4096)
    _seal(disk, _PVS[0])
    volumes = _checked([_Bytes(disk), _Bytes(disks[1])])
    assert len(volumes) == MAX_VOLUMES
    assert len({volume.pieces for volume in volumes[:1000]}) == 1


def _group(logical: str) -> tuple[VolumeGroup, GroupMapping]:
    text = (
        'vg0 { id = "vgid" seqno = 1 extent_size = 8\n'
        'physical_volumes { pv0 { id = "pvid" pe_start = 8 pe_count = 9999 } }\n'
        f"logical_volumes {{ {logical} }} }}"
    )
    stretch = Stretch(0, _Bytes(bytes(16 * MIB)), 0, 16 * MIB)
    group = read_group(parse_text(text.encode()))
    return group, GroupMapping(group, {"pvid": stretch})


def _logical(name: str, *segments: tuple[int, str, str]) -> str:
    start, parts = 0, []
    for number, (count, kind, areas) in enumerate(segments):
        parts.append(
            f's{number} {{ start_extent = {start} extent_count = {count} type = "{kind}" {areas} }}'
        )
        start += count
    return f'{name} {{ id = "{name}" status = ["VISIBLE"] {" ".join(parts)} }}\n'


_HOSTILE = {
    "itself": _logical("top", (2, "striped", 'stripes = ["top", 0]')),
    "circle": _logical("top", (2, "striped", 'stripes = ["b", 0]'))
    + _logical("b", (2, "striped", 'stripes = ["top", 0]')),
    "circle of legs": _logical("top", (2, "raid1", 'raids = ["m", "top", "m", "top"]'))
    + _logical("m", (1, "striped", 'stripes = ["pv0", 0]')),
    "tower": "".join(
        _logical(f"v{number}", (2, "striped", f'stripes = ["v{number + 1}", 0]'))
        for number in range(50)
    )
    + _logical("top", (2, "striped", 'stripes = ["v0", 0]'))
    + _logical("v50", (2, "striped", 'stripes = ["pv0", 0]')),
    "doubling": "".join(
        _logical(
            f"v{number}",
            *[(2**number, "striped", f'stripes = ["v{number - 1}", 0]')] * 2,
        )
        for number in range(1, 40)
    )
    + _logical("v0", (1, "striped", 'stripes = ["pv0", 0]'))
    + _logical("top", (2**39, "striped", 'stripes = ["v39", 0]')),
    "beyond the disk": _logical("top", (2, "striped", 'stripes = ["pv0", 4094]')),
    "beyond a part": _logical("top", (2, "striped", 'stripes = ["b", 1]'))
    + _logical("b", (2, "striped", 'stripes = ["pv0", 0]')),
    "nothing": _logical("top", (2, "striped", "")),
    "unknown": _logical("top", (2, "striped", 'stripes = ["pv7", 0]')),
    "uneven": _logical("top", (3, "striped", 'stripes = ["pv0", 0, "pv0", 9]')),
    "endless": _logical("top", (2**50, "striped", 'stripes = ["pv0", 0]')),
    "narrow": _logical("top", (2, "striped", 'stripe_size = 1 stripes = ["pv0", 0, "pv0", 9]')),
    "no legs": _logical("top", (2, "raid1", "raids = [0, 0]")),
}


@pytest.mark.parametrize("name", list(_HOSTILE))
def test_volumes_made_of_volumes_end(name: str) -> None:
    """In circles, towers and doublings."""
    group, mapping = _group(_HOSTILE[name])
    with pytest.raises(GuestError):
        mapping.pieces(group.logical["top"])


def test_many_small_pieces_are_too_many() -> None:
    """A forger's metadata of many volumes in many pieces cost memory up to a limit only."""
    base = [(1, "striped", f'stripes = ["pv0", {extent * 2 % 4000}]') for extent in range(2000)]
    logical = _logical("b", *base)
    for number in range(400):
        logical += _logical(f"v{number}", (2000, "striped", 'stripes = ["b", 0]'))
    group, mapping = _group(logical)
    found: list[tuple[Piece, ...]] = []
    with pytest.raises(GuestError, match="too many pieces"):
        found.extend(mapping.pieces(volume) for volume in group.logical.values())
    assert 50 < len(found) < 150
