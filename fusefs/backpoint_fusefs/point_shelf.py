"""The points and disks a mount has at hand: loaded when touched, a bounded number kept.

Decides how many folders and disk readers stay in memory. Everything here may fetch, so it belongs
on a worker; only the `kept` look-ups are for the event loop.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from backpoint_fusefs import inodes
from backpoint_fusefs.content import BytesContent, Content, FileContent
from backpoint_fusefs.point_folder import PointFolder
from backpoint_fusefs.proof_shelf import ProofShelf
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.point import ConfigFile, Disk
from backpoint_repo.repository import Repository

_FOLDERS_KEPT: Final = 256
"""A few kilobytes each."""
_READERS_KEPT: Final = 16
"""With their disk maps, up to some megabytes each; open files hold theirs in any case."""


class PointShelf:
    """Thread-safe. proofs: of the points."""

    def __init__(self, repository: Repository, cache: ChunkCache) -> None:
        self.proofs = ProofShelf(repository.sealed)
        self._repository = repository
        self._cache = cache
        self._lock = threading.Lock()
        self._folders: OrderedDict[bytes, PointFolder] = OrderedDict()
        self._readers: OrderedDict[tuple[bytes, int], ImageReader] = OrderedDict()

    @property
    def repository_id(self) -> bytes:
        """16 bytes."""
        return self._repository.sealed.repository_id

    def kept(self, point_id: bytes) -> PointFolder | None:
        """The folder if it is here. Never waits."""
        return self._folders.get(point_id)

    def folder(self, point_id: bytes) -> PointFolder:
        """Raises ObjectMissing, ObjectDamaged, UnknownFormat, StoreUnavailable."""
        found = self._folders.get(point_id)
        if found is None:
            found = PointFolder(self._repository.point(point_id))
            with self._lock:
                self._folders[point_id] = found
                while len(self._folders) > _FOLDERS_KEPT:
                    self._folders.popitem(last=False)
        return found

    def content(self, folder: PointFolder, role: int) -> Content:
        """The content of one file. Raises ObjectDamaged; KeyError for a role it does not have."""
        source = folder.source(role)
        if isinstance(source, Disk):
            return self._reader((folder.point.point_id, role), source)
        if isinstance(source, ConfigFile):
            return FileContent(source, self._repository.chunks, self._cache)
        return BytesContent(source)

    def disks(self, folder: PointFolder) -> list[ImageReader]:
        """A reader of each disk, in order."""
        point = folder.point
        return [
            self._reader((point.point_id, inodes.DISK_FLAT + number), disk)
            for number, disk in enumerate(point.disks)
        ]

    def _reader(self, key: tuple[bytes, int], disk: Disk) -> ImageReader:
        with self._lock:
            reader = self._readers.get(key)
            if reader is None:
                reader = self._repository.open_disk(disk, self._cache)
                self._readers[key] = reader
            self._readers.move_to_end(key)
            while len(self._readers) > _READERS_KEPT:
                self._readers.popitem(last=False)
            return reader
