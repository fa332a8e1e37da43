"""The disks of a session: opened when touched, cut and rebased together.

Decides when a disk's layers may go with its file. Not thread-safe: the session lets one thread in
at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.live_file import BaseContent
from backpoint_fusefs.live.overlay.overlay_disk import OverlayDisk
from backpoint_repo.durable_file import fsync_folder

DISKS: Final = "disks"

OpenBase = Callable[[str, int], BaseContent]
"""(point id in hex, disk number) -> that stored disk. Raises what a repository raises."""


class SessionDisks:
    """Numbers are the disks' numbers in the point."""

    def __init__(self, session: Path, open_base: OpenBase) -> None:
        self._folder = session / DISKS
        self._open_base = open_base
        self._disks: dict[int, OverlayDisk] = {}

    def get(self, number: int, point_id: str, floor: int) -> OverlayDisk:
        """Raises OSError, SessionDamaged, and what a repository raises."""
        found = self._disks.get(number)
        if found is None:
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700)
                fsync_folder(self._folder.parent)
            base = self._open_base(point_id, number)
            found = OverlayDisk(self._folder / str(number), base, floor)
            self._disks[number] = found
        return found

    def written(self) -> list[int]:
        """Numbers of disks that have anything of their own, open or not."""
        if not self._folder.is_dir():
            return []
        names = (path.name for path in self._folder.iterdir())
        return sorted(int(name) for name in names if name.isdecimal())

    def opened(self) -> list[OverlayDisk]:
        return list(self._disks.values())

    def bases(self, point_id: str, numbers: Iterable[int]) -> dict[int, BaseContent]:
        """What is to lie below these disks and those that are open: a point that lacks one of
        them is found out before anything stands on it. Raises what a repository raises."""
        wanted = {*numbers, *self._disks}
        return {number: self._open_base(point_id, number) for number in sorted(wanted)}

    def rebase(self, bases: dict[int, BaseContent], through: int) -> None:
        """Of the disks that are open. Raises OSError where layers could not be deleted; all have
        their new base then, and the layers go when the disk is opened again."""
        failed: OSError | None = None
        for number, disk in self._disks.items():
            try:
                disk.rebase(bases[number], through)
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def forget(self, number: int) -> None:
        """Its file is gone; its layers go with `sweep`."""
        if disk := self._disks.pop(number, None):
            disk.close()

    def sweep(self, kept: Container[int]) -> None:
        """Delete the layers of disks that have no file any more. Raises OSError."""
        for number in self.written():
            if number not in kept and number not in self._disks:
                shutil.rmtree(self._folder / str(number))

    def close(self) -> None:
        with suppress(OSError):
            for disk in self._disks.values():
                disk.close()
        self._disks.clear()
