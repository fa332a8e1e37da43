"""One restore point's guest: its volumes, found when first asked for, and a filesystem for each.

Blocks; whoever must not wait calls it from a thread. Decides that what the layout process found is
checked against the disks before anything is read through it. Knows no mount.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestError
from backpoint_fusefs.guest.guest_volume import GuestVolume
from backpoint_fusefs.guest.parser_pool import ParserPool
from backpoint_fusefs.guest.volume import Volume
from backpoint_fusefs.guest.volume_places import check_volume
from backpoint_fusefs.guest.volume_reader import VolumeReader
from backpoint_fusefs.guest.volume_record import from_record
from backpoint_fusefs.guest.worker.parser_process import ParserProcess
from backpoint_fusefs.guest.worker.server import LAYOUT
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.image_reader import ImageReader

UNREADABLE: Final = (GuestError, ObjectDamaged, ObjectMissing, UnknownFormat)
"""What costs one file, folder or volume only. A store that does not answer costs everything."""


class PointGuest:
    """Thread-safe."""

    def __init__(self, disks: Sequence[ImageReader], pool: ParserPool) -> None:
        self._disks = disks
        self._pool = pool
        self._lock = threading.Lock()
        self._volumes: tuple[Volume, ...] | None = None
        self._open: dict[str, GuestVolume] = {}

    def volumes(self) -> tuple[Volume, ...]:
        """All volumes of all disks, also those that cannot be read: they have a `problem`.

        Raises GuestError where not even that can be told, and what reading the disks raises.
        """
        with self._lock:
            if self._volumes is None:
                self._volumes = _find_volumes(self._disks)
                self._open = {
                    volume.name: self._pool.volume(volume, VolumeReader(volume, self._disks))
                    for volume in self._volumes
                    if not volume.problem
                }
            return self._volumes

    def readable(self) -> Mapping[str, GuestVolume]:
        """The volumes that have no problem so far, by name. Raises as `volumes`."""
        self.volumes()
        return self._open

    def close(self) -> None:
        """End all of its processes."""
        with self._lock:
            volumes, self._open, self._volumes = self._open, {}, None
        for volume in volumes.values():
            self._pool.forget(volume)


def _find_volumes(disks: Sequence[ImageReader]) -> tuple[Volume, ...]:
    process = ParserProcess(LAYOUT, disks)
    try:
        records = process.ask("volumes")
    finally:
        process.end()
    if not isinstance(records, tuple):
        raise GuestDamaged("the volumes of this machine cannot be told")
    volumes = tuple(map(from_record, records))
    if len({volume.name for volume in volumes}) != len(volumes):
        raise GuestDamaged("two volumes of this machine have one name")
    for volume in volumes:
        if not volume.problem:
            check_volume(volume, [disk.size for disk in disks])
    return volumes


def problem_of(volume: GuestVolume) -> str:
    """Open it: empty, or a sentence that says why it cannot be read."""
    try:
        volume.stat(volume.root())
    except UNREADABLE as error:
        return f"its {volume.volume.kind} filesystem cannot be read: {error}"
    return ""
