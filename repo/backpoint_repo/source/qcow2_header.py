"""What the header of a qcow2 image says about other files.

Decides only which files the image points at; nothing here opens one. Clusters, snapshots and
encryption are qemu's business.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER_SIZE = (
    64 << 10
)  # header, extensions and backing name end within the first cluster we look at

_MAGIC = b"QFI\xfb"
_EXTERNAL_DATA = 1 << 2
_EXTENSION_END, _EXTENSION_BACKING_FORMAT = 0, 0xE2792ACA
_EXTENSIONS_LIMIT = 64


@dataclass(frozen=True)
class Qcow2Header:
    """Names as they stand in the image, not yet trusted; None where there is none."""

    backing_name: bytes | None
    backing_format: bytes | None
    external_data: bool


def parse_qcow2_header(data: bytes) -> Qcow2Header:
    """Read a header from the image's first HEADER_SIZE bytes (fewer if the image is shorter).

    Raises ValueError with a phrase that says what is wrong.
    """
    if len(data) < 72 or data[:4] != _MAGIC:
        raise ValueError("its qcow2 header is cut short")
    version, name_offset, name_length = struct.unpack_from(">IQI", data, 4)
    if version not in (2, 3):
        raise ValueError(f"its qcow2 version is {version}, only 2 and 3 are known")
    external_data, extensions_at = False, 72
    if version == 3:
        if len(data) < 104:
            raise ValueError("its qcow2 header is cut short")
        (incompatible,) = struct.unpack_from(">Q", data, 72)
        (extensions_at,) = struct.unpack_from(">I", data, 100)
        external_data = bool(incompatible & _EXTERNAL_DATA)
    backing_name = None
    if name_offset:
        backing_name = data[name_offset : name_offset + name_length]
        if not name_length or len(backing_name) != name_length:
            raise ValueError("the name of its backing file lies outside its header")
    return Qcow2Header(backing_name, _backing_format(data, extensions_at), external_data)


def _backing_format(data: bytes, at: int) -> bytes | None:
    for _ in range(_EXTENSIONS_LIMIT):
        if at + 8 > len(data):
            raise ValueError("its qcow2 header extensions are cut short")
        kind, length = struct.unpack_from(">II", data, at)
        if kind == _EXTENSION_END:
            return None
        if kind == _EXTENSION_BACKING_FORMAT:
            return data[at + 8 : at + 8 + length]
        at += 8 + (length + 7) // 8 * 8
    raise ValueError("its qcow2 header has too many extensions")
