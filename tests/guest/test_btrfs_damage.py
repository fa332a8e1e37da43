"""A btrfs that is damaged, forged or of a kind we do not read: a sentence, never wrong content."""

from __future__ import annotations

import random
import re
import resource
import stat
import struct
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest
from dissect.util.hash import crc32c

from backpoint_fusefs.guest.filesystem import (
    FileId,
    GuestDamaged,
    GuestError,
    GuestUnsupported,
    check_extents,
)
from backpoint_fusefs.guest.parsers.btrfs.btrfs_filesystem import BtrfsFilesystem, open_btrfs
from backpoint_fusefs.guest.parsers.btrfs.checksum import checksum_of
from guest_disks.tool import run
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import walk_parser

_MIB = 1 << 20
_SUPERBLOCK = 64 << 10
_FSID, _INCOMPATIBLE = 32, 188
_NODE = 4096
_HEADER = 101
_RUNS = 100
_NODE_HEADER = struct.Struct("<48xQ32xQ4xB")
_TOP_TREE = 5
_DUMPED = re.compile(r"^(?:leaf|node) (\d+) ", re.MULTILINE)


class Node(NamedTuple):
    """address: its own; at: where on the volume it is. owner: the tree that wrote it."""

    address: int
    at: int
    level: int
    owner: int


class PatchedImage(FileImage):
    """Some blocks are not what the file has."""

    def __init__(self, path: Path, blocks: dict[int, bytes]) -> None:
        super().__init__(path)
        self._blocks = blocks
        self.read_at: set[int] = set()

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(super().read(offset, length))
        self.read_at.update(range(offset - offset % _NODE, offset + length, _NODE))
        for at, block in self._blocks.items():
            start, end = max(at, offset), min(at + len(block), offset + len(data))
            if start < end:
                data[start - offset : end - offset] = block[start - at : end - at]
        return bytes(data)


def _sealed(block: bytes) -> bytes:
    """With the checksum that its content has."""
    value: int = crc32c.crc32c(block[32:])
    return value.to_bytes(4, "little") + block[4:]


def _fill(top: Path) -> None:
    chance = random.Random(3)
    run("btrfs", "subvolume", "create", top / "inner")
    for folder in (top, top / "inner"):
        for number in range(150):
            (folder / f"file {number}").write_bytes(b"text " * chance.randrange(900))
        (folder / "link").symlink_to("file 1")
        run("setfattr", "-n", "user.name", "-v", "value", folder / "file 1")
        with (folder / "parts").open("wb") as file:
            for number in range(100):
                file.seek(number * 12_288)
                file.write(chance.randbytes(4096))
    run("btrfs", "subvolume", "snapshot", top / "inner", top / "snapshot")
    # Long names fill the leaves, so that there is a third level of nodes.
    (top / "names").mkdir()
    for number in range(400):
        (top / "names" / f"{number}{'n' * 245}").touch()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small nodes, one copy of each: trees of several levels, and damage that cannot be undone."""
    path = tmp_path_factory.mktemp("btrfs") / "image"
    make_image(path, "btrfs", 128 * _MIB, ["-n", str(_NODE), "-m", "single"])
    with mounted_image(path, "btrfs", options=["compress=zstd"]) as top:
        _fill(top)
    return path


@pytest.fixture(scope="module")
def nodes(disk: Path) -> list[Node]:
    """All that a walk needs: reads also touch what lies between, remains of older trees."""
    with closing(PatchedImage(disk, {})) as image:
        filesystem = open_btrfs(image)
        walk_parser(filesystem, image)
        filesystem.subvolumes()
        places = sorted(image.read_at)
    used = {int(found) for found in _DUMPED.findall(run("btrfs", "inspect", "dump-tree", disk))}
    return [node for node in _nodes_at(disk, places) if node.address in used]


def _nodes_at(disk: Path, places: list[int]) -> Iterator[Node]:
    fsid = _block(disk, _SUPERBLOCK)[_FSID : _FSID + 16]
    for at in places:
        block = _block(disk, at)
        if at != _SUPERBLOCK and block[_FSID : _FSID + 16] == fsid:
            address, owner, level = _NODE_HEADER.unpack_from(block)
            yield Node(address, at, level, owner)


def _block(disk: Path, at: int) -> bytes:
    with disk.open("rb") as file:
        file.seek(at)
        return file.read(_NODE)


def _look_at_all(filesystem: BtrfsFilesystem, image: FileImage) -> int:
    """Everything of up to 2,000 files; how many raised GuestError. Folders may be loops."""
    refused = 0
    waiting, seen = [filesystem.root], {filesystem.root}
    while waiting and len(seen) < 2_000:
        file = waiting.pop()
        try:
            children = _look_at(filesystem, file, image)
        except GuestError:
            refused += 1
            continue
        fresh = set(children) - seen
        seen |= fresh
        waiting += fresh
    try:
        filesystem.subvolumes()
    except GuestError:
        refused += 1
    return refused


def _look_at(filesystem: BtrfsFilesystem, file: FileId, image: FileImage) -> list[FileId]:
    found = filesystem.stat(file)
    filesystem.xattrs(file)
    if stat.S_ISLNK(found.mode):
        filesystem.readlink(file)
    elif stat.S_ISREG(found.mode):
        check_extents(filesystem.extents(file), found.size, image.size)
        length = min(found.size, _MIB)
        assert len(filesystem.read(file, 0, length)) == length
    elif stat.S_ISDIR(found.mode):
        children = [entry.file for entry in islice(filesystem.entries(file), 3_000)]
        assert len(filesystem.stats(children)) == len(children)
        return children
    return []


def _mutated(block: bytes, chance: random.Random) -> bytes:
    """Some bits or fields of a node changed, mostly in its header, its table and its items."""
    changed = bytearray(block)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.choice((chance.randrange(48, 400), chance.randrange(48, len(block) - 8)))
        how = chance.randrange(4)
        if how == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            changed[at] = chance.randrange(256)
        elif how == 2:
            changed[at : at + 8] = chance.choice((b"\xff" * 8, bytes(8), b"\xff" * 7 + b"\x7f"))
        else:
            source = chance.randrange(48, len(block) - 33)
            changed[at : at + 25] = block[source : source + 25]
    return bytes(changed[: len(block)])


def test_fuzzed_metadata(disk: Path, nodes: list[Node]) -> None:
    """Whatever bytes the nodes have, only GuestError is raised; memory stays bounded."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for seed in range(_RUNS):
        chance = random.Random(seed)
        blocks: dict[int, bytes] = {}
        for node in chance.sample(nodes, chance.choice((1, 1, 3, 10))):
            block = _mutated(_block(disk, node.at), chance)
            blocks[node.at] = _sealed(block) if seed % 2 else block
        with closing(PatchedImage(disk, blocks)) as image:
            try:
                refused += bool(_look_at_all(open_btrfs(image), image))
            except GuestError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"the seed {seed}") from error
    assert refused > _RUNS // 3
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 200 << 10


