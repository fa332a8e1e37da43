"""Where the bytes of a disk lie that is one flat file: what its descriptor must say, and nothing
else will do.

Decides which disks can be read as their flat file alone. Refuses to know how files are reached.
A disk that lies on another one (an earlier snapshot of the user's) is spread over deltas whose
format only VMware's own ways read.
"""

from __future__ import annotations

import re
from typing import Final

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.machine import VirtualDisk
from backpoint_repo.source.vmdk_descriptor import DESCRIPTOR_LIMIT, parse_vmdk_descriptor

_UUID: Final = re.compile(rb'^[ \t]*ddb\.uuid[ \t]*=[ \t]*"([0-9A-Fa-f \-]{32,64})"', re.MULTILINE)
_HOW: Final = "use vddk, hotadd or export for it"


def refuse_delta(disk: VirtualDisk) -> None:
    """Raises TransportUnusable where the frozen disk is a delta on another file."""
    if disk.has_parent:
        raise TransportUnusable(
            f"{disk.label} ({disk.file}) is a delta on an earlier snapshot of the VM, which cannot "
            f"be read as a file: remove that snapshot, or {_HOW}"
        )


def refuse_other_size(disk: VirtualDisk, flat: str, size: int) -> None:
    """Raises TransportUnusable where the file is not as large as the disk."""
    if size != disk.size:
        raise TransportUnusable(
            f"{flat} has {size} bytes and {disk.label} has {disk.size}: no flat disk; {_HOW}"
        )


def flat_file_of(disk: VirtualDisk, descriptor: bytes) -> str:
    """The datastore path of the disk's flat file, "[ds] folder/name-flat.vmdk".

    Raises TransportUnusable where the descriptor describes anything but one flat file beside it,
    of the disk's size, from its first byte; or another disk, which a folder that is not the
    datastore it is taken for may have under the same name.
    """
    try:
        if len(descriptor) > DESCRIPTOR_LIMIT:
            raise ValueError("it is too large for a descriptor")
        _refuse_other_uuid(descriptor, disk.disk_uuid)
        name = _flat_name(descriptor, disk.size)
    except ValueError as error:
        raise TransportUnusable(
            f"{disk.label} is no flat disk that can be read as a file: {disk.file}: {error}; {_HOW}"
        ) from error
    folder, _, _ = disk.file.rpartition("/")
    if not folder:
        return f"[{disk.datastore}] {name}"
    return f"{folder}/{name}"


def _flat_name(descriptor: bytes, size: int) -> str:
    """Raises ValueError with a phrase."""
    found = parse_vmdk_descriptor(descriptor)
    if found.parent is not None:
        raise ValueError("its descriptor names a parent")
    if len(found.extents) != 1:
        raise ValueError(f"its descriptor names {len(found.extents)} extents instead of one")
    extent = found.extents[0]
    if extent.kind != "VMFS" or extent.offset:
        raise ValueError(f"its extent is of the kind {extent.kind}, not one plain VMFS file")
    if extent.needs != size:
        raise ValueError(f"its descriptor is of a disk of {extent.needs} bytes instead of {size}")
    name = extent.name.decode()  # UnicodeDecodeError is a ValueError
    if "/" in name or name in (".", "..") or not name.isprintable():
        raise ValueError(f"its extent {name!r} lies elsewhere")
    return name


def _refuse_other_uuid(descriptor: bytes, uuid: str) -> None:
    """vCenter writes it "6000C29a-...", the file "60 00 C2 9a ...". Raises ValueError."""
    found = _UUID.search(descriptor)
    if found is None or not uuid:
        return
    here, there = (re.sub("[^0-9a-f]", "", text.lower()) for text in (found[1].decode(), uuid))
    if here != there:
        raise ValueError(f"this file is of another disk, whose uuid is {here} and not {there}")
