"""The text file that makes a raw disk image a VMDK for VMware and QEMU.

Decides the descriptor's every line: one extent of type VMFS (the only kind ESXi takes without
conversion), no parent, no changed-block tracking. Knows no repositories and writes no files.

A disk whose size is not a multiple of 512 keeps its true size in the flat file, so that it stays
equal to its source; the descriptor counts the last, partial sector as a whole one. QEMU reads zeros
for what is missing of it. VMware has no such disks. An empty disk is described with one sector:
QEMU 7.2 aborts on an extent of none.
"""

from __future__ import annotations

import hashlib
from typing import Final

from backpoint_repo.errors import UsageError

SECTOR: Final = 512
_HEADS: Final = 255
_SECTORS_PER_TRACK: Final = 63
_NO_PARENT: Final = 0xFFFFFFFF
_NAME_MAX: Final = 511
"""Bytes of an extent's name that QEMU reads."""

_TEMPLATE: Final = """\
# Disk DescriptorFile
version=1
encoding="UTF-8"
CID={cid:08x}
parentCID={no_parent:08x}
isNativeSnapshot="no"
createType="vmfs"

# Extent description
RW {sectors} VMFS "{flat_name}"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "{sectors_per_track}"
ddb.longContentID = "{long_content_id}"
ddb.thinProvisioned = "1"
ddb.uuid = "{uuid}"
ddb.virtualHWVersion = "11"
"""


def describe_flat_disk(flat_name: str, size: int, identity: bytes) -> bytes:
    """The descriptor of a flat image `flat_name` of `size` bytes that lies beside it.

    identity: whatever tells this content from any other (a point's id and the disk's number); the
    same identity gives the same bytes. Raises UsageError where a descriptor cannot hold the name.
    """
    _refuse_bad_name(flat_name)
    sectors = max(1, -(-size // SECTOR))
    digest = hashlib.blake2b(identity, digest_size=28, person=b"backpoint vmdk").digest()
    content_id = int.from_bytes(digest[:4], "big")
    if content_id == _NO_PARENT:
        content_id -= 1
    text = _TEMPLATE.format(
        cid=content_id,
        no_parent=_NO_PARENT,
        sectors=sectors,
        flat_name=flat_name,
        cylinders=max(1, sectors // (_HEADS * _SECTORS_PER_TRACK)),
        heads=_HEADS,
        sectors_per_track=_SECTORS_PER_TRACK,
        # VMware wants the long id to end in the short one.
        long_content_id=f"{digest[4:16].hex()}{content_id:08x}",
        uuid=_uuid_text(digest[12:]),
    )
    return text.encode()


def _uuid_text(uuid: bytes) -> str:
    """16 bytes as VMware writes them: two groups of eight, `60 00 C2 9` marking a disk's uuid."""
    marked = bytes((0x60, 0x00, 0xC2, 0x90 | uuid[3] & 0x0F)) + uuid[4:]
    return f"{marked[:8].hex(' ')}-{marked[8:].hex(' ')}"


def _refuse_bad_name(flat_name: str) -> None:
    if any(sign in flat_name for sign in '"/\r\n\0') or not flat_name:
        raise UsageError(f"a vmdk descriptor cannot refer to a file named {flat_name!r}")
    if len(flat_name.encode("utf-8", "surrogateescape")) > _NAME_MAX:
        raise UsageError(f"a file name of more than {_NAME_MAX} bytes is too long for a vmdk")
    try:
        flat_name.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"a vmdk descriptor is UTF-8 and cannot refer to a file named {flat_name!r}"
        ) from None
