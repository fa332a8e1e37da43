"""Which parser reads which kind of filesystem.

Decides that a parser's modules are imported before its process is confined, by `load_parser`; what
it returns opens a filesystem afterwards, when nothing can be imported any longer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestFilesystem, VolumeImage

OpenFilesystem = Callable[[VolumeImage], GuestFilesystem]

TSK_KINDS: Final = ("ntfs", "fat12", "fat16", "fat32", "exfat", "iso9660", "hfsplus", "apfs")
KINDS: Final = ("ext", "xfs", "btrfs", *TSK_KINDS)


def load_parser(kind: str, *, streams: bool) -> OpenFilesystem:
    """streams: large alternate streams are shown as files. Raises KeyError for an unknown kind."""
    if kind == "ext":
        from backpoint_fusefs.guest.parsers.ext.ext_filesystem import open_ext

        return open_ext
    if kind == "xfs":
        from backpoint_fusefs.guest.parsers.xfs.xfs_filesystem import open_xfs

        return open_xfs
    if kind == "btrfs":
        from backpoint_fusefs.guest.parsers.btrfs.btrfs_filesystem import open_btrfs

        return open_btrfs
    if kind in TSK_KINDS:
        from backpoint_fusefs.guest.parsers.tsk.tsk_filesystem import open_tsk

        return partial(open_tsk, kind=kind, streams=streams)
    raise KeyError(kind)
