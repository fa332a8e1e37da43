"""Opens a volume whose kind of filesystem is known already with the reader for it.

Everything that any of the readers needs is imported here, before the worker is confined.
"""

from __future__ import annotations

from backpoint_fusefs.guest.filesystem import GuestFilesystem, GuestUnsupported, VolumeImage
from backpoint_fusefs.guest.parsers.tsk.fat.fat_filesystem import open_dos, open_exfat
from backpoint_fusefs.guest.parsers.tsk.ntfs.ntfs_filesystem import NtfsFilesystem


def open_tsk(image: VolumeImage, kind: str, *, streams: bool = False) -> GuestFilesystem:
    """streams: NTFS's large alternate streams are shown as files of their own."""
    if kind in ("fat12", "fat16", "fat32"):
        return open_dos(image)
    if kind == "exfat":
        return open_exfat(image)
    if kind == "ntfs":
        return NtfsFilesystem(image, streams=streams)
    raise GuestUnsupported(f"there is no reader for {kind}")
