"""Opens a volume whose kind of filesystem is known already with the reader for it.

Everything that any of the readers needs is imported here, before the worker is confined.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestFilesystem, GuestUnsupported, VolumeImage
from backpoint_fusefs.guest.parsers.tsk.fat.fat_filesystem import open_dos, open_exfat
from backpoint_fusefs.guest.parsers.tsk.iso9660.iso_filesystem import IsoFilesystem
from backpoint_fusefs.guest.parsers.tsk.ntfs.ntfs_filesystem import NtfsFilesystem
from backpoint_fusefs.guest.parsers.tsk.tsk_tree import TskTree

_READERS: Final[dict[str, Callable[[VolumeImage], GuestFilesystem]]] = {
    "ntfs": partial(NtfsFilesystem, streams=False),
    "fat12": open_dos,
    "fat16": open_dos,
    "fat32": open_dos,
    "exfat": open_exfat,
    "iso9660": IsoFilesystem,
    "hfsplus": TskTree,
}


def open_tsk(image: VolumeImage, kind: str, *, streams: bool = False) -> GuestFilesystem:
    """streams: NTFS's large alternate streams are shown as files of their own."""
    if kind == "ntfs" and streams:
        return NtfsFilesystem(image, streams=True)
    if kind == "apfs":
        # pytsk3 binds no pools, and APFS's volumes are only found through one.
        raise GuestUnsupported("APFS volumes cannot be read: the library opens no APFS containers")
    if kind not in _READERS:
        raise GuestUnsupported(f"there is no reader for {kind}")
    return _READERS[kind](image)
