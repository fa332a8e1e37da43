"""The guest's own view of its files: which volume is mounted where, down to the file numbers.

Takes the plan (`root_view/`) and finds the folders that volumes are mounted on. What cannot be
found becomes a note, never an error. Blocks.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from backpoint_fusefs.guest.filesystem import FileId, GuestError
from backpoint_fusefs.guest.guest_volume import GuestVolume
from backpoint_fusefs.guest.point_guest import PointGuest, problem_of
from backpoint_fusefs.guest.root_view.choose import plan_root
from backpoint_fusefs.guest.root_view.plan import Mount, RootPlan
from backpoint_fusefs.guest.volume_files import VolumeFiles


@dataclass(frozen=True)
class RootMount:
    """A volume in the guest's view. folder: number of the mount that has the folder on which this
    one is mounted, and which folder that is; None for the top, and for Windows drives."""

    path: bytes
    volume: GuestVolume
    root: FileId
    folder: tuple[int, FileId] | None = None


@dataclass
class GuestRoot:
    """mounts: in the plan's order. kind: unix (the first is the top), windows (each is a drive),
    or none. notes: sentences about what is missing."""

    kind: str
    mounts: list[RootMount] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mounted_on: dict[tuple[int, FileId], int] = field(default_factory=dict)
    """(mount, folder in it) -> the mount that covers it."""

    def crossed(self, mount: int, file: FileId) -> int | None:
        """The mount that a folder is covered by."""
        return self.mounted_on.get((mount, file))


def root_of(guest: PointGuest) -> GuestRoot:
    """The view of a point's guest; opens all of its volumes. Raises as `PointGuest.volumes`."""
    known, usable = [], {}
    for volume in guest.volumes():
        problem = volume.problem or problem_of(guest.readable()[volume.name])
        known.append(replace(volume, problem=problem))
        if not problem:
            usable[volume.name] = guest.readable()[volume.name]
    return _assembled(plan_root(known, VolumeFiles(usable)), usable)


def _assembled(plan: RootPlan, volumes: Mapping[str, GuestVolume]) -> GuestRoot:
    """Raises what reading the disks raises; what is wrong with a guest becomes a note."""
    root = GuestRoot(plan.kind, notes=list(plan.notes))
    for mount in plan.mounts:
        try:
            _add(root, mount, volumes[mount.volume_name])
        except GuestError as error:
            where = mount.path.decode(errors="backslashreplace")
            root.notes.append(f"{where} ({mount.volume_name}) is not shown: {error}")
    if root.kind == "unix" and not (root.mounts and root.mounts[0].path == b"/"):
        root.kind = "none"
    return root


def _add(root: GuestRoot, mount: Mount, volume: GuestVolume) -> None:
    top = _top(volume, mount.subvolume)
    if root.kind == "windows" or not root.mounts:
        root.mounts.append(RootMount(mount.path, volume, top))
        return
    folder = _walk(root, mount.path)
    root.mounted_on[folder] = len(root.mounts)
    root.mounts.append(RootMount(mount.path, volume, top, folder))


def _top(volume: GuestVolume, subvolume: bytes | None) -> FileId:
    if subvolume is None:
        return volume.default_subvolume()
    found = volume.subvolumes().get(subvolume)
    if found is None:
        raise GuestError(f"there is no subvolume {subvolume.decode(errors='backslashreplace')}")
    return found


def _walk(root: GuestRoot, path: bytes) -> tuple[int, FileId]:
    """The folder at a path of the guest's view, as assembled so far."""
    mount, file = 0, root.mounts[0].root
    for name in path.split(b"/"):
        if not name:
            continue
        found = root.mounts[mount].volume.lookup(file, name)
        if found is None or not stat.S_ISDIR(found.mode):
            raise GuestError("the folder to mount it on is not there")
        file = found.file
        covering = root.crossed(mount, file)
        if covering is not None:
            mount, file = covering, root.mounts[covering].root
    return mount, file
