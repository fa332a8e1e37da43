"""The guests of the points that a command names, each opened once, all of them ended together."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Final

from backpoint_fusefs.guest.guest_selector import split_selector
from backpoint_fusefs.guest.guest_tree import GuestTree
from backpoint_fusefs.guest.parser_pool import ParserPool
from backpoint_fusefs.guest.point_guest import PointGuest
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.point import Point
from backpoint_repo.reading import reading
from backpoint_repo.repository import Repository
from backpoint_repo.terminal import warn

_CACHE_BYTES: Final = 128 << 20


class GuestShelf:
    """A context: its parser processes end with it."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._points = repository.catalog.refresh()
        self._pool = ParserPool()
        self._cache = ChunkCache(_CACHE_BYTES)
        self._held = ExitStack()
        self._opened: dict[bytes, tuple[Point, GuestTree]] = {}

    def open(self, selector: str) -> tuple[Point, GuestTree, bytes]:
        """The point, its guest, and the path in it that `VM@POINT:PATH` names.

        Raises UsageError, and what reading a point raises. Nothing of the guest is read yet.
        """
        summary, path = split_selector(self._points, selector)
        if summary.point_id not in self._opened:
            point = self._repository.point(summary.point_id)
            self._held.enter_context(reading(self._repository, point, warn))
            disks = [self._repository.open_disk(disk, self._cache) for disk in point.disks]
            self._opened[summary.point_id] = point, GuestTree(PointGuest(disks, self._pool))
        return *self._opened[summary.point_id], path

    def __enter__(self) -> GuestShelf:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._held:
            self._pool.close()
