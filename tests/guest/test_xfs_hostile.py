"""Forged and damaged XFS: GuestErrors only, within bounds, never other content than was there."""

from __future__ import annotations

import os
import random
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from backpoint_fusefs.guest.filesystem import (
    FileId,
    GuestDamaged,
    GuestError,
    GuestFilesystem,
    GuestUnsupported,
    check_extents,
)
from backpoint_fusefs.guest.parsers.crc32c_rows import crc32c_of_rows
from backpoint_fusefs.guest.parsers.xfs.xfs_filesystem import open_xfs
from guest_disks.tool import run
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage

_MIB = 1 << 20
_SEEDS = range(40)
_CRC_OFFSETS = {b"XDB3": 4, b"XDD3": 4, b"BMA3": 64, b"XARM": 12, b"XSLM": 12}
_View = dict[tuple[int, str], object]
"""(inode, what was asked) -> what was answered."""


class _Image:
    """A volume of which some bytes are replaced. reads: spans, in the order they were read."""

    def __init__(self, path: Path, replaced: dict[int, bytes] | None = None) -> None:
        self._file = FileImage(path)
        self._replaced = replaced or {}
        self.size = self._file.size
        self.reads: list[tuple[int, int]] = []
        self.bytes_left = 256 * _MIB

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(self._file.read(offset, min(length, self.size - offset)))
        for at, new in self._replaced.items():
            first, end = max(at, offset), min(at + len(new), offset + len(data))
            if first < end:
                data[first - offset : end - offset] = new[first - at : end - at]
        self.reads.append((offset, len(data)))
        self.bytes_left -= len(data)
        assert self.bytes_left > 0, "the parser reads without end"
        assert len(self.reads) < 20_000, "the parser reads without end"
        return bytes(data)

    def close(self) -> None:
        self._file.close()


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 5, one of each structure."""
    image = tmp_path_factory.mktemp("sealed") / "image"
    make_image(image, "xfs", 310 * _MIB)
    with mounted_image(image, "xfs") as root:
        _fill(root)
    return image


@pytest.fixture(scope="module")
def unsealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 4, which has no checksums: folders with a map in a tree, attributes with nodes."""
    folder = tmp_path_factory.mktemp("unsealed")
    (folder / "content").write_bytes(bytes(40_000))
    crowd = [f"{'name' * 30}-{number} ---644 0 0 {folder}/content" for number in range(800)]
    lines = ["/", "0 0", "d--755 0 0", "crowded d--755 0 0", *crowd, "$"]
    lines += [f"file ---644 0 0 {folder}/content", f"link l--777 0 0 {'far/' * 200}", "$", "$"]
    (folder / "list").write_text("\n".join([*lines, ""]))
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(310 * _MIB)
    run("mkfs.xfs", "-q", "-f", "-m", "crc=0", "-p", folder / "list", image)
    # The large one first: xfs_db 6.1 crashes when small ones are there already.
    commands = ["path /file", "attr_set -v 9000 large"]
    commands += [f"attr_set -v 20 {'n' * 100}-{number}" for number in range(90)]
    run("xfs_db", "-x", *(word for one in commands for word in ("-c", one)), image)
    return image


@pytest.mark.parametrize("seed", _SEEDS)
def test_damage_is_never_shown_as_content(sealed: Path, seed: int) -> None:
    """Where metadata has changed below its checksum, what is shown still is what was there."""
    before = _seen(_Image(sealed))
    after = _seen(_Image(sealed, _mutation(sealed, seed, lambda block: block)))
    assert {key: before[key] for key in after} == after


@pytest.mark.parametrize("seed", _SEEDS)
def test_forged_metadata_ends_in_bounds(sealed: Path, seed: int) -> None:
    """As the test above, with the checksums made right again."""
    _seen(_Image(sealed, _mutation(sealed, seed, _resealed)))


@pytest.mark.parametrize("seed", _SEEDS)
def test_forged_metadata_of_version_4_ends_in_bounds(unsealed: Path, seed: int) -> None:
    """No checksum, no owner and no place protects these blocks."""
    _seen(_Image(unsealed, _mutation(unsealed, seed, lambda block: block)))


