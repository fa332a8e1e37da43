"""FAT as mtools wrote it and reads it, exFAT as exfat-fuse shows it."""

from __future__ import annotations

import os
import random
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import HOLE, GuestDamaged, VolumeFacts
from backpoint_fusefs.guest.parsers.open_filesystem import open_filesystem
from guest_disks.tool import run
from guest_trees.awkward import fill
from guest_trees.disks import abilities_of, fill_fat, make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import Seen, Tree, walk_folder, walk_parser

_MIB = 1 << 20
_UTF8 = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
_WRITTEN_NS = 1_709_210_096 * 10**9
_SIZES = {"12": (8, "4"), "16": (20, "2"), "32": (80, "2")}
# exfat-fuse, writing and reading, counts 2100 as a leap year.
_AFTER_2100 = b"attributes/times/4354819198 "
_DAY_NS = 86_400 * 10**9


def _walk(path: Path, kind: str) -> Tree:
    with closing(FileImage(path)) as image:
        return walk_parser(open_filesystem(image, kind), image)


def _fat_files() -> dict[str, bytes]:
    noise = random.Random(8)
    files = {f"size {n}": noise.randbytes(n) for n in (0, 1, 511, 512, 513, 2048, 4097, 70_000)}
    files |= {
        name: name.encode() for name in ("UPPER.TXT", "lower.txt", "Mixed Case.Text", "NOEXT")
    }
    files |= {name: b"x" for name in ("Grüße ☂.txt", "日本語", "n" * 200, "UPPER.low", "low.UPP")}
    files |= {f"many/a rather long name {n}": b"%d" % n for n in range(150)}
    files |= {"a/b/c/d/e/f": b"deep", "empty folder/": b"", "gone.txt": b"gone"}
    return files


@pytest.mark.parametrize("bits", ["12", "16", "32"])
def test_what_was_put_in_is_found(tmp_path: Path, bits: str) -> None:
    """All of it, by its long names, and nothing that was deleted; mtools agrees."""
    path, files = tmp_path / "image", _fat_files()
    mib, per_cluster = _SIZES[bits]
    make_image(path, "fat", mib * _MIB, ["-F", bits, "-s", per_cluster, "-n", "LABEL"])
    fill_fat(path, files, ["gone.txt"])
    del files["gone.txt"]
    found = _walk(path, f"fat{bits}")
    out = tmp_path / "out"
    out.mkdir()
    run("mcopy", "-s", "-n", "-i", path, "::", out, environment=_UTF8)
    assert found.keys() == walk_folder(out).keys()
    contents = {name: seen.content for name, seen in walk_folder(out).items()}
    assert {name: seen.content for name, seen in found.items()} == contents
    regular = {name for name, seen in found.items() if stat.S_ISREG(seen.mode)}
    assert regular == {name.encode() for name in files if not name.endswith("/")}
    assert all(len(files[name.decode()]) == found[name].size for name in regular)
    modes = {(seen.mode, seen.uid, seen.gid, seen.nlink) for seen in found.values()}
    assert modes == {(0o100644, 0, 0, 1), (0o40755, 0, 0, 1)}
    assert {found[name].mtime_ns for name in regular} == {_WRITTEN_NS}


def test_fragments_and_removed_files(tmp_path: Path) -> None:
    """A large file in the gaps that others left."""
    path = tmp_path / "image"
    make_image(path, "fat", 8 * _MIB, ["-F", "12", "-s", "4"])
    small = {f"f{n:03}": bytes([n]) * 2048 for n in range(250)}
    fill_fat(path, small)
    run("mdel", "-i", path, *(f"::{name}" for name in [*small][::2]), environment=_UTF8)
    large = random.Random(1).randbytes(5 * _MIB)
    fill_fat(path, {"large": large})
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "fat12")
        files = {entry.name: entry.file for entry in filesystem.entries(filesystem.root)}
        assert files.keys() == {b"large", *(name.encode() for name in [*small][1::2])}
        assert filesystem.read(files[b"large"], 0, len(large) + 9) == large
    assert _walk(path, "fat12")[b"f001"].size == 2048


