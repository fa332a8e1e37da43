"""Does everything of a point decode? Every chunk of its disks and files is read and held against
its id; nothing is kept.

Decides nothing but what is said where it does not. What it costs is the point's data, read once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.restore import copy_disk

_CACHE_BYTES: Final = 64 << 20


class _Nowhere:
    """An `ImageTarget` that takes all and keeps a count."""

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Read, and that was the point of it."""

    def zero_at(self, offset: int, length: int) -> None:
        """Holes need no proof."""

    def finish(self) -> None:
        """Nothing is left."""

    def abandon(self) -> None:
        """Nothing is left."""


def unreadable_data(
    repository: Repository, point: Point, advance: Callable[[int], None]
) -> list[str]:
    """What of each disk and file cannot be read, a sentence each; empty where all of it can.

    advance: called with bytes of disk dealt with. Raises OwnerKeyNeeded, StoreUnavailable.
    """
    problems = []
    for disk in point.disks:
        try:
            reader = repository.open_disk(disk, ChunkCache(_CACHE_BYTES))
            copy_disk(reader, _Nowhere(), advance)
        except (ObjectDamaged, ObjectMissing, UnknownFormat) as error:
            problems.append(f"{disk.key}: {error}")
    for file in point.files:
        try:
            repository.read_file(file)
        except (ObjectDamaged, ObjectMissing, UnknownFormat) as error:
            problems.append(f"{file.name}: {error}")
    return problems
