"""Every file of NTFS is what ntfs-3g shows of it, however mkntfs laid it out."""

from __future__ import annotations

import contextlib
import os
import random
import stat
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import DECODED, HOLE, check_extents
from backpoint_fusefs.guest.parsers.open_filesystem import open_filesystem
from guest_disks.tool import run
from guest_trees.awkward import fill
from guest_trees.disks import abilities_of, make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import Seen, Tree, walk_folder, walk_parser

_MIB = 1 << 20
_COMPRESSED = 0x800
_PLAIN_FILE, _PIPE, _SOCKET = stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK


def _comparable(seen: Seen) -> Seen:
    """ntfs-3g invents modes, gives devices the size of what describes them, takes empty system
    files for pipes and those of one byte for sockets; and what it keeps of trusted attributes it
    never lists."""
    kind = stat.S_IFMT(seen.mode)
    xattrs = tuple(one for one in seen.xattrs if not one[0].startswith(b"user.ntfs-3g."))
    if kind in (_PIPE, _SOCKET):
        return replace(seen, mode=_PLAIN_FILE, content=b"", xattrs=xattrs)
    size = 0 if kind in (stat.S_IFCHR, stat.S_IFBLK) else seen.size
    return replace(seen, mode=kind, size=size, xattrs=xattrs)


def _comparable_tree(tree: Tree, pipes: set[bytes]) -> Tree:
    """pipes: where the driver shows a pipe or socket, and we an (almost) empty file."""
    return {
        path: replace(_comparable(seen), content=b"") if path in pipes else _comparable(seen)
        for path, seen in tree.items()
    }


def _assert_same(path: Path, *, pipes_differ: bool = True) -> Tree:
    with mounted_image(path, "ntfs", read_only=True) as top:
        expected = walk_folder(top)
    with closing(FileImage(path)) as image:
        found = walk_parser(open_filesystem(image, "ntfs"), image)
    special = (_PIPE, _SOCKET) if pipes_differ else ()
    pipes = {name for name, seen in expected.items() if stat.S_IFMT(seen.mode) in special}
    assert _comparable_tree(found, pipes) == _comparable_tree(expected, pipes)
    return found


def test_every_awkward_case(tmp_path: Path) -> None:
    """A tree of all cases, with a file of 500 names."""
    path = tmp_path / "image"
    make_image(path, "ntfs", 192 * _MIB)
    with mounted_image(path, "ntfs") as top:
        # ntfs-3g needs 20 s to read 5 GiB of zeros; they have a test of their own.
        fill(top, replace(abilities_of("ntfs"), big_sparse_size=0))
    assert _assert_same(path)[b"links/hard/first"].nlink == 500


def test_a_file_much_larger_than_the_volume(tmp_path: Path) -> None:
    """5 GiB with bytes at three places: few extents, and zeros between them."""
    path = tmp_path / "image"
    make_image(path, "ntfs", 16 * _MIB)
    places = {0: b"begin", 3_000_000_123: b"middle" * 1000, (5 << 30) - 3: b"end"}
    with mounted_image(path, "ntfs") as top, (top / "file").open("wb") as file:
        for offset, content in places.items():
            file.seek(offset)
            file.write(content)
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "ntfs")
        (entry,) = filesystem.entries(filesystem.root)
        found = filesystem.stat(entry.file)
        assert (found.size, found.allocated < 1 << 20) == (5 << 30, True)
        extents = check_extents(filesystem.extents(entry.file), 5 << 30, image.size)
        assert sum(extent.length for extent in extents if extent.at == HOLE) > 5_300_000_000
        for offset, content in places.items():
            assert filesystem.read(entry.file, offset, len(content)) == content
        assert not any(filesystem.read(entry.file, 2 << 30, 1 << 20))


@pytest.mark.parametrize(
    "options", [("-s", "512", "-c", "512"), ("-c", "65536"), ("-c", "2097152"), ("-s", "4096")]
)
def test_every_layout(tmp_path: Path, options: Sequence[str]) -> None:
    """Clusters smaller than a record and larger than a byte can count, records of 4 KiB."""
    path = tmp_path / "image"
    with path.open("xb") as image:
        image.truncate(96 * _MIB)
    run("mkfs.ntfs", "-q", "-F", "-f", *options, path)
    with mounted_image(path, "ntfs") as top:
        for name in ("content", "names"):
            (top / name).mkdir()
        for size in (0, 1, 300, 700, 3000, 5000, 70_000):
            (top / "content" / f"{size}").write_bytes(os.urandom(size))
        with (top / "content" / "sparse").open("wb") as file:
            file.seek(9_000_000)
            file.write(b"end")
        for number in range(300):
            (top / "names" / f"{number} {'n' * 60}").touch()
    _assert_same(path)


