"""Content of a btrfs that was compressed, cloned, cut, overwritten and reserved is the kernel's."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from backports import zstd

from backpoint_fusefs.guest.filesystem import DECODED, HOLE, GuestDamaged, GuestUnsupported
from backpoint_fusefs.guest.parsers.btrfs import decode as codec
from backpoint_fusefs.guest.parsers.btrfs.btrfs_filesystem import BtrfsFilesystem, open_btrfs
from guest_disks.tool import run
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import walk_folder, walk_parser

_KIB, _MIB = 1 << 10, 1 << 20
# linux/fs.h: _IOW(0x94, 13, struct file_clone_range).
_FICLONERANGE = 0x4020940D
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16


def _assert_same(path: Path) -> None:
    with mounted_image(path, "btrfs", read_only=True, options=["subvolid=5"]) as top:
        expected = walk_folder(top)
    with closing(FileImage(path)) as image:
        assert walk_parser(open_btrfs(image), image) == expected


def _kinds(filesystem: BtrfsFilesystem, name: bytes) -> set[int]:
    """What the extents of a file at the top are: HOLE, DECODED, 0 for mapped."""
    for entry in filesystem.entries(filesystem.root):
        if entry.name == name:
            return {min(extent.at, 0) for extent in filesystem.extents(entry.file)}
    raise AssertionError(f"there is no {name!r}")


def _text(size: int, chance: random.Random) -> bytes:
    """Compresses to about a third."""
    words = [b"%x" % chance.getrandbits(40) for _ in range(50)]
    return b" ".join(chance.choice(words) for _ in range(size // 10 + 1))[:size]


def _clone(source: Path, target: Path, start: int, length: int, to: int) -> None:
    flags = os.O_RDWR | os.O_CREAT
    from_file, to_file = os.open(source, os.O_RDONLY), os.open(target, flags, 0o644)
    request = struct.pack("=qQQQ", from_file, start, length, to)
    fcntl.ioctl(to_file, _FICLONERANGE, request)
    os.close(from_file)
    os.close(to_file)


def _overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
        os.fsync(file.fileno())


def _allocate(path: Path, mode: int, offset: int, length: int) -> None:
    words = {_KEEP_SIZE: "-n", _PUNCH_HOLE: "-p", _ZERO_RANGE: "-z"}
    run("fallocate", words[mode], "-o", str(offset), "-l", str(length), path)


def _fill(top: Path, seed: int) -> None:
    """Files whose extents are whole, cut, shared and partly replaced."""
    chance = random.Random(seed)
    for size in (1, 100, 2000, 4095, 4096, 4097, 5000, 131_072, 131_073, 1_000_001):
        (top / f"text {size}").write_bytes(_text(size, chance))
        (top / f"zeros {size}").write_bytes(bytes(size))
    (top / "random").write_bytes(chance.randbytes(300_000))
    (top / "mixed").write_bytes(
        b"".join(_text(70_000, chance) + chance.randbytes(70_000) for _ in range(5))
    )
    os.sync()
    for name in ("overwritten", "cut", "grown", "punched", "zeroed", "source"):
        (top / name).write_bytes(_text(600_000, chance))
    os.sync()
    for _ in range(12):
        _overwrite(top / "overwritten", chance.randrange(590_000), _text(9_000, chance))
    os.truncate(top / "cut", 333_333)
    os.truncate(top / "grown", 222_222)
    os.sync()
    os.truncate(top / "grown", 900_000)
    os.truncate(top / "text 2000", 1_000)
    os.truncate(top / "text 100", 3_000_000)
    _allocate(top / "punched", _PUNCH_HOLE, 40_000, 250_000)
    _allocate(top / "zeroed", _ZERO_RANGE, 100_000, 100_000)
    (top / "reserved").write_bytes(_text(10_000, chance))
    _allocate(top / "reserved", _KEEP_SIZE, 0, 500_000)
    os.sync()
    run("cp", "--reflink=always", top / "source", top / "whole clone")
    _clone(top / "source", top / "part clone", 64 * _KIB, 200 * _KIB, 0)
    _clone(top / "mixed", top / "part clone", 100 * _KIB, 300 * _KIB, 1 * _MIB)
    _clone(top / "source", top / "source", 0, 40 * _KIB, 400 * _KIB)
    _overwrite(top / "whole clone", 300_000, chance.randbytes(20_000))


@pytest.mark.parametrize("method", ["no", "zlib", "lzo", "zstd", "zstd:15"])
def test_content(tmp_path: Path, method: str) -> None:
    """Of compressed and plain files after all that can be done to their extents."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 256 * _MIB)
    options = [] if method == "no" else [f"compress-force={method}"]
    with mounted_image(path, "btrfs", options=options) as top:
        _fill(top, seed=len(method))
    _assert_same(path)
    with closing(FileImage(path)) as image:
        filesystem = open_btrfs(image)
        plain, packed = _kinds(filesystem, b"random"), _kinds(filesystem, b"text 1000001")
        assert plain == {0}
        assert packed == ({0} if method == "no" else {DECODED})
        assert _kinds(filesystem, b"text 1") == {DECODED}
        assert HOLE in _kinds(filesystem, b"punched")
        assert HOLE in _kinds(filesystem, b"text 100")


