"""Partitions are found as libblkid finds them (partx), with the numbers that the guest's Linux
gives them; what has none is found as well, and nothing is silently absent."""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from backpoint_fusefs.guest.parsers.layout.find_volumes import find_volumes
from backpoint_fusefs.guest.volume import Volume
from backpoint_fusefs.guest.volume_places import check_volume
from guest_disks.tool import run
from guest_trees.file_image import FileImage

_MIB = 1 << 20
_SECTOR = 512


def _disk(path: Path, size: int, table: str = "", sector: int = _SECTOR) -> Path:
    """A sparse disk with the table that sfdisk makes of its script."""
    with path.open("xb") as image:
        image.truncate(size)
    if table:
        loop = run("losetup", "--find", "--show", f"--sector-size={sector}", path).strip()
        try:
            run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", loop, text=table)
        finally:
            run("losetup", "--detach", loop)
    return path


def _write(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as image:
        image.seek(offset)
        image.write(content)


def _found(*paths: Path) -> list[Volume]:
    images = [FileImage(path) for path in paths]
    volumes = find_volumes(images)
    for volume in volumes:
        check_volume(volume, [image.size for image in images])
    for image in images:
        image.close()
    return volumes


def _row(volume: Volume) -> tuple[int, int, int, str, str]:
    """Number, start, size, UUID, label."""
    number = int(volume.name.partition("-p")[2])
    start = volume.pieces[0].stripes[0][1]
    return number, start, volume.size, volume.partition, volume.partition_label


def _expected(path: Path, sector: int = _SECTOR) -> list[tuple[int, int, int, str, str]]:
    """As `_row`, by libblkid. Of a container it says what the kernel does: two sectors."""
    columns = "NR,START,SECTORS,UUID,NAME"
    said = run("partx", "--pairs", "-S", str(sector), "--output", columns, path)
    rows = []
    for line in said.splitlines():
        part = dict(word.split("=", 1) for word in shlex.split(line))
        # In sectors of 512 bytes whatever the disk's are.
        start, size = int(part["START"]) * _SECTOR, int(part["SECTORS"]) * _SECTOR
        rows.append((int(part["NR"]), start, size, part["UUID"], _unescaped(part["NAME"])))
    return rows


def _unescaped(text: str) -> str:
    """partx writes the bytes of what is not ASCII as \\xc3."""
    return re.sub(
        rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode()
    ).decode()


_GPT = """label: gpt
1: start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
2: size=20480, type=U, name="EFI system"
3: size=32768, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE
7: size=20480, name="wür\N{SNOWMAN}"
128: size=4096
"""


def _same_as_libblkid(path: Path, sector: int = _SECTOR) -> None:
    rows = [_row(volume) for volume in _found(path)]
    expected = _expected(path, sector)
    assert rows == expected
    assert rows


@pytest.mark.parametrize("sector", [512, 4096])
def test_gpt(tmp_path: Path, sector: int) -> None:
    """Numbers are those of the slots; a partition that holds no files says so."""
    table = _GPT if sector == _SECTOR else "label: gpt\nsize=10M\n4: size=30M, name=x\n"
    path = _disk(tmp_path / "disk", 64 * _MIB, table, sector)
    _same_as_libblkid(path, sector)
    if sector == _SECTOR:
        boot, efi, reserved, named, _ = _found(path)
        assert (boot.kind, reserved.kind) == ("bios-boot", "ms-reserved")
        assert boot.problem == "a BIOS boot partition: it holds no files"
        assert (efi.partition_label, named.partition_label) == ("EFI system", "wür\N{SNOWMAN}")


def _first_header(path: Path) -> None:
    _write(path, _SECTOR + 40, b"\xff")


def _first_entries(path: Path) -> None:
    _write(path, 2 * _SECTOR + 70, b"\xff")


def _both_first(path: Path) -> None:
    _write(path, _SECTOR, bytes(33 * _SECTOR))


def _mbr_and_first(path: Path) -> None:
    _write(path, 0, bytes(34 * _SECTOR))


def _grown(path: Path) -> None:
    """The second copy is in the middle of a larger disk."""
    _first_entries(path)
    with path.open("r+b") as image:
        image.truncate(80 * _MIB)


def _shorter_first_and_mbr(path: Path) -> None:
    """The second copy is gone, and the MBR as well."""
    _write(path, 0, bytes(_SECTOR))
    with path.open("r+b") as image:
        image.truncate(60 * _MIB)


@pytest.mark.parametrize(
    "damage",
    [_first_header, _first_entries, _both_first, _mbr_and_first, _grown, _shorter_first_and_mbr],
)
def test_one_good_copy_of_a_gpt_is_enough(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Whichever of the two it is."""
    path = _disk(tmp_path / "disk", 64 * _MIB, _GPT)
    expected = _expected(path)
    damage(path)
    assert [_row(volume) for volume in _found(path)] == expected


def test_a_gpt_damaged_in_both_copies_is_said(tmp_path: Path) -> None:
    """The disk is one volume that says why there are no partitions."""
    path = _disk(tmp_path / "disk", 64 * _MIB, _GPT)
    _first_entries(path)
    _write(path, 64 * _MIB - 33 * _SECTOR + 70, b"\xff")
    (volume,) = _found(path)
    assert (volume.name, volume.kind) == ("disk0", "")
    assert volume.problem == "its GPT partition table is damaged in both copies"


def test_a_partition_at_the_end_is_not_a_sector_short(tmp_path: Path) -> None:
    """The last sector of a GPT partition is its own."""
    path = _disk(tmp_path / "disk", 8 * _MIB, "label: gpt\nstart=2048, size=1\nsize=3\n")
    assert [volume.size for volume in _found(path)] == [512, 1536]


_MBR = """label: dos
label-id: 0xcafe1234
1: size=4M, type=83
3: size=4M, type=c
4: type=f
5: size=4M, type=83
6: size=4M, type=83
7: size=4M, type=82
8: size=4M, type=7
"""


def _without_containers(path: Path) -> list[Volume]:
    return [volume for volume in _found(path) if volume.kind != "extended"]


def test_mbr_with_logical_partitions(tmp_path: Path) -> None:
    """Slots are 1 to 4 also with a gap, logical ones from 5; the container says what it is."""
    path = _disk(tmp_path / "disk", 64 * _MIB, _MBR)
    expected = _expected(path)
    assert [_row(volume) for volume in _without_containers(path)] == [
        row for row in expected if row[0] != 4
    ]
    assert [number for number, *_ in expected] == [1, 3, 4, 5, 6, 7, 8]
    (container,) = [volume for volume in _found(path) if volume.kind == "extended"]
    assert container.name == "disk0-p4"
    assert container.partition == "cafe1234-04"
    assert "logical" in container.problem


def _table(*slots: tuple[int, int, int], disk_id: int = 0x1234) -> bytes:
    """A sector with a table: type, first sector, sectors of each slot."""
    rows = b"".join(struct.pack("<B3xB3xII", 0, *slot) for slot in slots)
    return (bytes(440) + struct.pack("<IH", disk_id, 0) + rows).ljust(510, b"\0") + b"\x55\xaa"


_EXT = 4096
_CHAINS = {
    "no gap": {0: [(0x83, 2048, 64), (5, _EXT, 8192)],
               _EXT: [(0x83, 64, 64), (5, 1024, 512)],
               _EXT + 1024: [(0x83, 64, 65)]},
    "first is gone": {0: [(5, _EXT, 8192)],
                      _EXT: [(0, 0, 0), (5, 1024, 512)],
                      _EXT + 1024: [(0x83, 64, 65)]},
    "link before data": {0: [(5, _EXT, 8192)],
                         _EXT: [(5, 1024, 512), (0x83, 64, 66)],
                         _EXT + 1024: [(0x83, 64, 65)]},
    "third slot": {0: [(5, _EXT, 8192)],
                   _EXT: [(0x83, 64, 64), (0, 0, 0), (0x83, 256, 64), (0x83, 512, 90000)]},
    "two containers": {0: [(5, _EXT, 2048), (0x83, 2048, 64), (0x85, 20000, 2048)],
                       _EXT: [(0x83, 64, 64)],
                       20000: [(0x83, 64, 70)]},
    "end of chain is no table": {0: [(0xF, _EXT, 8192)],
                                 _EXT: [(0x83, 64, 64), (5, 2048, 512)]},
}  # fmt: skip


@pytest.mark.parametrize("chain", list(_CHAINS))
def test_odd_chains_of_logical_partitions(tmp_path: Path, chain: str) -> None:
    """As libblkid follows them."""
    path = _disk(tmp_path / "disk", 16 * _MIB)
    for sector, slots in _CHAINS[chain].items():
        _write(path, sector * _SECTOR, _table(*slots))
    containers = {
        number for number, (kind, *_) in enumerate(_CHAINS[chain][0], 1) if kind in (5, 0xF, 0x85)
    }
    expected = [row for row in _expected(path) if row[0] not in containers]
    assert [_row(volume) for volume in _without_containers(path)] == expected
    assert {_row(volume)[0] for volume in _found(path)} >= containers


def test_a_chain_that_leads_back_ends(tmp_path: Path) -> None:
    """To itself, or in a circle of two: each table is read once."""
    path = _disk(tmp_path / "disk", 16 * _MIB)
    _write(path, 0, _table((5, _EXT, 8192)))
    _write(path, _EXT * _SECTOR, _table((0x83, 64, 64), (5, 1024, 512)))
    _write(path, (_EXT + 1024) * _SECTOR, _table((0x83, 64, 65), (5, 0, 512)))
    assert [volume.name for volume in _found(path)] == ["disk0-p1", "disk0-p5", "disk0-p6"]
    # The kernel and libblkid count the two again and again, a hundred times.


def test_a_chain_without_end_is_cut(tmp_path: Path) -> None:
    """Thousands of tables make no more than 1,024 volumes, and few reads."""
    path = _disk(tmp_path / "disk", 16 * _MIB)
    _write(path, 0, _table((5, 64, 30000)))
    for number in range(3000):
        at = 64 + 8 * number
        _write(path, at * _SECTOR, _table((0x83, 1, 7), (5, 8 * number + 8, 8)))
    image = FileImage(path)
    assert 90 < len(find_volumes([image])) <= 1024
    assert image.reads < 3000
    image.close()


def test_hybrid_and_stale_tables(tmp_path: Path) -> None:
    """A hybrid MBR leaves the GPT in force; a newer MBR over an old GPT does not."""
    path = _disk(tmp_path / "disk", 64 * _MIB, _GPT)
    _write(path, 0, _table((0xEE, 1, 2047), (0x83, 4096, 20480), disk_id=7))
    _same_as_libblkid(path)
    assert len(_found(path)) == 5
    _write(path, 0, _table((0x83, 4096, 20480), disk_id=7))
    _same_as_libblkid(path)
    assert len(_found(path)) == 1


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4096, 70_000, 3 * _MIB])
def test_an_empty_disk(tmp_path: Path, size: int) -> None:
    """Is there, and says that it holds nothing."""
    (volume,) = _found(_disk(tmp_path / "disk", size))
    assert (volume.name, volume.size, volume.kind) == ("disk0", size, "")
    assert volume.problem.startswith("holds no partition table and no filesystem that is known")


def test_disks_without_partitions(tmp_path: Path) -> None:
    """A filesystem on the disk itself, and noise."""
    ext = tmp_path / "ext"
    run("mke2fs", "-q", "-F", "-L", "alone", ext, "2M")
    noise = tmp_path / "noise"
    noise.write_bytes(bytes(range(256)) * 8192)
    tables = _disk(tmp_path / "label", 4 * _MIB, "label: gpt\n")
    alone, unknown, nothing = _found(ext, noise, tables)
    assert (alone.name, alone.kind, alone.label, alone.problem) == ("disk0", "ext", "alone", "")
    assert (unknown.name, unknown.kind) == ("disk1", "")
    assert unknown.problem == "holds no partition table and no filesystem that is known"
    assert nothing.problem == "its GPT partition table lists no partition"


def test_boot_sectors_of_filesystems_are_no_tables(tmp_path: Path) -> None:
    """FAT, NTFS, exFAT and extlinux' code on a whole disk all end like an MBR."""
    makers: dict[str, list[str]] = {
        "fat16": ["mkfs.fat", "-I"],
        "ntfs": ["mkfs.ntfs", "-q", "-F", "-f", "-s", "512", "-p", "0"],
        "exfat": ["mkfs.exfat"],
    }
    for kind, command in makers.items():
        path = _disk(tmp_path / kind, 16 * _MIB)
        run(*command, path)
        (volume,) = _found(path)
        assert (volume.name, volume.kind, volume.problem) == ("disk0", kind, "")
    # A table all of whose partitions hold nothing known, on a disk that is a filesystem.
    ext = tmp_path / "ext"
    run("mke2fs", "-q", "-F", ext, "4M")
    _write(ext, 0, _table((0x83, 4000, 64)))
    (volume,) = _found(ext)
    assert (volume.name, volume.kind) == ("disk0", "ext")


def test_a_cut_disk(tmp_path: Path) -> None:
    """A partition that loses its end keeps what is there; one beyond the end says that."""
    path = _disk(tmp_path / "disk", 64 * _MIB, _MBR)
    with path.open("r+b") as image:
        image.truncate(7 * _MIB)
    volumes = {volume.name: volume for volume in _found(path)}
    assert volumes["disk0-p1"].size == 4 * _MIB
    assert volumes["disk0-p3"].size == 2 * _MIB
    assert volumes["disk0-p4"].problem == "begins beyond the end of the disk"
    assert volumes["disk0-p4"].pieces == ()


def test_dynamic_disks_are_said(tmp_path: Path) -> None:
    """Also where the partition seems to begin with a filesystem, which goes on elsewhere."""
    path = _disk(tmp_path / "disk", 8 * _MIB, "label: dos\nstart=2048, type=42\n")
    ext = tmp_path / "ext"
    run("mke2fs", "-q", "-F", ext, "4M")
    _write(path, _MIB, ext.read_bytes())
    (volume,) = _found(path)
    assert volume.kind == "ldm"
    assert "dynamic disk" in volume.problem


def test_few_reads(tmp_path: Path) -> None:
    """A usual disk costs less than ten, since each may be a fetch from far away."""
    path = _disk(
        tmp_path / "disk", 160 * _MIB, "label: gpt\nsize=1M\nsize=20M, type=U\nsize=40M\nsize=40M\n"
    )
    makers = [["mkfs.fat"], ["mke2fs", "-q", "-F"], ["mkfs.ntfs", "-q", "-F", "-f", "-s", "512"]]
    for command, offset, size in zip(makers, (2, 22, 62), (20, 40, 40), strict=True):
        part = _disk(tmp_path / command[0], size * _MIB)
        run(*command, *(["-p", "0"] if "ntfs" in command[0] else []), part)
        _write(path, offset * _MIB, part.read_bytes())
    image = FileImage(path)
    volumes = find_volumes([image])
    assert [volume.kind for volume in volumes] == ["", "fat16", "ext", "ntfs"]
    assert image.reads < 10
    image.close()
