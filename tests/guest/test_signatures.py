"""Kind, label and UUID of a filesystem are those that blkid prints for the same bytes: fstab names
volumes by them."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signature import Signature
from backpoint_fusefs.guest.parsers.layout.signatures import identify
from guest_disks.tool import run
from guest_trees.file_image import FileImage
from guest_trees.md_members import new_superblock, old_superblock, old_superblock_at

_MIB = 1 << 20
_UUID = "12345678-1234-5678-9abc-def012345678"
_KINDS = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), "ext"),
    **{kind: kind for kind in ("xfs", "btrfs", "ntfs", "exfat", "iso9660", "hfsplus", "apfs")},
    **{kind: kind for kind in ("swap", "jbd", "f2fs", "jfs", "reiserfs", "squashfs", "bcache")},
    "swsuspend": "swap",
    "crypto_LUKS": "luks",
    "LVM2_member": "lvm2",
    "linux_raid_member": "md",
    "zfs_member": "zfs",
    "BitLocker": "bitlocker",
    "VMFS_volume_member": "vmfs",
    "drbd": "drbd",
    "": "",
}


def _image(path: Path, size: int) -> Path:
    with path.open("xb") as image:
        image.truncate(size)
    return path


def _write(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as image:
        image.seek(offset)
        image.write(content)


@contextlib.contextmanager
def _probe(path: Path, start: int = 0, size: int | None = None) -> Iterator[Probe]:
    image = FileImage(path, start, size)
    yield Probe(image)
    image.close()


def _blkid(path: Path, tag: str, start: int, size: int | None) -> str:
    limits = ["-O", str(start), *(["-S", str(size)] if size else [])]
    said = run("sh", "-c", '"$@" || test $? = 2', "sh",
               "blkid", "-p", *limits, "-s", tag, "-o", "value", path)  # fmt: skip
    return said.removesuffix("\n")


def _same(path: Path, start: int = 0, size: int | None = None) -> Signature:
    """What we say, after blkid has said the same."""
    with _probe(path, start, size) as probe:
        found = identify(probe, expect_raid=True)
    kind = _blkid(path, "TYPE", start, size)
    if kind == "vfat":
        assert found.kind == _blkid(path, "VERSION", start, size).lower()
    else:
        assert found.kind == _KINDS[kind]
    assert found.uuid == _blkid(path, "UUID", start, size)
    assert found.label == _blkid(path, "LABEL", start, size)
    return found


_MADE: dict[str, tuple[int, list[str]]] = {
    "ext2": (2, ["mke2fs", "-q", "-F", "-t", "ext2", "-L", "old one"]),
    "ext3": (8, ["mke2fs", "-q", "-F", "-t", "ext3"]),
    "ext4": (8, ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "sixteen letters!", "-U", _UUID]),
    "ext4 big blocks": (64, ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "64bit"]),
    "ext4 unnamed": (8, ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "häuser", "-U", "clear"]),
    "ext journal": (8, ["mke2fs", "-q", "-F", "-O", "journal_dev", "-L", "log"]),
    "xfs": (302, ["mkfs.xfs", "-q", "-K", "-L", "twelve chars", "-m", f"uuid={_UUID}"]),
    "xfs without label": (302, ["mkfs.xfs", "-q", "-K", "-m", "crc=0"]),
    "btrfs": (110, ["mkfs.btrfs", "-q", "-L", "a label with blanks", "-U", _UUID]),
    "btrfs without label": (110, ["mkfs.btrfs", "-q"]),
    "ntfs": (8, ["mkfs.ntfs", "-q", "-F", "-f", "-s", "512", "-p", "0", "-L", "Daten ☃"]),
    "ntfs long": (8, ["mkfs.ntfs", "-q", "-F", "-f", "-s", "512", "-p", "0", "-L", "x" * 32]),
    "ntfs plain": (8, ["mkfs.ntfs", "-q", "-F", "-f", "-s", "4096", "-c", "16384", "-p", "0"]),
    "fat12": (2, ["mkfs.fat", "-F", "12", "-n", "TWELVE", "-i", "0a0b0c0d"]),
    "fat16": (32, ["mkfs.fat", "-F", "16", "-n", "ELEVEN CHRS"]),
    "fat16 without label": (32, ["mkfs.fat", "-F", "16"]),
    "fat32": (64, ["mkfs.fat", "-F", "32", "-n", "THIRTYTWO", "-i", "00000001"]),
    "fat32 large sectors": (128, ["mkfs.fat", "-F", "32", "-S", "4096", "-s", "1"]),
    "fat16 by size": (16, ["mkfs.fat", "-s", "4"]),
    "exfat": (16, ["mkfs.exfat", "-n", "Größe"]),
    "exfat without label": (16, ["mkfs.exfat", "-c", "128K"]),
    "swap": (2, ["mkswap", "-q", "-L", "resume", "-U", _UUID]),
    "swap 64k pages": (2, ["mkswap", "-q", "-p", "65536"]),
    "nothing": (2, ["true"]),
}


@pytest.mark.parametrize("name", list(_MADE))
def test_filesystems_made_by_their_own_tools(tmp_path: Path, name: str) -> None:
    """Every mkfs that there is, with and without a label."""
    size, command = _MADE[name]
    path = _image(tmp_path / "image", size * _MIB)
    run(*command, path)
    found = _same(path)
    if found.kind not in ("", "swap", "jbd"):
        # mkfs leaves no more than a little of the volume unused.
        assert 0.9 * size * _MIB < found.size <= size * _MIB


def test_a_fat_label_is_the_root_folder_s(tmp_path: Path) -> None:
    """Changed by another system, behind many names, or deleted: the boot sector's is an old one."""
    path = _image(tmp_path / "image", 64 * _MIB)
    run("mkfs.fat", "-F", "32", "-s", "1", "-n", "OLD", path)
    assert _same(path).label == "OLD"
    quiet = {"MTOOLS_SKIP_CHECK": "1"}
    run("mlabel", "-i", path, "-c", environment=quiet)
    for number in range(60):
        run("mmd", "-i", path, f"::folder with a long name {number}", environment=quiet)
    run("mlabel", "-i", path, "::BEHIND", environment=quiet)
    assert _same(path).label == "BEHIND"


