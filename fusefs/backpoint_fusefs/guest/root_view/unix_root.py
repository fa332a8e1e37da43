"""The root of a Unix system among the volumes, and what its /etc/fstab puts where below it.

Decides which volume (and btrfs subvolume) is `/`: the one whose own fstab says so, before others
that only have an fstab, before one that merely has the folders of a root. Knows no Windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from backpoint_fusefs.guest.root_view.fstab import SIZE_MAX, Fstab, FstabEntry, parse_fstab
from backpoint_fusefs.guest.root_view.guest_files import CarefulFiles
from backpoint_fusefs.guest.root_view.plan import Mount, RootPlan
from backpoint_fusefs.guest.root_view.storage_name import find_volume
from backpoint_fusefs.guest.root_view.subvolume import subvolume_of
from backpoint_fusefs.guest.volume import Volume

LINUX_KINDS: Final = frozenset(("ext", "ext2", "ext3", "ext4", "xfs", "btrfs"))
"""Kinds of volumes that can be `/`; any kind can be mounted below it."""

_SUBVOLUMES_MAX: Final = 256
"""Subvolumes of one volume that are looked at: a snapshot a day makes thousands of them."""


class Evidence(IntEnum):
    """Why a place is taken for `/`, the best reason first."""

    FSTAB_NAMES_IT = 0
    FSTAB_NAMES_ITS_VOLUME = 1
    """The subvolume may be chosen on the kernel's command line instead."""
    HAS_FSTAB = 2
    HAS_FSTAB_OF_ANOTHER = 3
    """A copy of a root, made as a backup."""
    HAS_FOLDERS = 4


@dataclass(frozen=True, slots=True)
class UnixRoot:
    """Where `/` is. subvolume: as in Mount."""

    volume: Volume
    subvolume: bytes | None
    fstab: Fstab
    evidence: Evidence

    @property
    def mount(self) -> Mount:
        return Mount(b"/", self.volume.name, self.subvolume)


def find_unix_roots(volumes: Sequence[Volume], files: CarefulFiles) -> list[UnixRoot]:
    """All places that could be `/`, the likeliest first."""
    linux = [volume for volume in volumes if volume.kind in LINUX_KINDS and not volume.problem]
    roots = [root for volume in linux for root in _with_fstab(volume, volumes, files)]
    if not roots:
        places = ((volume, each) for volume in linux for each in _subvolumes(volume, files))
        roots = [
            UnixRoot(volume, subvolume, Fstab((), ()), Evidence.HAS_FOLDERS)
            for volume, subvolume in places
            if _has_folders(volume, subvolume, files)
        ]
    return sorted(roots, key=lambda root: root.evidence)


def plan_unix(
    roots: Sequence[UnixRoot], volumes: Sequence[Volume], files: CarefulFiles
) -> RootPlan:
    """The view from the first of the roots."""
    root = roots[0]
    notes = [*_choice_notes(roots), *root.fstab.notes]
    mounts = {b"/": root.mount}
    for entry in root.fstab.entries:
        if entry.mount_point == b"/":
            continue
        mount, said = _mount_of(entry, root.volume, volumes, files)
        notes += said
        if mount is not None:
            # As with mount itself: the later line lies over the earlier one.
            mounts[mount.path] = mount
    ordered = sorted(mounts.values(), key=lambda mount: mount.path.rstrip(b"/").split(b"/"))
    return RootPlan("unix", tuple(ordered), tuple(notes))


def _with_fstab(
    volume: Volume, volumes: Sequence[Volume], files: CarefulFiles
) -> Iterator[UnixRoot]:
    for subvolume in _subvolumes(volume, files):
        content = files.read_file(volume.name, subvolume, b"etc/fstab", SIZE_MAX + 1)
        if content is None:
            continue
        fstab = parse_fstab(content)
        evidence = _evidence(Mount(b"/", volume.name, subvolume), fstab, volume, volumes, files)
        yield UnixRoot(volume, subvolume, fstab, evidence)
        if evidence is Evidence.FSTAB_NAMES_IT:
            # The others on this volume are its snapshots.
            return


