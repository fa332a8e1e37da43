"""Which volume the source of an fstab line means: UUID=, LABEL=, /dev/mapper/..., /dev/sda1.

Decides what counts as the same name, and that /dev/sda1 and its like go by the order of the
disks: a backup does not know which driver the guest had for them. The n-th disk is /dev/sd, vd,
xvd or hd with the n-th letter, the n-th namespace of NVMe controller 0, or namespace 1 of NVMe
controller n, counted from 0. Knows no files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.guest.volume import Volume

_TAGS: Final[dict[str, Callable[[Volume], str]]] = {
    "UUID": lambda volume: volume.uuid.lower(),
    "LABEL": lambda volume: volume.label,
    "PARTUUID": lambda volume: volume.partition.lower(),
    "PARTLABEL": lambda volume: volume.partition_label,
}
_TAG: Final = re.compile(r"(UUID|LABEL|PARTUUID|PARTLABEL)=(.*)", re.DOTALL)
_LINK: Final = re.compile(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.*)", re.DOTALL)
_DM_LINK: Final = "/dev/disk/by-id/dm-name-"
_LOGICAL: Final = re.compile(r"/dev/([^/]+)/([^/]+)")
_LETTERED: Final = re.compile(r"/dev/(?:sd|vd|xvd|hd)([a-z]{1,3})([0-9]{0,3})")
_NVME: Final = re.compile(r"/dev/nvme([0-9]{1,3})n([0-9]{1,3})(?:p([0-9]{1,3}))?")
_UDEV_ESCAPE: Final = re.compile(rb"\\x([0-9a-fA-F]{2})")
_FAMILIES: Final = {
    **dict.fromkeys(("ext", "ext2", "ext3", "ext4"), "ext"),
    **dict.fromkeys(("vfat", "msdos", "fat", "fat12", "fat16", "fat32"), "fat"),
    **dict.fromkeys(("ntfs", "ntfs3", "ntfs-3g", "fuse.ntfs-3g"), "ntfs"),
    **dict.fromkeys(("exfat", "exfat-fuse", "fuse.exfat"), "exfat"),
    **{kind: kind for kind in ("xfs", "btrfs", "iso9660", "hfsplus", "apfs")},
}
"""Types and kinds -> what reads them. Others are not compared."""


@dataclass(frozen=True, slots=True)
class Found:
    """volume: what is meant. by_order: only guessed from the order of the disks. others: how many
    more volumes have the same name."""

    volume: Volume
    by_order: bool = False
    others: int = 0


def find_volume(source: str, kind: str, volumes: Sequence[Volume], home: Volume) -> Found | None:
    """kind: the type that the line gives, or auto. home: the volume that the fstab is on; of
    several with the same name (a cloned disk) it is meant rather than others, then one that can be
    read, then one on the same disk."""
    named = _by_name(source, volumes)
    by_order = not named
    if by_order:
        named = [volume for volume in _by_order(source, volumes) if _may_be(volume, kind)]
    if not named:
        return None
    home_disks = _disks(home)

    def strangeness(volume: Volume) -> tuple[bool, bool, bool]:
        return volume != home, bool(volume.problem), home_disks.isdisjoint(_disks(volume))

    # min keeps the first of equals, which is the first in the order of the volumes.
    return Found(min(named, key=strangeness), by_order, len(named) - 1)


def _by_name(source: str, volumes: Sequence[Volume]) -> list[Volume]:
    if tag := _TAG.fullmatch(source):
        return _tagged(tag[1], _unquoted(tag[2]), volumes)
    if link := _LINK.fullmatch(source):
        return _tagged(link[1].upper(), _unescaped(link[2]), volumes)
    names = {source}
    if source.startswith(_DM_LINK):
        names.add("/dev/mapper/" + _unescaped(source.removeprefix(_DM_LINK)))
    if (logical := _LOGICAL.fullmatch(source)) and logical[1] != "mapper":
        group, volume = (part.replace("-", "--") for part in logical.groups())
        names.add(f"/dev/mapper/{group}-{volume}")
    return [volume for volume in volumes if not names.isdisjoint(volume.devices)]


def _tagged(tag: str, value: str, volumes: Sequence[Volume]) -> list[Volume]:
    if tag in ("UUID", "PARTUUID"):
        value = value.lower()
    return [volume for volume in volumes if value and _TAGS[tag](volume) == value]


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _unescaped(name: str) -> str:
    """udev writes what may not be in a link's name as `\\x20`, each byte of it."""
    raw = name.encode("utf-8", "surrogateescape")
    plain = _UDEV_ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), raw)
    return plain.decode("utf-8", "surrogateescape")


def _by_order(source: str, volumes: Sequence[Volume]) -> list[Volume]:
    if lettered := _LETTERED.fullmatch(source):
        disk, partition = _letters(lettered[1]), lettered[2]
    elif nvme := _NVME.fullmatch(source):
        controller, namespace = int(nvme[1]), int(nvme[2]) - 1
        if controller and namespace:
            return []
        disk, partition = controller or namespace, nvme[3] or ""
    else:
        return []
    # The names that `parsers/layout` gives: disk0-p1, or disk0 where there are no partitions.
    name = f"disk{disk}-p{int(partition)}" if partition else f"disk{disk}"
    return [volume for volume in volumes if volume.name == name]


def _letters(letters: str) -> int:
    """a -> 0, z -> 25, aa -> 26."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def _may_be(volume: Volume, kind: str) -> bool:
    """Not where a guess by order meets another filesystem than the line asks for."""
    wanted = {_FAMILIES.get(each) for each in kind.split(",")}
    has = _FAMILIES.get(volume.kind)
    return has is None or None in wanted or has in wanted


def _disks(volume: Volume) -> frozenset[int]:
    return frozenset(disk for piece in volume.pieces for disk, _ in piece.stripes)
