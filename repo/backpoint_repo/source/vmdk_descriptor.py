"""What a vmdk says about other files: its descriptor's extents and parent.

Decides which lines of a descriptor are understood, and that any other line makes it unreadable:
qemu skips what it does not know (a ZERO or read-only extent would vanish and shift the disk behind
it), and a line only qemu understands could name a file nobody agreed to read. Opens nothing.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

DESCRIPTOR_LIMIT = (1 << 20) - 1  # qemu reads no more of a descriptor file
SPARSE_HEADER_SIZE = 512
EMBEDDED_AT, EMBEDDED_SIZE = 512, 20 * 512  # where qemu looks for the descriptor of a sparse file

_EXTENT = re.compile(
    rb'RW[ \t]+(\d{1,12})[ \t]+(FLAT|VMFS|SPARSE|VMFSSPARSE|SESPARSE)[ \t]+"([^"\r\n]{1,511})"'
    rb"(?:[ \t]+(\d{1,18}))?"
)
_SETTING = re.compile(rb'([A-Za-z][\w.\-]*)[ \t]*=[ \t]*(?:"([^"]*)"|(.*))')
_NO_PARENT = b"ffffffff"


@dataclass(frozen=True)
class VmdkExtent:
    """One file of the disk; `needs` is how many bytes a flat one must have, 0 for a sparse one.

    offset: bytes of the file before the disk's first one.
    """

    kind: str
    name: bytes
    needs: int
    offset: int = 0


@dataclass(frozen=True)
class VmdkDescriptor:
    """Names as they stand in the descriptor, not yet trusted."""

    extents: tuple[VmdkExtent, ...]
    parent: bytes | None


def parse_vmdk_descriptor(data: bytes) -> VmdkDescriptor:
    """Read descriptor text (a zero byte ends it). Raises ValueError with a phrase."""
    extents: list[VmdkExtent] = []
    settings: dict[bytes, bytes] = {}
    for raw in data.partition(b"\0")[0].split(b"\n"):
        line = raw.strip(b" \t\r")
        if not line or line.startswith(b"#"):
            continue
        if extent := _EXTENT.fullmatch(line):
            flat = extent[2] in (b"FLAT", b"VMFS")
            offset = int(extent[4] or 0) * 512
            needs = int(extent[1]) * 512 + offset if flat else 0
            extents.append(VmdkExtent(extent[2].decode(), extent[3], needs, offset))
        elif setting := _SETTING.fullmatch(line):
            settings[setting[1].lower()] = setting[2] if setting[2] is not None else setting[3]
        else:
            raise ValueError(f"its descriptor has a line that is not understood: {line[:80]!r}")
    parent = settings.get(b"parentfilenamehint")
    if parent is None and settings.get(b"parentcid", _NO_PARENT).lower() != _NO_PARENT:
        raise ValueError("its descriptor has a parent and does not name it")
    return VmdkDescriptor(tuple(extents), parent)


def check_sparse_header(data: bytes, *, alone: bool) -> None:
    """Refuse a `KDMV` header that makes qemu read a descriptor we did not, or half a disk.

    `alone`: the file is the whole disk, not an extent of one. Raises ValueError with a phrase.
    """
    if len(data) < SPARSE_HEADER_SIZE:
        raise ValueError("its vmdk header is cut short")
    (capacity,) = struct.unpack_from("<Q", data, 12)
    (descriptor_at,) = struct.unpack_from("<Q", data, 28)
    if capacity == 0:
        # qemu takes such a file for a descriptor, wherever in it that may stand.
        raise ValueError("its vmdk header announces no capacity")
    if alone and descriptor_at * 512 != EMBEDDED_AT:
        raise ValueError("its embedded vmdk descriptor is not where qemu reads it")
