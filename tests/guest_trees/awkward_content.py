"""Files whose bytes lie awkwardly: odd sizes, holes, fragments, space reserved but never written.

Decides sizes and patterns of writing. Where the bytes end up, only the driver knows.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from guest_trees.abilities import Abilities
from guest_trees.writeback import write_back

_KIB, _MIB = 1 << 10, 1 << 20
_EDGES = (1, 60, 156, 512, 1024, 2048, 4096, 65_536, _MIB)
# Enough for an extent tree of two levels on ext4 with 4 KiB blocks: 340 extents fill a block.
_FRAGMENTS = 360


def fill_content(folder: Path, abilities: Abilities, chance: random.Random) -> None:
    """Sizes, sparse, fragmented, reserved, rewritten and removed files."""
    for size in sorted({edge + step for edge in _EDGES for step in (-1, 0, 1)}):
        (folder / f"size {size}").write_bytes(chance.randbytes(size))
    _fragmented(folder, chance)
    _rewritten(folder, chance)
    _removed(folder, chance)
    _compressible(folder)
    if abilities.sparse:
        _sparse(folder, chance)
        if abilities.big_sparse_size:
            _big_sparse(folder / "big sparse", abilities.big_sparse_size, chance)
    if abilities.unwritten:
        _unwritten(folder, chance)


def _fragmented(folder: Path, chance: random.Random) -> None:
    """Two files that take turns: each block of one is followed by a block of the other."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [os.open(folder / f"fragmented {n}", flags, 0o644) for n in (1, 2)]
    for turn in range(_FRAGMENTS):
        for file in files:
            os.write(file, chance.randbytes(4096))
            if turn % 3 == 0:
                os.fdatasync(file)
    for file in files:
        os.close(file)


def _rewritten(folder: Path, chance: random.Random) -> None:
    shrunk = folder / "shrunk"
    shrunk.write_bytes(chance.randbytes(300_000))
    write_back(folder)
    os.truncate(shrunk, 5_000)
    emptied = folder / "emptied"
    emptied.write_bytes(chance.randbytes(100_000))
    write_back(folder)
    os.truncate(emptied, 0)
    # The bytes cut off must read as zeros once the file is long again.
    extended = folder / "cut and extended"
    extended.write_bytes(chance.randbytes(10_000))
    write_back(folder)
    os.truncate(extended, 1_000)
    os.truncate(extended, 9_000)
    rewritten = folder / "rewritten"
    rewritten.write_bytes(chance.randbytes(500_000))
    write_back(folder)
    with rewritten.open("r+b") as file:
        for _ in range(20):
            file.seek(chance.randrange(490_000))
            file.write(chance.randbytes(chance.randrange(1, 9_000)))


def _removed(folder: Path, chance: random.Random) -> None:
    """Files and folders that were there and are gone: nobody may see them again."""
    below = folder / "removed folder"
    below.mkdir()
    for number in range(20):
        (folder / f"removed {number}").write_bytes(chance.randbytes(3_000))
        (below / f"{number}").write_bytes(b"gone")
    write_back(folder)
    for number in range(20):
        (folder / f"removed {number}").unlink()
        (below / f"{number}").unlink()
    below.rmdir()


def _compressible(folder: Path) -> None:
    """Where the filesystem compresses, it will want these; one is mixed with noise."""
    line = b"the same line again and again, as logs have it\n"
    (folder / "compressible").write_bytes(line * 20_000)
    (folder / "zeros").write_bytes(bytes(200_000))
    (folder / "compressible in part").write_bytes(
        b"".join(line * 3_000 + random.Random(n).randbytes(140_000) for n in range(4))
    )


def _sparse(folder: Path, chance: random.Random) -> None:
    _holes(folder / "hole at the begin", 300_000, {280_000: 20_000}, chance)
    _holes(folder / "hole in the middle", 300_000, {0: 10_000, 270_000: 30_000}, chance)
    _holes(folder / "hole at the end", 300_000, {0: 10_000}, chance)
    _holes(folder / "only a hole", 1_000_003, {}, chance)
    _holes(folder / "hole of odd length", 70_001, {0: 1, 65_537: 3}, chance)
    pieces = {at * 8 * _KIB: 4 * _KIB for at in range(_FRAGMENTS)}
    _holes(folder / "comb", _FRAGMENTS * 8 * _KIB, pieces, chance)


def _holes(path: Path, size: int, written: dict[int, int], chance: random.Random) -> None:
    with path.open("xb") as file:
        for offset, length in written.items():
            file.seek(offset)
            file.write(chance.randbytes(length))
        file.truncate(size)


def _big_sparse(path: Path, size: int, chance: random.Random) -> None:
    begin, middle, end = 0, size // 2 + 123, size - 7_000
    _holes(path, size, {begin: 5_000, middle: 70_000, end: 7_000}, chance)
    if path.stat().st_blocks * 512 > size // 8:
        raise RuntimeError(f"{path} should be sparse and takes {path.stat().st_blocks} sectors")


def _unwritten(folder: Path, chance: random.Random) -> None:
    """Reserved space reads as zeros, whatever the disk has there; some of it written later."""
    for name, length in (("reserved", 200_000), ("reserved and written", 2 * _MIB)):
        with (folder / name).open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, length)
    with (folder / "reserved and written").open("r+b") as file:
        for offset in (0, 100_000, 1_000_000, 2 * _MIB - 5):
            file.seek(offset)
            file.write(chance.randbytes(min(10_000, 2 * _MIB - offset)))