def _evidence(
    here: Mount, fstab: Fstab, home: Volume, volumes: Sequence[Volume], files: CarefulFiles
) -> Evidence:
    lines = [entry for entry in fstab.entries if entry.mount_point == b"/"]
    mount = _mount_of(lines[-1], home, volumes, files)[0] if lines else None
    if mount is None:
        return Evidence.HAS_FSTAB
    if mount == here:
        return Evidence.FSTAB_NAMES_IT
    if mount.volume_name == here.volume_name and not _names_subvolume(lines[-1]):
        return Evidence.FSTAB_NAMES_ITS_VOLUME
    return Evidence.HAS_FSTAB_OF_ANOTHER


def _names_subvolume(entry: FstabEntry) -> bool:
    return entry.option("subvol") is not None or entry.option("subvolid") is not None


def _mount_of(
    entry: FstabEntry, home: Volume, volumes: Sequence[Volume], files: CarefulFiles
) -> tuple[Mount | None, list[str]]:
    """None where the line cannot be followed; and what is to be said about it."""
    found = find_volume(entry.source, entry.kind, volumes, home)
    if found is None:
        return None, [f"{entry.named} names no volume that is in this backup."]
    volume = found.volume
    if volume.problem:
        return None, [f"{entry.named} is {volume.name}, which cannot be read: {volume.problem}"]
    notes = []
    if found.by_order:
        notes.append("Names like /dev/sda1 in /etc/fstab are taken by the order of the disks.")
    if found.others:
        notes.append(f"{entry.named} fits {found.others + 1} volumes; {volume.name} is shown.")
    if volume.kind != "btrfs":
        return Mount(entry.mount_point, volume.name), notes
    subvolume, said = subvolume_of(entry, volume, files)
    if subvolume is None:
        return None, said
    return Mount(entry.mount_point, volume.name, subvolume), notes + said


def _subvolumes(volume: Volume, files: CarefulFiles) -> Iterable[bytes | None]:
    """Where on a volume a root could be: the default first, then those nearest to the top."""
    if volume.kind != "btrfs":
        return (None,)
    default = files.default_subvolume(volume.name)
    paths = {b"", *files.subvolumes(volume.name)} - {default}
    near = sorted(paths, key=lambda path: (path.count(b"/"), len(path), path))
    return (default, *near[: _SUBVOLUMES_MAX - 1])


def _has_folders(volume: Volume, subvolume: bytes | None, files: CarefulFiles) -> bool:
    def has(name: bytes) -> bool:
        return files.exists(volume.name, subvolume, name)

    return has(b"etc") and (has(b"usr") or has(b"bin"))


def _choice_notes(roots: Sequence[UnixRoot]) -> list[str]:
    root, *others = roots
    place = _place(root)
    notes = []
    if root.evidence is Evidence.HAS_FSTAB:
        notes.append(f"That / is {place} is a guess: its /etc/fstab names no volume here as /.")
    if root.evidence is Evidence.HAS_FSTAB_OF_ANOTHER:
        notes.append(f"That / is {place} is a guess: its /etc/fstab names another place as /.")
    if root.evidence is Evidence.HAS_FOLDERS:
        notes.append(
            f"No /etc/fstab was found. {place} has the folders of a root and is shown alone; "
            "other volumes of the system are not part of root/."
        )
    rivals = [_place(other) for other in others if other.evidence is root.evidence]
    if rivals:
        notes.append(f"/ could also be {', '.join(rivals[:5])}; shown is {place}.")
    return notes


def _place(root: UnixRoot) -> str:
    if root.subvolume is None:
        return root.volume.name
    path = root.subvolume.decode("utf-8", "backslashreplace")
    return f"{root.volume.name} (subvolume /{path})"
