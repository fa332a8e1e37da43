"""Can the guest's files be reached? Every volume lists, and some files of each, drawn by lot, read.

Decides how far a walk goes and how files are drawn: the walk is bounded, so that a guest of a
hundred million files takes no night, and what was not looked at is said. A volume that cannot be
read fails the proof, unless it holds no filesystem that this program reads: that is a note.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from backpoint_fusefs.guest.file_pieces import read_pieces
from backpoint_fusefs.guest.guest_tree import Found, GuestTree, shown
from backpoint_fusefs.guest.parser_pool import ParserPool
from backpoint_fusefs.guest.parsers.layout.unread_kinds import UNREAD
from backpoint_fusefs.guest.point_guest import UNREADABLE, PointGuest
from backpoint_fusefs.guest.tree_walk import TreeWalk
from backpoint_fusefs.guest.volume import Volume
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository

_CACHE_BYTES: Final = 128 << 20
_ENTRIES_MAX: Final = 50_000
"""Of each volume."""
_BYTES_MAX: Final = 64 << 20
"""Read of one file."""
_TOLD_MAX: Final = 20
_INCOMPLETE: Final = {"lvm2", "md"}
"""Kinds that are seen only where the volumes made of them could not be put together."""


@dataclass
class Trees:
    """What was found. problems fail the proof, notes do not."""

    volumes: int = 0
    entries: int = 0
    files: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """The first twenty are kept."""
        if len(self.problems) < _TOLD_MAX:
            self.problems.append(text)


def look_at_trees(repository: Repository, point: Point, files: int, chance: random.Random) -> Trees:
    """files: how many to read of each volume. Raises OwnerKeyNeeded, StoreUnavailable."""
    cache, trees = ChunkCache(_CACHE_BYTES), Trees()
    pool = ParserPool()
    try:
        disks = [repository.open_disk(disk, cache) for disk in point.disks]
        tree = GuestTree(PointGuest(disks, pool))
        with ThreadPoolExecutor(2, "prove") as ahead:
            drawing = _Drawing(files, chance, ahead)
            for volume in tree.volumes:
                _look_at_volume(trees, tree, volume, drawing)
    except UNREADABLE as error:
        trees.problem(f"the volumes of this machine cannot be told: {error}")
    finally:
        pool.close()
    if not trees.volumes and not trees.problems:
        trees.notes.append("no volume with a filesystem that can be read")
    return trees


class _Drawing(NamedTuple):
    """files: how many are drawn of each volume. ahead: threads that fetch."""

    files: int
    chance: random.Random
    ahead: Executor


def _look_at_volume(trees: Trees, tree: GuestTree, volume: Volume, drawing: _Drawing) -> None:
    if volume.problem:
        tell = trees.notes.append if _is_nothing_to_list(volume) else trees.problem
        tell(f"{volume.name}: {volume.problem}")
        return
    trees.volumes += 1
    try:
        top = tree.top_of(volume)
        met = _walked(trees, tree, top, volume.name)
        drawn = _drawn(met, drawing.files, drawing.chance)
    except UNREADABLE as error:
        trees.problem(f"{volume.name}: {error}")
        return
    if recovery := tree.recovery(volume):
        trees.notes.append(f"{volume.name}: {recovery}")
    for path, found in drawn:
        try:
            trees.bytes += _read(found, drawing.ahead)
            trees.files += 1
        except UNREADABLE as error:
            trees.problem(f"{volume.name}/{shown(path)}: {error}")


def _is_nothing_to_list(volume: Volume) -> bool:
    """Swap, encrypted volumes, filesystems nobody here reads; not what is broken or incomplete."""
    whole = bool(volume.pieces) and volume.kind not in _INCOMPLETE
    return whole and volume.kind in UNREAD and "damaged" not in volume.problem


def _walked(trees: Trees, tree: GuestTree, top: Found, name: str) -> Iterator[tuple[bytes, Found]]:
    """The regular files met, as far as the walk goes."""
    seen = 0
    for visit in TreeWalk(tree, top, ordered=False):
        if visit.leaving:
            continue
        if visit.problem is not None:
            trees.problem(f"{name}/{shown(visit.path)}: {visit.problem}")
        elif visit.found is not None:
            if visit.found.is_regular:
                yield visit.path, visit.found
            seen += 1
        trees.entries += 1
        if seen >= _ENTRIES_MAX:
            trees.notes.append(f"{name}: files were drawn from the first {seen} entries only")
            return


def _drawn(
    files: Iterable[tuple[bytes, Found]], count: int, chance: random.Random
) -> list[tuple[bytes, Found]]:
    """`count` of them, each as likely as any other (reservoir sampling, Vitter's algorithm R)."""
    kept: list[tuple[bytes, Found]] = []
    for number, file in enumerate(files):
        if len(kept) < count:
            kept.append(file)
        elif (place := chance.randrange(number + 1)) < count:
            kept[place] = file
    return kept


def _read(found: Found, ahead: Executor) -> int:
    """Bytes read, of a large file the first 64 MiB."""
    done = 0
    for piece in read_pieces(found.on, found.stat, ahead):
        done += piece.length
        if done >= _BYTES_MAX:
            break
    return done
