"""Bytes that resemble a guest's: real files, log text, half-compressible records, noise.

Decides what is in a generated tree and a day's change, from a seed alone; knows no filesystem
image and no tool. Sizes are bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

REAL_ROOTS = (Path("/usr/lib"), Path("/usr/share"))
# What the machine's own programs do not give is made: a third each of text, records and noise.
REAL_SHARE = 0.7
MIB = 1 << 20


def noise(rng: np.random.Generator, size: int) -> bytes:
    """Incompressible bytes, as media and archives are."""
    return rng.bytes(size)


def records(rng: np.random.Generator, size: int) -> bytes:
    """Bytes of about 4 bits of entropy each: zstd halves them, as it does database pages."""
    packed = np.frombuffer(rng.bytes(size), dtype=np.uint8)
    return (packed & 0x0F).tobytes()


def text(rng: np.random.Generator, size: int) -> bytes:
    """Lines of words with skewed frequencies, as logs have."""
    lexicon = np.random.default_rng(7).integers(97, 123, size=(4096, 9), dtype=np.uint8)
    words = [bytes(row[: 2 + number % 8]) for number, row in enumerate(lexicon)]
    picked = (rng.random(size // 3 + 1) ** 3 * len(words)).astype(np.int64)
    return b" ".join(map(words.__getitem__, picked.tolist()))[:size].replace(b" a", b"\na")


MAKERS = (text, records, noise)


def real_files(limit: int) -> Iterator[tuple[Path, int]]:
    """Regular files below REAL_ROOTS in path order with their sizes, up to `limit` bytes in all."""
    left = limit
    for root in REAL_ROOTS:
        for folder, subfolders, names in os.walk(root):
            subfolders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_symlink() or not path.is_file():
                    continue
                size = path.stat().st_size
                # One file must not be most of a small disk.
                if size <= left and size <= limit // 10:
                    left -= size
                    yield path, size


def make_tree(folder: Path, data_size: int, seed: int) -> None:
    """Fill `folder` with about `data_size` bytes of files."""
    rng = np.random.default_rng(seed)
    left = data_size
    for path, size in real_files(int(data_size * REAL_SHARE)):
        target = folder / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        left -= size
    number = 0
    while left > 0:
        size = min(left, int(rng.integers(4096, 4 * MIB)))
        made = folder / "srv" / f"{number % 50:02d}" / f"{number:06d}"
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(MAKERS[number % 3](rng, size))
        left -= size
        number += 1


def change_tree(folder: Path, day: int, new_bytes: int, appended: int, seed: int) -> None:
    """A day's work in a mounted tree: new random files, and a few lines more on existing ones."""
    rng = np.random.default_rng([seed, day])
    fresh = folder / "srv" / f"day{day}"
    fresh.mkdir(parents=True)
    parts = 8
    for number in range(parts):
        (fresh / f"{number}.bin").write_bytes(noise(rng, new_bytes // parts))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    for index in rng.choice(len(files), min(appended, len(files)), replace=False):
        with files[int(index)].open("ab") as file:
            file.write(text(rng, int(rng.integers(100, 20_000))))
