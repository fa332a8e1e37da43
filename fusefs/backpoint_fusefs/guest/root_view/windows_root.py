"""The drives of a Windows system among the volumes.

Decides which volume is the system's, which volumes a person would call drives where the registry
does not tell, and what is said about a guess. Knows no fstab and no registry format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.guest.root_view.drive_letters import (
    free_letter,
    in_disk_order,
    letters_by_order,
    letters_of,
)
from backpoint_fusefs.guest.root_view.guest_files import CarefulFiles
from backpoint_fusefs.guest.root_view.plan import Mount, RootPlan
from backpoint_fusefs.guest.volume import Volume

_DRIVE_KINDS: Final = frozenset(("ntfs", "fat", "fat12", "fat16", "fat32", "exfat"))
_SYSTEM_FOLDERS: Final = (b"Windows/System32", b"WINNT/system32")
"""The second up to Windows 2000."""
_HIVE: Final = b"config/SYSTEM"
_SEQUENCES: Final = struct.Struct("<4sII")
"""Of a hive's header: signature, and two numbers that differ while it is being written."""
_HIDDEN_LABELS: Final = frozenset(
    (
        *("system reserved", "sysreserved", "system", "efi", "esp"),
        *("recovery", "winre", "winre_drv", "windows re tools"),
    )
)
_HIDDEN_PARTITIONS: Final = frozenset(
    ("efi system partition", "microsoft reserved partition", "microsoft recovery partition")
)
_HIDDEN_FILES: Final = (b"bootmgr", b"EFI/Microsoft", b"Recovery/WindowsRE")
"""What the partitions have that Windows' setup makes for itself and gives no letter."""


@dataclass(frozen=True, slots=True)
class WindowsRoot:
    """volume: with the system. hive: path of its SYSTEM hive, or None."""

    volume: Volume
    hive: bytes | None


def find_windows_roots(volumes: Sequence[Volume], files: CarefulFiles) -> list[WindowsRoot]:
    """In the order of the disks."""
    roots = []
    for volume in in_disk_order(volumes):
        if volume.kind != "ntfs" or volume.problem:
            continue
        folders = (_folded(volume, path, files) for path in _SYSTEM_FOLDERS)
        if folder := next(filter(None, folders), None):
            roots.append(WindowsRoot(volume, _folded(volume, folder + b"/" + _HIVE, files)))
    return roots


def plan_windows(
    roots: Sequence[WindowsRoot], volumes: Sequence[Volume], files: CarefulFiles
) -> RootPlan:
    """The drives as the first of the systems has them."""
    root, *others = roots
    notes = []
    if others:
        names = ", ".join(other.volume.name for other in others[:5])
        notes.append(f"There is another Windows on {names}; shown is that on {root.volume.name}.")
    letters, said = _registered(root, volumes, files)
    notes += said
    if not letters:
        drives = (volume for volume in volumes if volume != root.volume)
        letters = letters_by_order(root.volume, _data_drives(drives, files))
        notes.append("The drive letters are a guess, by the order of the disks.")
    for letter, volume in sorted(letters.items()):
        if volume.problem:
            notes.append(f"Drive {letter} is {volume.name}, which cannot be read: {volume.problem}")
    mounts = [
        Mount(b"/" + letter.encode(), volume.name)
        for letter, volume in sorted(letters.items())
        if not volume.problem
    ]
    return RootPlan("windows", tuple(mounts), tuple(notes))


def _registered(
    root: WindowsRoot, volumes: Sequence[Volume], files: CarefulFiles
) -> tuple[Mapping[str, Volume], list[str]]:
    """Drive letters as the registry has them, none where it has none of these volumes."""
    if root.hive is None:
        return {}, [f"{root.volume.name} has no registry to say which drive has which letter."]
    notes = []
    if _needs_log(files.read_file(root.volume.name, None, root.hive, _SEQUENCES.size)):
        notes.append(
            "The registry was being written when this backup was made, and its log is not "
            "followed: drive letters changed just then may be shown as they were."
        )
    values = files.mounted_devices(root.volume.name, root.hive)
    letters, missing = letters_of(values, volumes)
    if not letters:
        return {}, [*notes, "The registry gives a drive letter to no volume of this backup."]
    if missing:
        notes.append(f"Not in this backup: the volumes of drive {', '.join(missing)}.")
    letter = free_letter(letters)
    if root.volume not in letters.values() and letter is not None:
        letters[letter] = root.volume
        notes.append(f"The registry names no drive letter of its own volume; {letter} is a guess.")
    return letters, notes


def _data_drives(volumes: Iterable[Volume], files: CarefulFiles) -> list[Volume]:
    return [
        volume
        for volume in volumes
        if volume.kind in _DRIVE_KINDS
        and not volume.problem
        and volume.label.lower() not in _HIDDEN_LABELS
        and volume.partition_label.lower() not in _HIDDEN_PARTITIONS
        and not any(_folded(volume, path, files) for path in _HIDDEN_FILES)
    ]


def _folded(volume: Volume, path: bytes, files: CarefulFiles) -> bytes | None:
    """The path as it is written there, capitals aside. Most often it is written as asked for,
    which saves the listing of a System32 with 15,000 names."""
    if files.exists(volume.name, None, path):
        return path
    found: tuple[bytes, ...] = ()
    for wanted in path.lower().split(b"/"):
        names = files.names(volume.name, b"/".join(found))
        name = min((name for name in names if name.lower() == wanted), default=None)
        if name is None:
            return None
        found = (*found, name)
    return b"/".join(found)


def _needs_log(header: bytes | None) -> bool:
    if header is None or len(header) < _SEQUENCES.size:
        return False
    _, first, second = _SEQUENCES.unpack(header[: _SEQUENCES.size])
    return bool(first != second)
