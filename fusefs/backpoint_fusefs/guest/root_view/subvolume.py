"""Which btrfs subvolume an fstab line mounts, by subvol=, subvolid= or the default (btrfs(5)).

Decides by the options alone; what subvolumes there are, it is told.
"""

from __future__ import annotations

import re
from typing import Final

from backpoint_fusefs.guest.root_view.fstab import FstabEntry
from backpoint_fusefs.guest.root_view.guest_files import CarefulFiles
from backpoint_fusefs.guest.volume import Volume

_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")
_TOP: Final = 5
"""BTRFS_FS_TREE_OBJECTID; subvolid=0 means it too (fs/btrfs/super.c)."""


def subvolume_of(
    entry: FstabEntry, volume: Volume, files: CarefulFiles
) -> tuple[bytes | None, list[str]]:
    """Its path, or None where there is no such subvolume; and what is to be said about it."""
    by_path, by_id = entry.option("subvol"), entry.option("subvolid")
    if by_path is None and by_id is None:
        return files.default_subvolume(volume.name), []
    numbered = None if by_id is None else _numbered(by_id, volume, files)
    if by_path is None:
        if numbered is None:
            return None, [f"{entry.named} names a subvolume that {volume.name} does not have."]
        return numbered, []
    path = _plain(by_path)
    if path and path not in files.subvolumes(volume.name):
        return None, [f"{entry.named} names a subvolume that {volume.name} does not have."]
    if by_id is not None and numbered != path:
        return path, [f"{entry.named} has a subvolid of another subvolume; subvol= is followed."]
    return path, []


def _plain(path: str) -> bytes:
    raw = path.encode("utf-8", "surrogateescape")
    return b"/".join(name for name in raw.split(b"/") if name not in (b"", b"."))


def _numbered(text: str, volume: Volume, files: CarefulFiles) -> bytes | None:
    """The kernel takes decimal, 0x hexadecimal and, after a 0, octal numbers."""
    if not _NUMBER.fullmatch(text):
        return None
    base = 16 if text[:2].lower() == "0x" else 8 if text[0] == "0" else 10
    try:
        number = int(text, base) or _TOP
    except ValueError:
        return None
    if number == _TOP:
        return b""
    subvolumes = files.subvolumes(volume.name)
    return min((path for path, file in subvolumes.items() if file.tree == number), default=None)
