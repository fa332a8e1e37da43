"""Where a file's content lies: runs of blocks in order, from whichever kind of map the inode has.

Decides how far a map counts (not beyond the file's end), and joins neighbours. Knows no content.
"""

from __future__ import annotations

from collections.abc import Iterator

from backpoint_fusefs.guest.parsers.ext.blocks import Blocks
from backpoint_fusefs.guest.parsers.ext.checksum import crc32c
from backpoint_fusefs.guest.parsers.ext.extent_tree import ExtentTree
from backpoint_fusefs.guest.parsers.ext.indirect_map import IndirectMap
from backpoint_fusefs.guest.parsers.ext.inode import EXTENTS, Inode
from backpoint_fusefs.guest.parsers.ext.run import Run
from backpoint_fusefs.guest.parsers.ext.superblock import Superblock


def checksum_seed(superblock: Superblock, inode: Inode) -> int | None:
    """With which the inode's own blocks are checked; None where nothing is."""
    if not superblock.has_checksums:
        return None
    number, generation = inode.ino.to_bytes(4, "little"), inode.generation.to_bytes(4, "little")
    return crc32c(superblock.checksum_seed, number + generation)


def runs_of(blocks: Blocks, superblock: Superblock, inode: Inode) -> Iterator[Run]:
    """Of content that lies in blocks; what no run covers reads as zeros. Raises GuestDamaged."""
    end = -(-inode.size // blocks.size)
    if inode.flags & EXTENTS:
        found = ExtentTree(blocks, inode, checksum_seed(superblock, inode)).runs(end)
    else:
        found = IndirectMap(blocks, inode).runs(end)
    return _joined(found)


def _joined(runs: Iterator[Run]) -> Iterator[Run]:
    before: Run | None = None
    for run in runs:
        if before is None:
            before = run
        elif (before.logical + before.blocks, before.physical + before.blocks) == run[:2]:
            before = before._replace(blocks=before.blocks + run.blocks)
        else:
            yield before
            before = run
    if before is not None:
        yield before


def read_content(blocks: Blocks, runs: Iterator[Run], size: int) -> bytes:
    """All of a short content at once, such as a link's target or an attribute's value."""
    content = bytearray(size)
    for logical, physical, count in runs:
        at = logical * blocks.size
        length = min(count * blocks.size, size - at)
        content[at : at + length] = blocks.read_bytes(physical * blocks.size, length)
    return bytes(content)
