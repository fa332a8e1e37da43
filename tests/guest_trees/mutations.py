"""Damage and forgery for images of filesystems, drawn from a seed: flipped bits, cut ends, blocks
swapped, copied and emptied, counts without bound, pointers that lead back.

Decides where and what is changed: mostly blocks that look like metadata, mostly bytes that are in
use. Where a checksum guards the block, most changes are sealed again (seals.py), as a forger would.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from backpoint_fusefs.guest.filesystem import VolumeImage
from guest_trees.file_image import FileImage
from guest_trees.seals import seal

BLOCK: Final = 4096
# Of random bytes, and of text, fewer are zero; of inodes, directories and tree nodes many more.
_ZEROS_IN_METADATA: Final = 64
_HUGE: Final = (0xFFFFFFFF, 0x7FFFFFFF, 0xFFFF, 0xFFFFFFFFFFFFFFFF, 1 << 63, (1 << 62) - 1, 1 << 32)
_SEALED_SHARE: Final = 0.75


@dataclass(frozen=True)
class Mutation:
    """description: one line. patches: (offset, bytes there instead). size: of the image then."""

    description: str
    patches: tuple[tuple[int, bytes], ...]
    size: int

    def apply(self, path: Path) -> None:
        with path.open("r+b") as file:
            for offset, patch in self.patches:
                os.pwrite(file.fileno(), patch, offset)
            file.truncate(self.size)


class MutatedImage:
    """An image as it were with a mutation; nothing is written."""

    def __init__(self, image: VolumeImage, mutation: Mutation) -> None:
        self._image = image
        self._patches = mutation.patches
        self.size = mutation.size

    def read(self, offset: int, length: int) -> bytes:
        found = bytearray(self._image.read(offset, max(0, min(length, self.size - offset))))
        for at, patch in self._patches:
            first, last = max(at, offset), min(at + len(patch), offset + len(found))
            if first < last:
                found[first - offset : last - offset] = patch[first - at : last - at]
        return bytes(found)


def metadata_blocks(path: Path) -> list[int]:
    """Offsets of the blocks that look like metadata, in order. Data that was drawn does not."""
    found: list[int] = []
    with path.open("rb", buffering=0) as file:
        size, at = path.stat().st_size, 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                break  # a hole up to the end
            stop = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            for offset in range(at, stop, BLOCK):
                block = os.pread(file.fileno(), BLOCK, offset)
                if _ZEROS_IN_METADATA <= block.count(0) < len(block):
                    found.append(offset)
            at = max(stop, at + BLOCK)
    return found


def mutate(path: Path, seed: int, blocks: Sequence[int] | None = None) -> str:
    """Change the image in place; what was done, in a line. The same image and seed: the same."""
    image = FileImage(path)
    mutation = plan_mutation(image, metadata_blocks(path) if blocks is None else blocks, seed)
    image.close()
    mutation.apply(path)
    return mutation.description


def plan_mutation(image: VolumeImage, blocks: Sequence[int], seed: int) -> Mutation:
    """What `mutate` would do; blocks: of `metadata_blocks`, one at least."""
    drawn = _Draft(image, blocks, random.Random(seed))
    # Two equal blocks swapped are no change: try again.
    while not drawn.differs():
        for _ in range(drawn.chance.choice((1, 1, 1, 2, 4, 12))):
            drawn.chance.choice(_WAYS)(drawn)
    sealed = drawn.chance.random() < _SEALED_SHARE
    patches = drawn.changed
    if sealed:
        patches = {}
        for offset in drawn.changed:
            patches |= seal(drawn.block, drawn.read, offset)
    size = image.size
    words = drawn.words + (["sealed"] if sealed else [])
    if drawn.chance.random() < 0.05:
        size = drawn.chance.choice((drawn.pick() + 100, drawn.chance.randrange(size)))
        words.append(f"cut to {size}")
    return Mutation(", ".join(words), tuple(sorted(patches.items())), size)


class _Draft:
    """The blocks changed so far, and what was said of them."""

    def __init__(self, image: VolumeImage, blocks: Sequence[int], chance: random.Random) -> None:
        self._image = image
        self._blocks = blocks
        self.chance = chance
        self.changed: dict[int, bytes] = {}
        self.words: list[str] = []

    def differs(self) -> bool:
        """Whether any byte is another than before."""
        changed = self.changed.items()
        return any(self._image.read(at, len(block)) != block for at, block in changed)

    def read(self, offset: int, length: int) -> bytes:
        """As it is with the changes."""
        mutation = Mutation("", tuple(self.changed.items()), self._image.size)
        return MutatedImage(self._image, mutation).read(offset, length)

    def block(self, offset: int) -> bytes:
        return self.changed.get(offset) or self._image.read(offset, BLOCK)

    def pick(self) -> int:
        """A block; the first ones of the image, with what all depends on, more often."""
        first = max(1, len(self._blocks) // 50)
        return self.chance.choice(
            self._blocks[:first] if self.chance.random() < 0.15 else self._blocks
        )

    def place(self, block: bytes | bytearray, width: int) -> int:
        """An aligned place in a block, mostly one in use."""
        at = self.chance.randrange(len(block))
        if self.chance.random() < 0.8:
            used = [n for n, byte in enumerate(block) if byte]
            at = self.chance.choice(used) if used else at
        return min(at // width * width, len(block) - width)

    def change(self, offset: int, block: bytes | bytearray, word: str) -> None:
        self.changed[offset] = bytes(block)
        self.words.append(word)


def _flip(draft: _Draft) -> None:
    offset = draft.pick()
    block = bytearray(draft.block(offset))
    count = draft.chance.choice((1, 1, 2, 8, 40))
    for _ in range(count):
        block[draft.place(block, 1)] ^= 1 << draft.chance.randrange(8)
    draft.change(offset, block, f"{count} bits in {offset:#x}")


def _empty(draft: _Draft) -> None:
    offset = draft.pick()
    block = bytearray(draft.block(offset))
    start = draft.chance.choice((0, 0, 512, draft.chance.randrange(len(block))))
    block[start:] = bytes(len(block) - start)
    draft.change(offset, block, f"zeros from {offset + start:#x}")


def _swap(draft: _Draft) -> None:
    one, other = draft.pick(), draft.pick()
    first, second = draft.block(one), draft.block(other)
    if len(first) == len(second):
        draft.change(one, second, f"{one:#x} swapped")
        draft.change(other, first, f"with {other:#x}")


def _copy_over(draft: _Draft) -> None:
    """A folder or node in the place of another: loops."""
    source, target = draft.pick(), draft.pick()
    if len(draft.block(source)) == len(draft.block(target)):
        draft.change(target, draft.block(source), f"{source:#x} also at {target:#x}")


def _number(draft: _Draft) -> None:
    """A count, size or offset becomes huge, tiny, or a little wrong."""
    offset = draft.pick()
    block = bytearray(draft.block(offset))
    width = draft.chance.choice((1, 2, 4, 4, 8))
    at = draft.place(block, width)
    order: Literal["little", "big"] = "little" if draft.chance.random() < 0.5 else "big"
    before = int.from_bytes(block[at : at + width], order)
    value = draft.chance.choice((*_HUGE, 0, 1, before + 1, before - 1, before * 2, before // 2))
    block[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, order)
    draft.change(offset, block, f"{before:#x} to {value:#x} at {offset + at:#x}")


def _pointer(draft: _Draft) -> None:
    """A number from elsewhere: as a pointer it leads to what another leads to."""
    source, target = draft.pick(), draft.pick()
    if draft.chance.random() < 0.5:
        target = source
    width = draft.chance.choice((2, 4, 4, 8))
    block, other = bytearray(draft.block(target)), draft.block(source)
    start, at = draft.place(other, width), draft.place(block, width)
    block[at : at + width] = other[start : start + width]
    draft.change(target, block, f"{width} bytes from {source + start:#x} at {target + at:#x}")


_WAYS: Final[tuple[Callable[[_Draft], None], ...]] = (
    *(_flip, _flip, _number, _number, _number, _pointer, _pointer),
    *(_empty, _swap, _copy_over),
)