def test_read_only_and_hidden_files(tmp_path: Path) -> None:
    """Read-only takes the write bits; hidden and system files are files."""
    path = tmp_path / "image"
    make_image(path, "fat", 8 * _MIB)
    fill_fat(path, {"ro": b"", "hidden": b"", "plain": b""})
    run("mattrib", "-i", path, "+r", "::ro", environment=_UTF8)
    run("mattrib", "-i", path, "+h", "+s", "::hidden", environment=_UTF8)
    modes = {name: seen.mode for name, seen in _walk(path, "fat12").items() if name}
    assert modes == {b"ro": 0o100444, b"hidden": 0o100644, b"plain": 0o100644}


def test_short_names_of_old_code_pages(tmp_path: Path) -> None:
    """Without long names: in the IBM PC's own page, none lost or equal to another."""
    path = tmp_path / "image"
    make_image(path, "fat", 8 * _MIB)
    fill_fat(path, {f"PLAIN{n:03}.TXT": b"%d" % n for n in range(128, 256)})
    content = path.read_bytes()
    for byte in range(128, 256):
        old, new = b"PLAIN%03dTXT" % byte, b"P" + bytes([byte]) + b"AIN%03dTXT" % byte
        assert content.count(old) == 1
        content = content.replace(old, new)
    path.write_bytes(content)
    found = _walk(path, "fat12")
    expected = {f"P{bytes([n]).decode('cp437')}AIN{n:03}.TXT".encode() for n in range(128, 256)}
    assert found.keys() == {b"", *expected}


def test_a_long_name_of_another_file_is_not_believed(tmp_path: Path) -> None:
    """DOS renames only the short one, and the checksum tells."""
    path = tmp_path / "image"
    make_image(path, "fat", 8 * _MIB)
    fill_fat(path, {"A long name for it.txt": b"1"})
    content = path.read_bytes()
    assert content.count(b"ALONGN~1TXT") == 1
    path.write_bytes(content.replace(b"ALONGN~1TXT", b"RENAMED TXT"))
    assert _walk(path, "fat12").keys() == {b"", b"RENAMED.TXT"}


def test_a_chain_that_is_a_circle_is_refused(tmp_path: Path) -> None:
    """And one that leads out of the volume, or is shorter than the file."""
    path = tmp_path / "image"
    make_image(path, "fat", 20 * _MIB, ["-F", "16", "-s", "2", "-R", "1"])
    fill_fat(path, {"file": bytes(10_000)})
    sound = path.read_bytes()
    table = int.from_bytes(sound[14:16], "little") * 512
    for entry in (b"\x03\x00", b"\x02\x00", b"\xf0\xef", b"\x00\x00", b"\xff\xff"):
        # The file begins in cluster 2; entries 2 to 19 are all made the same.
        path.write_bytes(sound[: table + 4] + entry * 18 + sound[table + 40 :])
        with closing(FileImage(path)) as image:
            filesystem = open_filesystem(image, "fat16")
            files = {e.name: e.file for e in filesystem.entries(filesystem.root)}
            with pytest.raises(GuestDamaged):
                filesystem.extents(files[b"file"])


@pytest.mark.parametrize(("bits", "place"), [("16", 37), ("32", 65)])
def test_a_fat_that_was_not_unmounted_says_so(tmp_path: Path, bits: str, place: int) -> None:
    path = tmp_path / "image"
    make_image(path, "fat", 40 * _MIB, ["-F", bits])
    with closing(FileImage(path)) as image:
        assert open_filesystem(image, f"fat{bits}").facts == VolumeFacts()
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\x01")
    with closing(FileImage(path)) as image:
        assert "not unmounted" in open_filesystem(image, f"fat{bits}").facts.recovery


def _comparable(path: bytes, seen: Seen) -> Seen:
    """exfat-fuse invents modes, and has the time of change for that of the entry's creation."""
    later = _DAY_NS if path.startswith(_AFTER_2100) else 0
    mtime = seen.mtime_ns - later
    return replace(seen, mode=stat.S_IFMT(seen.mode), nlink=1, mtime_ns=mtime, ctime_ns=0)


