"""What holds other volumes or is closed to us: LVM2, RAID members, encryption, pools, caches.

Offsets are those of LVM2's label.h and layout.h, cryptsetup's luks.h and luks2.h, the kernel's
bcache.h, OpenZFS' vdev_impl.h (a label's name and value pairs are XDR) and DRBD's metadata.
"""

from __future__ import annotations

import struct

from backpoint_fusefs.guest.parsers.layout.md_member import read_member
from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signature import Signature, label_text, uuid_text

_SECTOR = 512
_ZFS_PAIRS = 16384
_XDR_STRING = 9
_XDR_UINT64 = 8
_VMFS_MEMBER = 1 << 20
_DRBD = (0x8374026B, 0x8374026C, 0x8374026D)


def lvm2(probe: Probe) -> Signature | None:
    """A physical volume, whose label is in one of the first four sectors."""
    for sector in range(4):
        label = probe.head[sector * _SECTOR : (sector + 1) * _SECTOR]
        if label[:8] == b"LABELONE" and label[24:32] == b"LVM2 001":
            (at,) = struct.unpack_from("<I", label, 20)
            raw = label[at : at + 40]
            if len(raw) < 40:
                return Signature("lvm2")
            return Signature("lvm2", "", pv_uuid_text(raw[:32]), *struct.unpack("<Q", raw[32:]))
    return None


def pv_uuid_text(raw: bytes) -> str:
    """The 32 letters of a UUID of LVM2 with their hyphens."""
    text = label_text(raw, "ascii")
    ends = (6, 10, 14, 18, 22, 26, 32)
    return "-".join(text[start:end] for start, end in zip((0, *ends), ends, strict=False))


def luks(probe: Probe) -> Signature:
    (version,) = struct.unpack_from(">H", probe.head, 6)
    uuid = label_text(probe.head[168:208])
    label = label_text(probe.head[24:72]) if version == 2 else ""
    problem = f"encrypted with LUKS{version}: its files cannot be read without the key"
    return Signature("luks", label, uuid, problem=problem)


def md(probe: Probe) -> Signature | None:
    member = read_member(probe, 0) or read_member(probe, 4096)
    if member is None:
        return None
    return Signature("md", member.name, member.set_uuid)


def bcache(probe: Probe) -> Signature:
    return Signature("bcache", "", uuid_text(probe.head[4096 + 40 : 4096 + 56]))


def bcachefs(probe: Probe) -> Signature:
    return Signature("bcachefs", "", uuid_text(probe.head[4096 + 56 : 4096 + 72]))


def zfs(probe: Probe) -> Signature | None:
    """The pool's name and number, from the pairs in the first label."""
    pairs = probe.head[_ZFS_PAIRS : _ZFS_PAIRS + 16384]
    guid = _xdr_value(pairs, b"pool_guid", _XDR_UINT64)
    if guid is None:
        return None
    name = _xdr_value(pairs, b"name", _XDR_STRING) or b""
    return Signature("zfs", label_text(name), str(int.from_bytes(guid, "big")))


def drbd(probe: Probe) -> Signature | None:
    """Its metadata is the last 4 KiB."""
    magic = struct.unpack(">I", probe.from_end(4096 - 60, 4))[0]
    return Signature("drbd") if magic in _DRBD else None


def vmfs(probe: Probe) -> Signature | None:
    """Far from the beginning: asked for only where nothing else is known."""
    if probe.size < 4 << 20:
        return None
    return Signature("vmfs") if probe.read(_VMFS_MEMBER, 4) == b"\x0d\xd0\x01\xc0" else None


def _xdr_value(pairs: bytes, name: bytes, kind: int) -> bytes | None:
    """Of the first pair of this name: sizes, the name's length, the name padded to four bytes,
    the value's type, how many there are, the value."""
    key = len(name).to_bytes(4, "big") + name + bytes(-len(name) % 4) + kind.to_bytes(4, "big")
    at = pairs.find(key + b"\0\0\0\x01")
    if at < 0:
        return None
    at += len(key) + 4
    if kind == _XDR_UINT64:
        return pairs[at : at + 8]
    length = int.from_bytes(pairs[at : at + 4], "big")
    return pairs[at + 4 : at + 4 + min(length, 256)]