def test_fuzzed_superblock(disk: Path) -> None:
    """The same of the superblock, its checksum made right."""
    for seed in range(_RUNS):
        chance = random.Random(seed)
        block = _sealed(_mutated(_block(disk, _SUPERBLOCK), chance))
        with closing(PatchedImage(disk, {_SUPERBLOCK: block})) as image:
            try:
                open_btrfs(image)
            except GuestError:
                continue
            except Exception as error:
                raise AssertionError(f"the seed {seed}") from error


def test_one_flipped_bit_is_never_content(disk: Path, nodes: list[Node]) -> None:
    """A node whose checksum is wrong is not used: its files are refused, the others the same."""
    with closing(FileImage(disk)) as image:
        whole = walk_parser(open_btrfs(image), image)
    leaf = next(node for node in nodes if (node.owner, node.level) == (_TOP_TREE, 0))
    block = bytearray(_block(disk, leaf.at))
    block[-1] ^= 1
    with closing(PatchedImage(disk, {leaf.at: bytes(block)})) as image:
        filesystem = open_btrfs(image)
        with pytest.raises(GuestDamaged, match="checksum"):
            walk_parser(filesystem, image)
        assert _look_at_all(filesystem, image) > 0
    assert len(whole) > 400


@pytest.mark.parametrize("size", [4096, 16384, 65536])
def test_checksums_of_many_at_once(size: int) -> None:
    """Together or alone, the same blocks are found wrong."""
    chance = random.Random(size)
    checksum = checksum_of(0)
    blocks = [_sealed(chance.randbytes(size)) for _ in range(9)]
    assert checksum.hold(blocks) == [True] * 9
    for place in (0, 3, 32, 35, 36, size - 1):
        damaged = bytearray(blocks[4])
        damaged[place] ^= 0x80
        blocks[4] = bytes(damaged)
        assert checksum.hold(blocks) == [checksum.holds(block) for block in blocks]
        assert not checksum.holds(blocks[4])


def test_a_node_below_itself(disk: Path, nodes: list[Node]) -> None:
    """A loop in a tree ends at once: levels must fall."""
    top = max(nodes, key=lambda node: node.level)
    assert top.level == 2
    block = bytearray(_block(disk, top.at))
    struct.pack_into("<Q", block, _HEADER + 17, top.address)
    with (
        closing(PatchedImage(disk, {top.at: _sealed(bytes(block))})) as image,
        pytest.raises(GuestDamaged, match="does not fit"),
    ):
        walk_parser(open_btrfs(image), image)


def test_an_exchanged_node(disk: Path, nodes: list[Node]) -> None:
    """A sound node in the place of another is not taken for it."""
    leaves = [node for node in nodes if (node.owner, node.level) == (_TOP_TREE, 0)]
    first, second = leaves[:2]
    with closing(PatchedImage(disk, {first.at: _block(disk, second.at)})) as image:
        assert _look_at_all(open_btrfs(image), image) > 0


def test_the_other_copy_is_read(tmp_path: Path) -> None:
    """With DUP metadata, damage to one copy of every node changes nothing."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 128 * _MIB, ["-n", str(_NODE), "-m", "dup"])
    with mounted_image(path, "btrfs") as top:
        _fill(top)
    with closing(PatchedImage(path, {})) as image:
        whole = walk_parser(open_btrfs(image), image)
        damaged = {node.at: bytes(_NODE) for node in _nodes_at(path, sorted(image.read_at))}
    assert len(damaged) > 20
    with closing(PatchedImage(path, damaged)) as image:
        assert walk_parser(open_btrfs(image), image) == whole


@pytest.mark.parametrize(("bit", "said"), [(12, "zoned"), (14, "raid-stripe-tree"), (40, "bit 40")])
def test_unknown_features_are_named(disk: Path, bit: int, said: str) -> None:
    """Features that change where bytes lie, and those of the future."""
    block = bytearray(_block(disk, _SUPERBLOCK))
    (flags,) = struct.unpack_from("<Q", block, _INCOMPATIBLE)
    struct.pack_into("<Q", block, _INCOMPATIBLE, flags | 1 << bit)
    with (
        closing(PatchedImage(disk, {_SUPERBLOCK: _sealed(bytes(block))})) as image,
        pytest.raises(GuestUnsupported, match=said),
    ):
        open_btrfs(image)
