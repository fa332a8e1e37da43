"""Which of a disc's trees is shown, and where its root is.

Decides as Linux does: Rock Ridge before Joliet before the plain names. Format: ECMA-119, 8.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported, VolumeImage

SECTOR: Final = 2048
_FIRST: Final = 16
_DESCRIPTORS_MAX: Final = 64
_PRIMARY: Final = 1
_SUPPLEMENTARY: Final = 2
_END: Final = 255
_JOLIET: Final = (b"%/@", b"%/C", b"%/E")
_ROOT_AT: Final = 156
_BLOCK_SIZE: Final = struct.Struct("<H")
_EXTENT: Final = struct.Struct("<xBI4xI")


class VolumeDescriptor(NamedTuple):
    """root_at, root_size: where the root folder's records lie on the volume."""

    joliet: bool
    block: int
    root_at: int
    root_size: int


def read_descriptors(image: VolumeImage) -> tuple[VolumeDescriptor, VolumeDescriptor | None]:
    """The primary one, and Joliet's if there is one."""
    primary = joliet = None
    for number in range(_FIRST, _FIRST + _DESCRIPTORS_MAX):
        sector = image.read(number * SECTOR, SECTOR)
        if len(sector) < SECTOR or sector[1:6] != b"CD001":
            break
        kind = sector[0]
        if kind == _END:
            break
        if kind == _PRIMARY and primary is None:
            primary = _descriptor(sector, joliet=False)
        elif kind == _SUPPLEMENTARY and sector[88:91] in _JOLIET and joliet is None:
            joliet = _descriptor(sector, joliet=True)
    if primary is None:
        raise GuestDamaged("the disc has no primary volume descriptor")
    return primary, joliet


def _descriptor(sector: bytes, *, joliet: bool) -> VolumeDescriptor:
    (block,) = _BLOCK_SIZE.unpack_from(sector, 128)
    if block not in (512, 1024, 2048):
        raise GuestUnsupported(f"a disc with blocks of {block} bytes")
    attributes, extent, size = _EXTENT.unpack_from(sector, _ROOT_AT)
    return VolumeDescriptor(joliet, block, (extent + attributes) * block, size)