@pytest.mark.parametrize("options", [(), ("-c", "512")])
def test_every_awkward_case_of_exfat(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Also in clusters so small that they cut the entries of a file apart."""
    path = tmp_path / "image"
    make_image(path, "exfat", 128 * _MIB, options)
    with mounted_image(path, "exfat") as top:
        fill(top, replace(abilities_of("exfat"), many_entries=300))
    with mounted_image(path, "exfat", read_only=True) as top:
        expected = {name: _comparable(name, seen) for name, seen in walk_folder(top).items()}
    found = {
        name: replace(seen, mode=stat.S_IFMT(seen.mode), ctime_ns=0)
        for name, seen in _walk(path, "exfat").items()
    }
    assert found == expected


def test_torn_entries_of_exfat_without_listing_first(tmp_path: Path) -> None:
    """A number is enough to find a file whose entries lie in two clusters."""
    path = tmp_path / "image"
    make_image(path, "exfat", 32 * _MIB, ("-c", "512"))
    with mounted_image(path, "exfat") as top:
        for number in range(100):
            (top / f"{number:03} and so on").write_bytes(b"%d" % number)
            (top / f"folder {number % 7}").mkdir(exist_ok=True)
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "exfat")
        entries = list(filesystem.entries(filesystem.root))
        stats = filesystem.stats([entry.file for entry in entries])
        assert len(entries) == 107
        for entry, one in zip(entries, stats, strict=True):
            assert open_filesystem(image, "exfat").stat(entry.file) == one
            if not entry.name.startswith(b"folder"):
                assert filesystem.read(entry.file, 0, 9) == b"%d" % int(entry.name[:3])


def test_the_unwritten_end_of_an_exfat_file_is_zeros(tmp_path: Path) -> None:
    """Its clusters hold leftovers beyond the valid length."""
    path, content = tmp_path / "image", os.urandom(50_000)
    make_image(path, "exfat", 32 * _MIB)
    with mounted_image(path, "exfat") as top:
        (top / "file").write_bytes(content)
    raw = path.read_bytes()
    # The valid length comes first, the size after it.
    at = raw.index((50_000).to_bytes(8, "little"))
    assert raw[at - 8] == 0xC0
    with path.open("r+b") as file:
        file.seek(at)
        file.write((20_001).to_bytes(8, "little"))
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "exfat")
        (entry,) = filesystem.entries(filesystem.root)
        assert filesystem.read(entry.file, 0, 60_000) == content[:20_001] + bytes(29_999)
        assert list(filesystem.extents(entry.file))[-1] == (20_001, 29_999, HOLE)


def test_an_exfat_that_was_not_unmounted_says_so(tmp_path: Path) -> None:
    path = tmp_path / "image"
    make_image(path, "exfat", 32 * _MIB)
    with closing(FileImage(path)) as image:
        assert open_filesystem(image, "exfat").facts == VolumeFacts()
    with path.open("r+b") as file:
        file.seek(106)
        file.write(b"\x02")
    with closing(FileImage(path)) as image:
        assert "not unmounted" in open_filesystem(image, "exfat").facts.recovery


@pytest.mark.parametrize("kind", ["fat12", "fat16", "fat32", "exfat", "iso9660", "hfsplus"])
def test_garbage_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    for wrong in (b"", bytes(1 << 20), os.urandom(1 << 20), b"H+" * 4096):
        path.write_bytes(wrong)
        with closing(FileImage(path)) as image, pytest.raises(GuestDamaged):
            open_filesystem(image, kind)


def test_an_exfat_file_larger_than_its_volume_is_refused_at_once(tmp_path: Path) -> None:
    """Its chain is a circle: to follow it for all its size would take years."""
    path = tmp_path / "image"
    make_image(path, "exfat", 32 * _MIB, ("-c", "4096"))
    with mounted_image(path, "exfat") as top:
        (top / "file").write_bytes(bytes(50_000))
        (top / "in the way").write_bytes(bytes(5_000))
        with (top / "file").open("ab") as file:
            file.write(bytes(5_000))
    raw = bytearray(path.read_bytes())
    at = raw.index((55_000).to_bytes(8, "little")) - 8
    assert raw[at] == 0xC0
    first = int.from_bytes(raw[at + 20 : at + 24], "little")
    entry = int.from_bytes(raw[80:84], "little") * 512 + first * 4
    raw[entry : entry + 4] = first.to_bytes(4, "little")
    raw[at + 1] = 0x01
    for place in (at + 8, at + 24):
        raw[place : place + 8] = (1 << 60).to_bytes(8, "little")
    path.write_bytes(raw)
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "exfat")
        files = {entry.name: entry.file for entry in filesystem.entries(filesystem.root)}
        with pytest.raises(GuestDamaged, match="smaller volume"):
            filesystem.extents(files[b"file"])
