"""XFS as the kernel shows it: the same tree on every shape of filesystem that mkfs.xfs makes."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import HOLE, FileId, GuestFilesystem, check_extents
from backpoint_fusefs.guest.parsers.xfs.xfs_filesystem import open_xfs
from guest_disks.tool import run
from guest_trees.awkward import fill
from guest_trees.disks import abilities_of, make_image, mounted_image, without_big_files
from guest_trees.file_image import FileImage
from guest_trees.walk import Tree, walk_folder, walk_parser

_MIB = 1 << 20
_FICLONE = 0x40049409
_STALE = b"this was another file's content "


def test_every_awkward_case_is_as_the_kernel_shows_it(tmp_path: Path) -> None:
    """Names, links, sparse files, xattrs, lists and times on a filesystem with mkfs's defaults."""
    image = tmp_path / "image"
    make_image(image, "xfs", 6 << 30)
    with mounted_image(image, "xfs") as root:
        fill(root, abilities_of("xfs"))
    assert len(_same_tree(image)) > 10_000


@pytest.mark.parametrize(
    "options",
    [
        "-b size=1024 -n size=4096",
        "-i size=1024,nrext64=1 -n size=8192 -m rmapbt=1",
        "-i size=2048,sparse=0 -n size=65536 -m reflink=0,finobt=0,inobtcount=0 -d agcount=9",
    ],
)
def test_each_geometry_is_as_the_kernel_shows_it(tmp_path: Path, options: str) -> None:
    """Folder blocks larger than blocks, other inode sizes, features on and off."""
    image = tmp_path / "image"
    make_image(image, "xfs", 1 << 30, options.split())
    with mounted_image(image, "xfs") as root:
        fill(root, without_big_files(abilities_of("xfs")))
    _same_tree(image)


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_fragmented_maps_are_as_the_kernel_shows_them(tmp_path: Path, block_size: int) -> None:
    """Extent trees of one and two levels, for content and for attributes."""
    image = tmp_path / "image"
    make_image(image, "xfs", 400 * _MIB, ["-b", f"size={block_size}"])
    with mounted_image(image, "xfs") as root:
        _fragment(root / "content", block_size, 4096)
        _fragment_attributes(root)
    _same_tree(image)
    with _opened(image) as (filesystem, _):
        content = _found(filesystem, b"content")
        assert len(list(filesystem.extents(content))) == 2 * 4096 - 1
        middle = filesystem.read(content, 5000 * block_size, 3 * block_size)
    first, last = (bytes([number % 251]) * block_size for number in (2500, 2501))
    assert middle == first + bytes(block_size) + last


