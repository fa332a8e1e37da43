"""Files of opened volumes by path, as planning the guest's own view needs them.

Follows symbolic links as the guest would, but never out of the volume or subvolume. Blocks; raises
GuestError, and what reading the disks raises.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from typing import Final

from backpoint_fusefs.guest.filesystem import FileId, Stat
from backpoint_fusefs.guest.guest_volume import GuestVolume

_LINKS_MAX: Final = 40
"""As Linux: one more in a path is a loop."""


class VolumeFiles:
    """See `root_view.guest_files.GuestFiles`."""

    def __init__(self, volumes: Mapping[str, GuestVolume]) -> None:
        self._volumes = volumes

    def exists(self, volume_name: str, subvolume: bytes | None, path: bytes) -> bool:
        return self._find(volume_name, subvolume, path) is not None

    def names(self, volume_name: str, subvolume: bytes | None, folder: bytes) -> Iterable[bytes]:
        found = self._find(volume_name, subvolume, folder)
        if found is None or not stat.S_ISDIR(found.mode):
            return
        yield from folder_names(self._volumes[volume_name], found.file)

    def read_file(
        self, volume_name: str, subvolume: bytes | None, path: bytes, max_size: int
    ) -> bytes | None:
        found = self._find(volume_name, subvolume, path)
        if found is None or not stat.S_ISREG(found.mode):
            return None
        return self._volumes[volume_name].read(found, 0, min(max_size, found.size))

    def subvolumes(self, volume_name: str) -> Mapping[bytes, FileId]:
        return self._volumes[volume_name].subvolumes()

    def default_subvolume(self, volume_name: str) -> FileId:
        return self._volumes[volume_name].default_subvolume()

    def mounted_devices(self, volume_name: str, hive: bytes) -> Mapping[str, bytes]:
        found = self._find(volume_name, None, hive)
        if found is None or not stat.S_ISREG(found.mode):
            return {}
        return self._volumes[volume_name].mounted_devices(found.file)

    def _find(self, volume_name: str, subvolume: bytes | None, path: bytes) -> Stat | None:
        volume = self._volumes[volume_name]
        root: FileId | None = volume.root()
        if subvolume is not None:
            root = volume.subvolumes().get(subvolume)
        return None if root is None else find_path(volume, root, path)


def find_path(volume: GuestVolume, root: FileId, path: bytes) -> Stat | None:
    """The file at a path below `root`, links followed; None where there is none."""
    stack = [volume.stat(root)]
    names, links = path.split(b"/")[::-1], 0
    while names:
        name = names.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            del stack[max(1, len(stack) - 1) :]
            continue
        found = volume.lookup(stack[-1].file, name) if stat.S_ISDIR(stack[-1].mode) else None
        if found is None:
            return None
        if not stat.S_ISLNK(found.mode):
            stack.append(found)
            continue
        links += 1
        if links > _LINKS_MAX:
            return None
        target = volume.readlink(found.file)
        if target.startswith(b"/"):
            del stack[1:]
        names += target.split(b"/")[::-1]
    return stack[-1]


def folder_names(volume: GuestVolume, folder: FileId) -> Iterable[bytes]:
    """Page by page."""
    number, more = 0, True
    while more:
        page = volume.page(folder, number)
        yield from (line.name for line in page.lines)
        number, more = number + 1, page.more