def test_compression_of_one_file(tmp_path: Path) -> None:
    """Set as a property: the attribute is listed as the kernel lists it."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 128 * _MIB)
    with mounted_image(path, "btrfs") as top:
        (top / "file").touch()
        run("btrfs", "property", "set", top / "file", "compression", "zstd")
        (top / "file").write_bytes(b"again and again " * 50_000)
    _assert_same(path)
    with closing(FileImage(path)) as image:
        filesystem = open_btrfs(image)
        (entry,) = filesystem.entries(filesystem.root)
        assert filesystem.xattrs(entry.file) == {b"btrfs.compression": b"zstd"}
        assert _kinds(filesystem, b"file") == {DECODED}


def test_any_range(tmp_path: Path) -> None:
    """A read anywhere gives those bytes of the file, fewer only at its end."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 128 * _MIB)
    chance = random.Random(7)
    content = _text(500_000, chance) + bytes(200_000) + chance.randbytes(100_001)
    with (
        mounted_image(path, "btrfs", options=["compress=lzo"]) as top,
        (top / "file").open("wb") as file,
    ):
        file.write(content[:500_000])
        file.seek(700_000)
        file.write(content[700_000:])
    with closing(FileImage(path)) as image:
        filesystem = open_btrfs(image)
        (entry,) = filesystem.entries(filesystem.root)
        for _ in range(300):
            start = chance.randrange(len(content) + 10_000)
            length = chance.randrange(300_000)
            read = filesystem.read(entry.file, start, length)
            assert read == content[start : start + length]


def _zlib_bomb() -> bytes:
    return zlib.compress(bytes(80 * _MIB), 9)


def _zstd_bomb() -> bytes:
    return zstd.compress(bytes(400 * _MIB), options={zstd.CompressionParameter.window_log: 17})


@pytest.mark.parametrize(
    ("method", "bomb"), [(codec.ZLIB, _zlib_bomb), (codec.ZSTD, _zstd_bomb)], ids=["zlib", "zstd"]
)
def test_a_bomb_is_bounded(method: int, bomb: Callable[[], bytes]) -> None:
    """What decodes to more than the extent claims is cut at the claim, at 128 KiB at most."""
    stored = bomb()
    assert len(stored) < codec.STORED_MAX
    assert codec.decode(stored, method, 5_000, 4096) == bytes(5_000)
    with pytest.raises(GuestDamaged, match="impossible size"):
        codec.decode(stored, method, codec.DECODED_MAX + 1, 4096)


@pytest.mark.parametrize("method", [codec.ZLIB, codec.LZO, codec.ZSTD])
def test_garbage_is_damage(method: int) -> None:
    """Bytes that are not compressed, or end too soon, are never content."""
    chance = random.Random(method)
    for length in (0, 1, 4, 5, 100, 4096, 100_000):
        with pytest.raises(GuestDamaged):
            codec.decode(chance.randbytes(length), method, 100_000, 4096)


def _lzo_literals(content: bytes) -> bytes:
    """Not compressed at all: a run of literals, then the end mark (LZO1X stream format)."""
    more, last = divmod(len(content) - 19, 255)
    return bytes(1 + more) + bytes([last + 1]) + content + b"\x11\0\0"


def _with_total(segments: bytes) -> bytes:
    return ((4 + len(segments)).to_bytes(4, "little") + segments).ljust(8192, b"\0")


@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 5])
def test_lzo_segments_near_a_sector_end(left: int) -> None:
    """Where no length fits before the border the sector is filled up, after the last one too: seen
    once in 11,000 files of an installed system."""
    parts = [random.Random(left).randbytes(size) for size in (4068 - left, 300)]
    segments = [len(one).to_bytes(4, "little") + one for one in map(_lzo_literals, parts)]
    stored = segments[0]
    assert 4 + len(stored) == 4096 - left
    if left < 4:
        stored += bytes(left)
    assert codec.decode(_with_total(stored), codec.LZO, 4096, 4096) == parts[0].ljust(4096, b"\0")
    stored += segments[1]
    together = b"".join(parts)
    assert codec.decode(_with_total(stored), codec.LZO, len(together), 4096) == together


def test_unknown_compression_is_refused() -> None:
    """A method of the future is said to be unsupported."""
    with pytest.raises(GuestUnsupported, match="compression 4"):
        codec.decode(b"x", 4, 4096, 4096)
