"""Disks full of files such as guests have, and a day of work on them; all drawn from a seed.

Decides which files there are and what a day does to them. Knows nothing of their bytes (content.py)
nor of partitions (partition.py). Names keep to what FAT allows, so that every filesystem can hold
the same tree; links exist where the filesystem has them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from guest_disks.content import Content
from guest_disks.partition import Filesystem, PartitionTable, make_filesystem, mounted, write_table

_KIB = 1024
_PAGE = 4096
# 2026-01-01 00:00:00 UTC: files are as old in every run.
_FIRST_MOMENT = 1767225600
_DAY_S = 86400
# A hole of this length goes before and after the bytes of a sparse file.
_HOLE = 4 << 20


class _Kind(NamedTuple):
    """A sort of file: where it lies, how often it comes, and how long it is (bytes)."""

    name: str
    weight: int
    shortest: int
    longest: int
    content: Callable[[Content, int], bytes]


_KINDS = (
    _Kind("home/anna/docs/note{}.txt", 40, 200, 24 * _KIB, Content.text),
    _Kind("home/jörg/Entwürfe/Brief {}.txt", 15, 200, 12 * _KIB, Content.text),
    _Kind("usr/lib/module{}.so", 20, 4 * _KIB, 300 * _KIB, Content.program),
    _Kind("home/anna/pictures/{}.jpg", 12, 60 * _KIB, 900 * _KIB, Content.noise),
    _Kind("var/log/service{}.log", 8, 1 * _KIB, 400 * _KIB, Content.log),
    _Kind("srv/db/table{}.db", 4, 256 * _KIB, 4096 * _KIB, Content.database),
    _Kind("srv/archive/{}.zip", 1, 1024 * _KIB, 8192 * _KIB, Content.noise),
)


@dataclass(frozen=True)
class DayOfWork:
    """What a day did: the files it touched, and about how many bytes it wrote."""

    appended: tuple[str, ...]
    rewritten: tuple[str, ...]
    deleted: tuple[str, ...]
    added: tuple[str, ...]
    bytes_written: int


def build_data_disk(
    path: Path,
    size: int,
    *,
    seed: int,
    files_total_bytes: int,
    filesystem: Filesystem = "ext4",
    table: PartitionTable = "gpt",
) -> None:
    """Make `path` a raw disk of `size` bytes whose one partition holds about `files_total_bytes`.

    The tree is the same for the same seed and total. XFS needs 302 MiB, FAT 36 MiB at least.
    Raises RuntimeError with the words of the tool that failed.
    """
    write_table(path, size, filesystem, table, identity=seed)
    make_filesystem(path, filesystem, identity=seed, label=f"data{seed}"[:11])
    with mounted(path) as root:
        tree = _Tree(root, f"{seed}")
        written = tree.add("", files_total_bytes)
        tree.write("empty.txt", b"")
        tree.write_sparse("srv/sparse.img", 256 * _KIB)
        tree.write(f"{'long name ' * 20}.txt", b"a name of 204 characters\n")
        if filesystem != "fat":
            (root / "newest").symlink_to(written[-1])
            os.link(root / written[0], root / "second name of the first file")


def change_data_disk(path: Path, day: int, *, share: float = 0.02) -> DayOfWork:
    """Let a day pass on a data disk: logs grow, pages change in place, files go and come.

    About `share` of the bytes in files changes; `day` (1, 2, ...) decides how. Raises RuntimeError.
    """
    with mounted(path) as root:
        files = sorted(
            str(found.relative_to(root))
            for found in root.rglob("*")
            if found.is_file() and not found.is_symlink()
        )
        total = sum((root / name).stat().st_size for name in files)
        budget = int(total * share)
        tree = _Tree(root, f"day {day}", moment=_FIRST_MOMENT + day * _DAY_S)
        appended, grown = tree.append([n for n in files if n.endswith(".log")], budget // 5)
        rewritten, changed = tree.rewrite([n for n in files if n.endswith(".db")], budget * 2 // 5)
        deleted = tree.delete([n for n in files if n.endswith((".txt", ".jpg"))])
        added = tree.add(f"day{day}/", budget * 2 // 5)
        new = sum((root / name).stat().st_size for name in added)
    return DayOfWork(appended, rewritten, deleted, added, grown + changed + new)


class _Tree:
    """A folder being filled or changed; what comes next is drawn from the seed."""

    def __init__(self, root: Path, seed: str, moment: int = _FIRST_MOMENT) -> None:
        self._root = root
        self._random = random.Random(seed)
        self._content = Content(seed)
        self._moment = moment

    def write(self, name: str, content: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._date(path)

    def write_sparse(self, name: str, length: int) -> None:
        """A file that is a hole, `length` bytes of text, and a hole again."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.seek(_HOLE)
            file.write(self._content.text(length))
            file.truncate(2 * _HOLE + length)
        self._date(path)

    def add(self, folder: str, total: int) -> tuple[str, ...]:
        """Write new files of `total` bytes together under `folder`; their names."""
        names: list[str] = []
        left = total
        while left > 0:
            kind = self._random.choices(_KINDS, [kind.weight for kind in _KINDS])[0]
            # Squaring makes short files common and long ones rare.
            spread = int(self._random.random() ** 2 * (kind.longest - kind.shortest))
            length = min(left, kind.shortest + spread)
            name = folder + kind.name.format(len(names))
            self.write(name, kind.content(self._content, length))
            names.append(name)
            left -= length
        return tuple(names)

    def append(self, files: list[str], budget: int) -> tuple[tuple[str, ...], int]:
        chosen = self._some(files, 0.25)
        for name in chosen:
            with (self._root / name).open("ab") as file:
                file.write(self._content.log(max(1, budget // len(chosen))))
            self._date(self._root / name)
        return chosen, len(chosen) * max(1, budget // max(1, len(chosen)))

    def rewrite(self, files: list[str], budget: int) -> tuple[tuple[str, ...], int]:
        """Overwrite whole pages in place, here and there, as a database does."""
        chosen = self._some(files, 0.5)
        pages = max(1, budget // max(1, len(chosen)) // _PAGE)
        for name in chosen:
            with (self._root / name).open("r+b") as file:
                room = max(1, os.fstat(file.fileno()).st_size // _PAGE)
                for _ in range(pages):
                    file.seek(self._random.randrange(room) * _PAGE)
                    file.write(self._content.text(_PAGE))
            self._date(self._root / name)
        return chosen, len(chosen) * pages * _PAGE

    def delete(self, files: list[str]) -> tuple[str, ...]:
        chosen = self._some(files, 0.02)
        for name in chosen:
            (self._root / name).unlink()
        return chosen

    def _some(self, files: list[str], share: float) -> tuple[str, ...]:
        """A share of `files`, one at least; none of none."""
        count = min(len(files), max(1, round(len(files) * share)))
        return tuple(self._random.sample(files, count))

    def _date(self, path: Path) -> None:
        moment = self._moment + self._random.randrange(_DAY_S)
        os.utime(path, (moment, moment))