@pytest.mark.parametrize("size", [0, 3, 511, 512, 5_000, _MIB, 309 * _MIB])
def test_a_cut_volume_is_damage(sealed: Path, size: int) -> None:
    """Wherever it ends."""
    image = _Image(sealed)
    image.size = size
    with closing(image), pytest.raises(GuestDamaged):
        open_xfs(image)


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        (1 << 9, GuestUnsupported, "zoned"),
        (1 << 30, GuestUnsupported, "bit 30"),
        (1 << 4, GuestDamaged, "xfs_repair"),
    ],
)
def test_features_that_change_the_format_are_refused(
    sealed: Path, flags: int, error: type[GuestError], words: str
) -> None:
    """By name where they have one."""
    with closing(_Image(sealed)) as image:
        block = bytearray(image.read(0, 512))
    block[216:220] = (int.from_bytes(block[216:220], "big") | flags).to_bytes(4, "big")
    forged = _Image(sealed, {0: _resealed(bytes(block))})
    with closing(forged), pytest.raises(error, match=words):
        open_xfs(forged)


def test_a_realtime_file_has_no_content_here(sealed: Path) -> None:
    """Its blocks are counted on another device: read here, they would be some other file's."""
    at, inode = _inode(sealed, b"file")
    inode[90:92] = (1).to_bytes(2, "big")
    with closing(_Image(sealed, {at: _resealed(bytes(inode))})) as image:
        filesystem = open_xfs(image)
        file = _file(filesystem, b"file")
        assert filesystem.stat(file).size == 9
        with pytest.raises(GuestUnsupported, match="realtime"):
            list(filesystem.extents(file))
        with pytest.raises(GuestUnsupported, match="realtime"):
            filesystem.read(file, 0, 1)


@pytest.mark.parametrize(("flag", "expected"), [(0x80, {}), (0x08, {}), (0x04, {b"security.mine"})])
def test_attributes_not_for_guests_are_not_shown(
    sealed: Path, flag: int, expected: dict[bytes, bytes] | set[bytes]
) -> None:
    """Half written ones and parent pointers are hidden, others shown by their namespace."""
    at, inode = _inode(sealed, b"file")
    inode[inode.index(b"minevalue") - 1] = flag
    with closing(_Image(sealed, {at: _resealed(bytes(inode))})) as image:
        filesystem = open_xfs(image)
        assert set(filesystem.xattrs(_file(filesystem, b"file"))) == set(expected)


def test_an_extent_tree_that_leads_back_is_damage(sealed: Path) -> None:
    """Two pointers to the same block, in the root within the inode."""
    at, inode = _inode(sealed, b"fragmented")
    fork_size = inode[82] * 8 or len(inode) - 176
    pointers = 176 + 4 + (fork_size - 4) // 16 * 8
    inode[pointers + 8 : pointers + 16] = inode[pointers : pointers + 8]
    with closing(_Image(sealed, {at: _resealed(bytes(inode))})) as image:
        filesystem = open_xfs(image)
        with pytest.raises(GuestDamaged, match="extent tree"):
            list(filesystem.extents(_file(filesystem, b"fragmented")))


def test_attribute_leaves_that_lead_back_are_damage(unsealed: Path) -> None:
    """The second leaf names the first as its next."""
    with closing(_Image(unsealed)) as image:
        filesystem = open_xfs(image)
        file = _file(filesystem, b"file")
        image.reads.clear()
        assert len(filesystem.xattrs(file)) == 91
        spans = [span for span in image.reads if span[1] == 4096]
        blocks = {at: image.read(at, 4096) for at, _ in spans}
    leaves = [at for at, block in blocks.items() if block[8:10] == b"\xfb\xee"]
    assert len(leaves) > 1
    following = blocks[leaves[0]][:4]
    with closing(_Image(unsealed, {leaves[1]: following})) as image:
        filesystem = open_xfs(image)
        with pytest.raises(GuestDamaged, match="attributes"):
            filesystem.xattrs(_file(filesystem, b"file"))


def _fill(root: Path) -> None:
    (root / "file").write_bytes(b"something")
    os.setxattr(root / "file", "user.mine", b"value")
    (root / "small").mkdir()
    os.link(root / "file", root / "small" / "again")
    for folder, count in (("one block", 20), ("blocks", 400)):
        (root / folder).mkdir()
        for number in range(count):
            os.link(root / "file", root / folder / f"{number} {'long ' * (number % 40)}")
    with (root / "fragmented").open("wb") as file:
        for number in range(700):
            file.seek(number * 8192)
            file.write(bytes([number % 256]) * 4096)
    (root / "attributes").touch()
    for number in range(120):
        os.setxattr(root / "attributes", f"user.{'n' * 50} {number}", bytes(number))
    os.setxattr(root / "attributes", "user.large", bytes(10_000))
    (root / "link").symlink_to("file")
    (root / "long link").symlink_to("far/" * 200)
    run("setfacl", "-m", "u:5:rwx", root / "blocks")