def test_reserved_space_reads_as_zeros_although_stale_bytes_lie_there(tmp_path: Path) -> None:
    """Unwritten extents before, between and behind written ones, over a removed file's blocks."""
    image = tmp_path / "image"
    make_image(image, "xfs", 310 * _MIB)
    with mounted_image(image, "xfs") as root:
        (root / "old").write_bytes(_STALE * (200 * _MIB // len(_STALE)))
        run("sync", "--file-system", root)
        (root / "old").unlink()
        with (root / "reserved").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 150 * _MIB)
            for place in (3, 40, 41, 140):
                file.seek(place * _MIB)
                file.write(b"written")
        (root / "reserved behind").write_bytes(b"short")
        run("fallocate", "--keep-size", "--length", "10MiB", root / "reserved behind")
    _same_tree(image)
    with _opened(image) as (filesystem, raw):
        found = filesystem.extents(_found(filesystem, b"reserved"))
        extents = check_extents(found, 150 * _MIB, raw.size)
        assert [extent.at == HOLE for extent in extents] == [True, False] * 4 + [True]
        behind = raw.read(extents[1].at + extents[1].length, 1 << 20)
    assert _STALE in behind


def test_shared_blocks_are_read_from_both_files(tmp_path: Path) -> None:
    """A reflinked copy, and one of which a part was rewritten."""
    image = tmp_path / "image"
    make_image(image, "xfs", 310 * _MIB)
    with mounted_image(image, "xfs") as root:
        (root / "one").write_bytes(random.Random(5).randbytes(_MIB))
        for name in ("same", "changed"):
            with (root / "one").open("rb") as source, (root / name).open("wb") as copy:
                fcntl.ioctl(copy.fileno(), _FICLONE, source.fileno())
        with (root / "changed").open("r+b") as copy:
            copy.seek(300_000)
            copy.write(b"changed")
    _same_tree(image)
    with _opened(image) as (filesystem, _):
        one, same = (list(filesystem.extents(_found(filesystem, n))) for n in (b"one", b"same"))
    assert one == same


def test_crowded_folders_are_as_the_kernel_shows_them(tmp_path: Path) -> None:
    """10,000 names; and 5 of once 4,000, so that whole blocks of their folder are holes."""
    image = tmp_path / "image"
    make_image(image, "xfs", 310 * _MIB)
    with mounted_image(image, "xfs") as root:
        for folder, count, kept in (("full", 10_000, 1), ("emptied", 4_000, 999)):
            (root / folder).mkdir()
            names = [f"{number:05} {'long ' * (number % 30)}" for number in range(count)]
            for name in names:
                (root / folder / name).touch()
            for name in set(names) - set(names[::kept]):
                (root / folder / name).unlink()
    assert len(_same_tree(image)) == 3 + 10_000 + 5


def test_old_timestamps_are_as_the_kernel_shows_them(tmp_path: Path) -> None:
    """Without big times: seconds since 1970, signed, from 1901 to 2038."""
    image = tmp_path / "image"
    make_image(image, "xfs", 310 * _MIB, ["-m", "bigtime=0"])
    moments = [-(2**31) * 10**9, -1, -(10**9), 0, 1, 1_700_000_000_123_456_789, (2**31 - 1) * 10**9]
    with mounted_image(image, "xfs") as root:
        for moment in moments:
            (root / str(moment)).touch()
            os.utime(root / str(moment), ns=(moment, moment))
    tree = _same_tree(image)
    assert {int(name): seen.mtime_ns for name, seen in tree.items() if name} == {
        moment: moment for moment in moments
    }


def test_inode_numbers_beyond_32_bits_are_followed(tmp_path: Path) -> None:
    """Folders in the last group of a 4 TiB filesystem: 8 byte numbers in small folders."""
    image = tmp_path / "image"
    make_image(image, "xfs", 4 << 40, ["-l", "size=64m", "-d", "agcount=8"])
    with mounted_image(image, "xfs") as root:
        for number in range(12):
            (root / f"folder {number}" / "below").mkdir(parents=True)
            (root / f"folder {number}" / "below" / "file").write_bytes(b"far")
    tree = _same_tree(image)
    with _opened(image) as (filesystem, _):
        assert max(entry.file.ino for entry in filesystem.entries(filesystem.root)) >> 32
    assert len(tree) == 1 + 12 * 3


def test_link_targets_in_pieces_are_as_the_kernel_shows_them(tmp_path: Path) -> None:
    """On a full filesystem with holes of one block, targets of two blocks lie in two places."""
    image = tmp_path / "image"
    options = "-b size=1024 -m reflink=0,finobt=0,inobtcount=0 -i maxpct=100"
    make_image(image, "xfs", 310 * _MIB, options.split())
    with mounted_image(image, "xfs") as root:
        _fill_up(root)
        for number in range(40):
            (root / str(number)).unlink()
            (root / str(number)).symlink_to("t" * 1_000 + str(number))
    _same_tree(image)
    with _opened(image) as (filesystem, _):
        links = [_found(filesystem, str(number).encode()).ino for number in range(40)]
    words = [word for ino in links for word in ("-c", f"inode {ino}", "-c", "print core.nextents")]
    assert "core.nextents = 2" in run("xfs_db", "-r", *words, image)


def test_many_stats_come_with_few_reads(tmp_path: Path) -> None:
    """A folder and its 3,000 inodes: at most one read for each MiB, a few for what is around."""
    image = tmp_path / "image"
    make_image(image, "xfs", 310 * _MIB)
    with mounted_image(image, "xfs") as root:
        for number in range(3_000):
            (root / str(number)).touch()
    with _opened(image) as (filesystem, raw):
        before = raw.reads
        entries = list(filesystem.entries(filesystem.root))
        stats = filesystem.stats([entry.file for entry in entries])
        assert raw.reads - before < 12
    assert [found.ino for found in stats if found] == [entry.file.ino for entry in entries]


def _fill_up(root: Path) -> None:
    """All of it taken, but for holes of one block; inodes for 40 files are there already."""
    for number in range(40):
        (root / str(number)).touch()
    # Blocks kept for root's own use are not fragmented.
    run("xfs_io", "-x", "-c", "resblks 0", root)
    with (root / "full").open("wb") as file:
        at, size = 0, 64 * _MIB
        while size >= 1024:
            try:
                os.posix_fallocate(file.fileno(), at, size)
                at += size
            except OSError:
                size //= 2
    holes = [word for number in range(400) for word in ("-c", f"fpunch {number * 2048} 1024")]
    run("xfs_io", *holes, root / "full")


def _fragment(path: Path, block_size: int, extents: int) -> None:
    """Every second block is a hole."""
    with path.open("wb") as file:
        for number in range(extents):
            file.seek(number * 2 * block_size)
            file.write(bytes([number % 251]) * block_size)


def _fragment_attributes(root: Path) -> None:
    """Values of 64 KiB between which another file grows, and 200 small ones with long names."""
    path = root / "attributes"
    path.touch()
    chance = random.Random(7)
    with (root / "between").open("wb", buffering=0) as other:
        for number in range(40):
            os.setxattr(path, f"user.large {number}", chance.randbytes(65_536 - number))
            other.write(bytes(200_000))
            os.fsync(other.fileno())
    for number in range(200):
        name = f"trusted.{number:03} {'n' * (number % 200)}"
        os.setxattr(path, name, chance.randbytes(number))
    os.setxattr(path, "user.large 7", b"now small")
    os.removexattr(path, "user.large 8")


@contextmanager
def _opened(image: Path) -> Iterator[tuple[GuestFilesystem, FileImage]]:
    raw = FileImage(image)
    with closing(raw):
        yield open_xfs(raw), raw


def _found(filesystem: GuestFilesystem, name: bytes) -> FileId:
    return next(one.file for one in filesystem.entries(filesystem.root) if one.name == name)


def _same_tree(image: Path) -> Tree:
    """What the parser shows; it must be what the kernel shows, of a log with nothing in it."""
    with mounted_image(image, "xfs", read_only=True) as root:
        expected = walk_folder(root)
    with _opened(image) as (filesystem, raw):
        assert filesystem.facts.recovery == ""
        shown = walk_parser(filesystem, raw)
    assert _different(shown, expected) == []
    return shown


def _different(shown: Tree, expected: Tree) -> list[object]:
    """A few paths that differ, as the two see them: a whole tree is too long to read."""
    paths = sorted(set(shown) | set(expected))
    differ = [path for path in paths if shown.get(path) != expected.get(path)]
    return [(path, shown.get(path), expected.get(path)) for path in differ[:3]]
