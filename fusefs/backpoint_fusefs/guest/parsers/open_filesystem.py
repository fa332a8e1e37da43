"""Which parser reads which kind of filesystem.

Decides that a parser's modules are imported before its process is confined, by `load_parser`; what
it returns opens a filesystem afterwards, when nothing can be imported any longer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from backpoint_fusefs.guest.filesystem import GuestFilesystem, VolumeImage

OpenFilesystem = Callable[[VolumeImage], GuestFilesystem]


def load_parser(kind: str, *, streams: bool) -> OpenFilesystem:
    """streams: NTFS's large alternate streams are shown as files. Raises KeyError for a kind that
    nothing here reads."""
    match kind:
        case "ext":
            from backpoint_fusefs.guest.parsers.ext.ext_filesystem import open_ext

            return open_ext
        case "xfs":
            from backpoint_fusefs.guest.parsers.xfs.xfs_filesystem import open_xfs

            return open_xfs
        case "btrfs":
            from backpoint_fusefs.guest.parsers.btrfs.btrfs_filesystem import open_btrfs

            return open_btrfs
        case "ntfs":
            from backpoint_fusefs.guest.parsers.ntfs.ntfs_filesystem import NtfsFilesystem

            return partial(NtfsFilesystem, streams=streams)
        case _:
            return _load_removable(kind)


def _load_removable(kind: str) -> OpenFilesystem:
    """What is at home on sticks, discs and Macs."""
    match kind:
        case "fat12" | "fat16" | "fat32":
            from backpoint_fusefs.guest.parsers.fat.fat_filesystem import open_dos

            return open_dos
        case "exfat":
            from backpoint_fusefs.guest.parsers.fat.fat_filesystem import open_exfat

            return open_exfat
        case "iso9660":
            from backpoint_fusefs.guest.parsers.iso9660.iso_filesystem import IsoFilesystem

            return IsoFilesystem
        case "hfsplus":
            from backpoint_fusefs.guest.parsers.tsk.tsk_tree import TskTree

            return TskTree
        case _:
            raise KeyError(kind)


def open_filesystem(image: VolumeImage, kind: str, *, streams: bool = False) -> GuestFilesystem:
    """Both in one, where nothing is confined. Raises KeyError, GuestError."""
    return load_parser(kind, streams=streams)(image)