def test_an_ntfs_label_across_a_sector_s_end(tmp_path: Path) -> None:
    """Two bytes of every sector are kept elsewhere; blkid does not know, NTFS' own tool does."""
    path = _image(tmp_path / "image", 8 * _MIB)
    run("mkfs.ntfs", "-q", "-F", "-f", "-s", "512", "-p", "0", "-L", "y" * 128, path)
    with _probe(path) as probe:
        label = identify(probe).label
    assert label == run("ntfslabel", path).strip() == "y" * 128


def test_an_exfat_label_set_later(tmp_path: Path) -> None:
    """By the tool for it."""
    path = _image(tmp_path / "image", 16 * _MIB)
    run("mkfs.exfat", path)
    run("exfatlabel", path, "später")
    assert _same(path).label == "später"


@pytest.mark.parametrize(
    "options",
    [
        ["-V", "PLAIN"],
        ["-J", "-R", "-V", "A name that only ISO holds whole"],
        ["-J", "-V", "Ünïcode ☃ name"],
        ["-R"],
    ],
)
def test_discs(tmp_path: Path, options: list[str]) -> None:
    """The label is Joliet's, unless that is but the beginning of the other."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("text")
    path = tmp_path / "disc"
    run("xorriso", "-as", "mkisofs", "-quiet", "-input-charset", "utf-8", *options, "-o", path,
        source)  # fmt: skip
    _same(path)


def test_hfs_plus(tmp_path: Path) -> None:
    """As xorriso puts it inside a disc; with its name from the catalogue, and a UUID."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(300):
        (source / f"file {number}").write_text("text")
    disc = tmp_path / "disc"
    run("xorriso", "-as", "mkisofs", "-quiet", "-hfsplus", "-V", "Apfel", "-o", disc, source)
    content = disc.read_bytes()
    start = content.index(b"H+\0\x04", 70_000) - 1024
    path = tmp_path / "hfs"
    path.write_bytes(content[start:])
    # Eight bytes that macOS would choose.
    _write(path, 1024 + 104, b"\x01\x02\x03\x04\x05\x06\x07\x08")
    assert _same(path).label == "Apfel"


def _luks1(path: Path) -> None:
    _write(path, 0, b"LUKS\xba\xbe\0\x01" + bytes(160) + _UUID.encode())


def _luks2(path: Path) -> None:
    head = b"LUKS\xba\xbe\0\x02" + struct.pack(">QQ48s", 16384, 1, b"secret")
    _write(path, 0, head.ljust(168, b"\0") + _UUID.encode())


def _bitlocker(path: Path) -> None:
    guid = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
    head = b"\xeb\x58\x90-FVE-FS-".ljust(160, b"\0") + guid + struct.pack("<Q", 65536)
    _write(path, 0, head)
    _write(path, 65536, b"-FVE-FS-" + struct.pack("<HH", 64, 2))


