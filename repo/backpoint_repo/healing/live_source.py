"""Heals from a disk that the user names: the machine's own, a clone, an image from elsewhere.

Decides the order: first the places where wanted content lay, on whatever disk of whatever VM, which
takes no longer than reading them; then, unless told to be quick, all of the source, at last once
more for inner map nodes.
"""

from __future__ import annotations

from backpoint_repo.chunking import Cutter
from backpoint_repo.disk_map import Geometry
from backpoint_repo.healing.heal_session import HealSession
from backpoint_repo.healing.image_ranges import LEAF, ImageRanges
from backpoint_repo.healing.image_scan import ImageScan
from backpoint_repo.healing.map_again import MapAgain
from backpoint_repo.healing.wanted import CHUNK, Wanted
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.repository import Repository
from backpoint_repo.source.contract import ImageSource


class LiveSource:
    """A `Way`. quick: only where wanted content lay."""

    def __init__(self, repository: Repository, source: ImageSource, *, quick: bool) -> None:
        keyring = repository.sealed.keyring
        self._cutter = Cutter(keyring.cut_key, repository.config.chunks)
        self._id_key = keyring.chunk_id_key
        self._repository = repository
        self._source = source
        self._quick = quick

    @property
    def title(self) -> str:
        """For people."""
        return f"from {self._source.name}"

    def heal(self, wanted: Wanted, session: HealSession, progress: PhaseProgress) -> None:
        """Store what the source still holds."""
        parts = (wanted, session, self._cutter, self._id_key)
        places = wanted.places(levels=(CHUNK, LEAF))
        progress.phase(f"{self.title}, where it lay", len(places))
        ImageRanges(*parts).heal(self._source, places, progress.advance)
        maps = MapAgain(self._repository, wanted, session)
        maps.heal_leaves(self._source)
        if len(wanted) and not self._quick:
            progress.phase(f"{self.title}, all of it", Geometry(self._source.size).leaves)
            ImageScan(*parts).heal(self._source, progress)
            maps.heal_all(self._source)