def test_compressed_content(tmp_path: Path) -> None:
    """Units that are compressed, stored, empty and cut by the end; and a compressed stream."""
    path = tmp_path / "image"
    make_image(path, "ntfs", 64 * _MIB)
    noise = random.Random(5)
    with mounted_image(path, "ntfs", options=["compression"]) as top:
        (top / "c").mkdir()
        os.setxattr(top / "c", "system.ntfs_attrib", _COMPRESSED.to_bytes(4, "little"))
        (top / "c" / "text").write_bytes(b"".join(b"%d\n" % n for n in range(200_000)))
        mixed = [noise.randbytes(200_000), bytes(300_000), b"x" * 100_001, noise.randbytes(70_000)]
        (top / "c" / "mixed").write_bytes(b"".join(mixed))
        (top / "c" / "small").write_bytes(b"ab" * 10)
        for size in (4095, 4096, 65_535, 65_536, 65_537):
            (top / "c" / f"{size}").write_bytes(b"compress " * (size // 9) + b"." * (size % 9))
        with (top / "c" / "sparse").open("wb") as file:
            file.seek(1_000_000)
            file.write(b"after a hole" * 1000)
            file.truncate(1_500_000)
        os.setxattr(top / "c" / "small", "user.stream", b"in a stream " * 4000)
    _assert_same(path)
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "ntfs")
        folder = {entry.name: entry.file for entry in filesystem.entries(filesystem.root)}[b"c"]
        files = {entry.name: entry.file for entry in filesystem.entries(folder)}
        kinds = {min(extent.at, 0) for extent in filesystem.extents(files[b"mixed"])}
        assert kinds == {0, HOLE, DECODED}


def test_a_master_file_table_in_many_pieces(tmp_path: Path) -> None:
    """On a full disk the table grows cluster by cluster, until its own list needs records."""
    path = tmp_path / "image"
    make_image(path, "ntfs", 8 * _MIB, ("-c", "512", "-z", "1"))
    with mounted_image(path, "ntfs") as top:
        written = []
        with contextlib.suppress(OSError):
            for number in range(10_000):
                written.append(top / f"f{number}")
                written[-1].write_bytes(b"f" * 1500)
        for file in written[::2]:
            file.unlink()
        with contextlib.suppress(OSError):
            for number in range(4_000):
                (top / f"later {number}").touch()
    assert "$ATTRIBUTE_LIST" in run("ntfsinfo", "--inode", "0", "--force", path)
    _assert_same(path)


def test_links_and_devices_as_wsl_writes_them(tmp_path: Path) -> None:
    """Reparse points of the Windows Subsystem for Linux, with device numbers in attributes."""
    path = tmp_path / "image"
    make_image(path, "ntfs", 16 * _MIB)
    with mounted_image(path, "ntfs", options=["special_files=wsl"]) as top:
        os.symlink("some/where else", top / "link")
        os.symlink("ü" * 900, top / "long link")
        os.mkfifo(top / "fifo")
        os.mknod(top / "socket", stat.S_IFSOCK | 0o644)
        os.mknod(top / "char", stat.S_IFCHR | 0o644, os.makedev(259, 70_000))
        os.mknod(top / "block", stat.S_IFBLK | 0o644, os.makedev(8, 1))
    found = _assert_same(path, pipes_differ=False)
    kinds = [stat.S_IFMT(found[name].mode) for name in (b"link", b"fifo", b"socket", b"char")]
    assert kinds == [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR]
    assert found[b"char"].rdev == os.makedev(259, 70_000)


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    """Half of a surrogate pair is a name to Windows."""
    path = tmp_path / "image"
    make_image(path, "ntfs", 16 * _MIB)
    names = {b"lone \xed\xa0\x80 high", b"low \xed\xb0\x80", "pair 😀".encode()}
    with mounted_image(path, "ntfs") as top:
        for name in names:
            with open(os.path.join(os.fsencode(top), name), "xb") as file:
                file.write(name)
    assert names < _assert_same(path).keys()


def test_modes_follow_the_read_only_attribute(tmp_path: Path) -> None:
    path = tmp_path / "image"
    make_image(path, "ntfs", 16 * _MIB)
    with mounted_image(path, "ntfs") as top:
        (top / "read-only").touch()
        os.setxattr(top / "read-only", "system.ntfs_attrib", (1).to_bytes(4, "little"))
        (top / "plain").touch()
        (top / "folder").mkdir()
        os.setxattr(top / "folder", "system.ntfs_attrib", (1).to_bytes(4, "little"))
    with closing(FileImage(path)) as image:
        found = walk_parser(open_filesystem(image, "ntfs"), image)
    modes = {name: (seen.mode, seen.uid, seen.gid) for name, seen in found.items()}
    assert modes == {
        b"": (0o40755, 0, 0),
        b"folder": (0o40755, 0, 0),
        b"plain": (0o100644, 0, 0),
        b"read-only": (0o100444, 0, 0),
    }


def test_a_crowded_folder(tmp_path: Path) -> None:
    """10,000 names in many blocks of index, a third removed."""
    path = tmp_path / "image"
    make_image(path, "ntfs", 64 * _MIB)
    with mounted_image(path, "ntfs") as top:
        names = [f"{number} and a rather long name" for number in range(10_000)]
        for name in names:
            (top / name).touch()
        for name in names[::3]:
            (top / name).unlink()
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "ntfs")
        entries = list(filesystem.entries(filesystem.root))
        found = {entry.name.decode() for entry in entries}
        assert found == set(names) - set(names[::3])
        assert None not in filesystem.stats([entry.file for entry in entries])
        # The whole of the index and of the table, in pieces of up to 1 MiB.
        assert image.reads < 60