def _md_new(at: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        _write(path, at, new_superblock(at, offset=_MIB, size=2 * _MIB))

    return write


def _md_end(path: Path) -> None:
    at = path.stat().st_size - 8192
    _write(path, at, new_superblock(at, offset=0, size=3 * _MIB, level=5))


def _md_old(path: Path) -> None:
    size = path.stat().st_size
    _write(path, old_superblock_at(size), old_superblock(size=3 * _MIB))


def _apfs(path: Path) -> None:
    _write(path, 0, struct.pack("<QQQII4sIQ", 0, 1, 1, 0x80000001, 0, b"NXSB", 4096, 1024))
    _write(path, 72, bytes(range(16)))


def _zfs(path: Path) -> None:
    for number in range(16):
        _write(path, 131072 + 1024 * number, struct.pack("<QQQ", 0x00BAB10C, 5000, number))
        _write(path, 262144 + 131072 + 1024 * number, struct.pack("<QQQ", 0x00BAB10C, 5000, number))

    def pair(name: bytes, kind: int, value: bytes) -> bytes:
        key = struct.pack(">I", len(name)) + name + bytes(-len(name) % 4)
        body = key + struct.pack(">II", kind, 1) + value
        return struct.pack(">II", len(body) + 8, len(body) + 8) + body

    pairs = b"\x01\x01\0\0" + struct.pack(">II", 0, 1)
    pairs += pair(b"version", 8, struct.pack(">Q", 5000))
    pairs += pair(b"name", 9, struct.pack(">I", 4) + b"tank")
    pairs += pair(b"pool_guid", 8, struct.pack(">Q", 0xDEADBEEF12345678))
    pairs += pair(b"guid", 8, struct.pack(">Q", 77))
    _write(path, 16384, pairs + bytes(8))


def _vmfs(path: Path) -> None:
    _write(path, _MIB, b"\x0d\xd0\x01\xc0")


def _squashfs(path: Path) -> None:
    _write(path, 0, struct.pack("<4sIIIIHHHHHH", b"hsqs", 1, 0, 4096, 0, 1, 12, 0, 1, 4, 0))


def _drbd(path: Path) -> None:
    at = path.stat().st_size - 4096
    _write(path, at + 60, struct.pack(">I", 0x8374026B))


def _suspended(path: Path) -> None:
    run("mkswap", "-q", "-L", "asleep", path)
    _write(path, 4086, b"S1SUSPEND\0")


def _reiserfs(path: Path) -> None:
    head = struct.pack("<IIII", 2048, 100, 17, 18).ljust(44, b"\0") + struct.pack("<H", 4096)
    block = (head.ljust(52, b"\0") + b"ReIsEr2Fs").ljust(84, b"\0") + bytes(range(16)) + b"reiser"
    _write(path, 65536, block)


def _jfs(path: Path) -> None:
    head = struct.pack("<4sIQIHHIHH", b"JFS1", 1, 100, 4096, 12, 3, 512, 9, 0)
    _write(path, 32768, head.ljust(136, b"\0") + bytes(range(16)) + b"journaled")


def _f2fs(path: Path) -> None:
    head = struct.pack("<IHHIII", 0xF2F52010, 1, 15, 9, 3, 12).ljust(108, b"\0")
    _write(path, 1024, head + bytes(range(16)) + "flash".encode("utf-16-le"))


_FORGED = [
    _luks1, _luks2, _bitlocker, _md_new(0), _md_new(4096), _md_end, _md_old, _apfs, _zfs, _vmfs,
    _squashfs, _drbd, _suspended, _reiserfs, _jfs, _f2fs,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(_FORGED)))
def test_what_no_tool_here_makes(tmp_path: Path, number: int) -> None:
    """Headers written by hand, which blkid takes for what they say."""
    path = _image(tmp_path / "image", 64 * _MIB)
    _FORGED[number](path)
    found = _same(path)
    assert found.kind


def test_a_raid_behind_a_filesystem_too_large(tmp_path: Path) -> None:
    """The first member of a striped RAID with metadata at its end begins like a filesystem; a
    mirror's member is one."""
    whole = _image(tmp_path / "whole", 8 * _MIB)
    run("mke2fs", "-q", "-F", whole)
    half = tmp_path / "half"
    half.write_bytes(whole.read_bytes()[: 4 * _MIB])
    size = half.stat().st_size
    with _probe(half) as probe:
        assert identify(probe).kind == "ext"
    _write(half, size - 8192, new_superblock(size - 8192, offset=0, size=3 * _MIB, level=0))
    with _probe(half) as probe:
        assert identify(probe).kind == "md"


def test_few_bytes_are_read(tmp_path: Path) -> None:
    """One read of 68 KiB tells what most filesystems are."""
    path = _image(tmp_path / "image", 8 * _MIB)
    run("mke2fs", "-q", "-F", path)
    image = FileImage(path)
    assert identify(Probe(image)).kind == "ext"
    assert (image.reads, image.bytes_read) == (1, 68 * 1024)
    image.close()
