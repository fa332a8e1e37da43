"""ISO 9660 (ECMA-119, with Joliet), HFS Plus (Apple's TN1150) and APFS, known by their headers."""

from __future__ import annotations

import hashlib
import struct
from uuid import UUID

from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signature import Signature, label_text, uuid_text

_ISO = 32768
_ISO_SECTOR = 2048
_ISO_DESCRIPTORS = 16
_ISO_LAST = 255
_JOLIET = (b"%/@", b"%/C", b"%/E")
_HFS = 1024
_HFS_UUID_SPACE = UUID("b3e20f39-f292-11d6-97a4-00306543ecac")
_HFS_EXTENTS = 8
_HFS_LEAF = 0xFF
_HFS_ROOT_PARENT = 1


def iso9660(probe: Probe) -> Signature:
    """The UUID is the moment at which it was made: of modification, else of creation."""
    head = probe.head[_ISO : _ISO + _ISO_SECTOR]
    name = head[40:72]
    label = label_text(name)
    for number in range(1, _ISO_DESCRIPTORS):
        other = probe.head[_ISO + number * _ISO_SECTOR :][:_ISO_SECTOR]
        if not other or other[0] == _ISO_LAST or other[1:6] != b"CD001":
            break
        if other[0] == 2 and other[88:91] in _JOLIET:
            # Joliet has room for 16 letters: where both agree so far, the other is whole.
            wide = other[40:72]
            if wide != b"".join(b"\0" + name[at : at + 1] for at in range(16)):
                label = label_text(wide, "utf-16-be")
            break
    uuid = _iso_date(head[830:847]) or _iso_date(head[813:830])
    blocks, block = struct.unpack_from("<I", head, 80)[0], struct.unpack_from("<H", head, 128)[0]
    return Signature("iso9660", label, uuid, blocks * block)


def apfs(probe: Probe) -> Signature:
    """The container's; its volumes have names of their own."""
    block_size, blocks = struct.unpack_from("<IQ", probe.head, 36)
    return Signature("apfs", "", uuid_text(probe.head[72:88]), block_size * blocks)


def hfs(probe: Probe) -> Signature:
    """HFS Plus inside the old HFS as a wrapper; or the old HFS itself."""
    head = probe.head[_HFS : _HFS + 512]
    if head[0x7C:0x7E] not in (b"H+", b"HX"):
        return Signature("hfs", label_text(head[37 : 37 + min(head[36], 27)], "mac-roman"))
    (block_size,) = struct.unpack_from(">I", head, 20)
    first_sector, start = struct.unpack_from(">H", head, 28)[0], struct.unpack_from(">H", head, 126)
    return _hfsplus_at(probe, first_sector * 512 + start[0] * block_size)


def hfsplus(probe: Probe) -> Signature:
    return _hfsplus_at(probe, 0)


def _iso_date(raw: bytes) -> str:
    digits = raw[:16]
    if not digits.isdigit() or (digits == b"0" * 16 and not raw[16]):
        return ""
    text = digits.decode("ascii")
    return "-".join((text[:4], *(text[at : at + 2] for at in range(4, 16, 2))))


def _hfsplus_at(probe: Probe, start: int) -> Signature:
    """The UUID is a hash (as in RFC 4122, version 3) of eight bytes that the system chose."""
    head = probe.read(start + _HFS, 512)
    if head[:2] not in (b"H+", b"HX"):
        return Signature("hfsplus")
    block_size, blocks = struct.unpack_from(">II", head, 40)
    chosen = head[104:112]
    uuid = ""
    if any(chosen):
        digest = hashlib.md5(_HFS_UUID_SPACE.bytes + chosen, usedforsecurity=False).digest()
        uuid = str(UUID(bytes=digest, version=3))
    label = _hfsplus_label(probe, start, block_size, head)
    return Signature("hfsplus", label, uuid, block_size * blocks)


def _hfsplus_label(probe: Probe, start: int, block_size: int, head: bytes) -> str:
    """The name of the root folder: the key of the catalogue's first record."""
    extents = struct.unpack_from(">16I", head, 288)
    if not 512 <= block_size <= 1 << 20:
        return ""
    header = probe.read(start + extents[0] * block_size, 512)
    first_leaf, node_size = struct.unpack_from(">I", header, 24)[0], 0
    (node_size,) = struct.unpack_from(">H", header, 32)
    if not 512 <= node_size <= 32768:
        return ""
    block, within = divmod(first_leaf * node_size, block_size)
    for extent in range(_HFS_EXTENTS):
        first, count = extents[2 * extent : 2 * extent + 2]
        if block < count:
            node = probe.read(start + (first + block) * block_size + within, node_size)
            return _first_key(node)
        block -= count
    return ""


def _first_key(node: bytes) -> str:
    parent, letters = struct.unpack_from(">IH", node, 16)
    if node[8] != _HFS_LEAF or parent != _HFS_ROOT_PARENT:
        return ""
    return label_text(node[22 : 22 + 2 * min(letters, 255)], "utf-16-be")
