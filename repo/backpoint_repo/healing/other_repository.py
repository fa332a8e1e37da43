"""Heals from a repository with other keys: every disk in it is a source like a live one.

Its ids mean nothing here, so its points are read, and its owner's key is needed. Decides which
points are asked: those of the VMs that lack something first, newest first, and of each only the
places where wanted content lay, on disks of the same size. A leaf of a disk that several of its
points share is tried once.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

import numpy as np

from backpoint_repo.catalog import PointSummary
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunking import Cutter
from backpoint_repo.errors import RepositoryError
from backpoint_repo.format import HOLE, LEAF_SIZE
from backpoint_repo.healing.heal_session import HealSession, trouble_of
from backpoint_repo.healing.image_ranges import LEAF, ImageRanges
from backpoint_repo.healing.point_disk import FileContent, PointDisk
from backpoint_repo.healing.wanted import CHUNK, Places, Wanted
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.point import ConfigFile, Disk
from backpoint_repo.reading import reading
from backpoint_repo.repository import Repository
from backpoint_repo.source.contract import ImageSource

_CACHE_BYTES: Final = 64 << 20
_Leaf = tuple[int, int, bytes]
"""Size of a disk, number and node id of one of its leaves."""


class OtherRepository:
    """A `Way`. other: opened with its owner's key."""

    def __init__(self, repository: Repository, other: Repository) -> None:
        keyring = repository.sealed.keyring
        self._cutter = Cutter(keyring.cut_key, repository.config.chunks)
        self._id_key = keyring.chunk_id_key
        self._other = other

    @property
    def title(self) -> str:
        """For people."""
        return f"from the points in {self._other.sealed.store.address}"

    def heal(self, wanted: Wanted, session: HealSession, progress: PhaseProgress) -> None:
        """Store what the other repository's points show at the wanted places."""
        ranges = ImageRanges(wanted, session, self._cutter, self._id_key)
        tried: set[_Leaf] = set()
        points = _in_order(self._other.catalog.refresh(), wanted)
        progress.phase(self.title, len(points))
        for summary in points:
            if not len(wanted):
                return
            with ExitStack() as held:
                for source, places in self._offers(summary, wanted, tried, session, held):
                    ranges.heal(source, places)
            progress.advance(1)

    def _offers(
        self,
        summary: PointSummary,
        wanted: Wanted,
        tried: set[_Leaf],
        session: HealSession,
        held: ExitStack,
    ) -> list[tuple[ImageSource, Places]]:
        """What a point can be asked for; it stays readable until `held` is closed. What cannot be
        read is noted."""
        offers: list[tuple[ImageSource, Places]] = []
        try:
            point = self._other.point(summary.point_id)
            held.enter_context(reading(self._other, point, session.note))
            for disk in point.disks:
                if len(places := self._disk_places(disk, wanted, tried)):
                    reader = self._other.open_disk(disk, ChunkCache(_CACHE_BYTES))
                    offers.append((PointDisk(f"{point.vm} {disk.key}", reader), places))
            for file in point.files:
                if len(places := _file_places(file, wanted)):
                    content = self._other.read_file(file)
                    offers.append((FileContent(file.name, content), places))
        except RepositoryError as error:
            session.note(trouble_of(error))
        return offers

    def _disk_places(self, disk: Disk, wanted: Wanted, tried: set[_Leaf]) -> Places:
        """Wanted places on disks of this size, without those whose content here was tried."""
        alike = [at for at, image in enumerate(wanted.images) if image.size == disk.size]
        places = wanted.places(levels=(CHUNK, LEAF), images=alike)
        if not len(places):
            return places
        disk_map = self._other.disk_map(disk)
        numbers = places["offset"] // LEAF_SIZE
        fresh = []
        for number in np.unique(numbers).tolist():
            leaf = (disk.size, number, disk_map.leaf_id(number))
            if leaf[2] != HOLE and leaf not in tried:
                tried.add(leaf)
                fresh.append(number)
        return places[np.isin(numbers, np.array(fresh, np.uint64))]


def _file_places(file: ConfigFile, wanted: Wanted) -> Places:
    alike = [at for at, image in enumerate(wanted.images) if image.key == file.name]
    return wanted.places(levels=(CHUNK, CHUNK), images=alike)


def _in_order(points: list[PointSummary], wanted: Wanted) -> list[PointSummary]:
    """Those of VMs that lack something first, the newest first."""
    lacking = {image.vm for image in wanted.images}
    return sorted(points, key=lambda point: (point.vm not in lacking, -point.time))