def _seen(image: _Image, without: str = "") -> _View:
    """Everything that can be asked; what raises GuestError is left out, all else is a failure."""
    view: _View = {}
    with closing(image):
        try:
            filesystem = open_xfs(image)
        except GuestError:
            return view
        waiting = [filesystem.root]
        while waiting and len(view) < 5_000:
            file = waiting.pop()
            if (file.ino, "stat") in view:
                continue
            for what, answer in _questions(filesystem, image, file):
                if what != without:
                    with suppress(GuestError):
                        view[file.ino, what] = answer()
            for _, child in view.get((file.ino, "entries"), ()):  # type: ignore[attr-defined]
                waiting.append(child)
    return view


def _questions(
    filesystem: GuestFilesystem, image: _Image, file: FileId
) -> Iterator[tuple[str, Callable[[], object]]]:
    try:
        found = filesystem.stat(file)
    except GuestError:
        return
    yield "stat", lambda: filesystem.stats([file, found.file])
    yield "xattrs", lambda: dict(filesystem.xattrs(file))
    if stat.S_ISDIR(found.mode):
        yield "entries", lambda: list(filesystem.entries(file))
    if stat.S_ISLNK(found.mode):
        yield "target", lambda: filesystem.readlink(file)
    if stat.S_ISREG(found.mode):
        yield "extents", lambda: check_extents(filesystem.extents(file), found.size, image.size)
        yield "middle", lambda: filesystem.read(file, found.size // 2, 10_000)


def _mutation(path: Path, seed: int, seal: Callable[[bytes], bytes]) -> dict[int, bytes]:
    """One to three fields changed in one block of metadata that a walk reads."""
    chance = random.Random(seed)
    with closing(_Image(path)) as image:
        _seen(image, without="middle")
        spans = sorted(set(image.reads))
    with closing(_Image(path)) as image:
        # Of the log's many blocks a few will do.
        spans = [
            (at, length)
            for at, length in spans
            if length != 512 or image.read(at, 2) in (b"IN", b"XF") or chance.random() < 0.1
        ]
        at, length = chance.choice(spans)
        if length > 4096 or (at // 512) % 8 or length == 512:
            # Inodes are read together, names too.
            size = 512 if image.read(at, 2) == b"IN" else 4096
            at += chance.randrange(length // size or 1) * size
            length = size
        block = bytearray(image.read(at, length))
    for _ in range(chance.choice((1, 1, 2, 3))):
        width = chance.choice((1, 1, 2, 4, 8))
        end = chance.choice((16, 128, 256, len(block)))
        place = chance.randrange(0, min(end, len(block)) - width + 1)
        other = chance.randrange(0, len(block) - width + 1)
        block[place : place + width] = chance.choice(
            (
                bytes(width),
                b"\xff" * width,
                b"\x7f" + b"\xff" * (width - 1),
                bytes(width - 1) + b"\x01",
                chance.randbytes(width),
                block[other : other + width],
                bytes([block[place] ^ 1 << chance.randrange(8)]) + block[place + 1 : place + width],
            )
        )
    return {at: seal(bytes(block))}


def _resealed(block: bytes) -> bytes:
    """With the checksum that its content ought to have, if it is of a kind that has one."""
    if block.startswith(b"IN"):
        offset = 100
    elif block.startswith(b"XFSB"):
        offset = 224
    elif block[8:10] in (b"\x3b\xee", b"\x3e\xbe"):
        offset = 12
    elif block[:4] in _CRC_OFFSETS:
        offset = _CRC_OFFSETS[block[:4]]
    else:
        return block
    blank = block[:offset] + bytes(4) + block[offset + 4 :]
    crc = int(crc32c_of_rows(np.frombuffer(blank, np.uint8).reshape(1, -1).copy())[0])
    return block[:offset] + struct.pack("<I", crc) + block[offset + 4 :]


def _inode(path: Path, name: bytes) -> tuple[int, bytearray]:
    """Where a file of the root lies, and its bytes."""
    with closing(_Image(path)) as image:
        filesystem = open_xfs(image)
        file = _file(filesystem, name)
        image.reads.clear()
        filesystem.stat(file)
        at, length = image.reads[-1]
        return at, bytearray(image.read(at, length))


def _file(filesystem: GuestFilesystem, name: bytes) -> FileId:
    return next(one.file for one in filesystem.entries(filesystem.root) if one.name == name)
