"""Superblocks of Linux software RAID, as mdadm writes them (include/uapi/linux/raid/md_p.h).

For disks of tests: this kernel has no md. Whether they are right, blkid is asked.
"""

from __future__ import annotations

import struct

MAGIC = 0xA92B4EFC
SECTOR = 512
_ROLES = 4


def new_superblock(
    at: int,
    *,
    level: int = 1,
    offset: int,
    size: int,
    name: str = "host:data",
    role: int = 0,
    events: int = 20,
    features: int = 0,
    set_uuid: bytes = bytes(range(16)),
) -> bytes:
    """Version 1.x, to be written at byte `at`; offset and size in bytes, of the data."""
    constant = struct.pack(
        "<IIII16s32sQiIQIII", MAGIC, 1, features, 0, set_uuid, name.encode(), 0, level, 0,
        size // SECTOR, 0, 2, 0,
    ).ljust(128, b"\0")  # fmt: skip
    device = struct.pack(
        "<QQQQII16s", offset // SECTOR, size // SECTOR, at // SECTOR, 0, role, 0, bytes(range(16))
    ).ljust(64, b"\0")
    state = struct.pack("<QQQII", 0, events, 0, 0, _ROLES).ljust(64, b"\0")
    roles = struct.pack(f"<{_ROLES}H", 0, 1, 0xFFFF, 0xFFFE)
    block = constant + device + state + roles
    return block[:216] + struct.pack("<I", _fold(block)) + block[220:]


def old_superblock(*, level: int = 1, size: int, minor: int = 3, state: int = 0b110) -> bytes:
    """Version 0.90; size: of the data, in bytes."""
    words = [0] * 1024
    words[:16] = (
        *(MAGIC, 0, 90, 0, 0, 0x11111111, 0, level, size // 1024, 2, 2, minor, 0),
        *(0x22222222, 0x33333333, 0x44444444),
    )
    words[39] = 20
    words[992:997] = [0, 8, 1, 0, state]
    words[38] = _fold(struct.pack("<1024I", *words))
    return struct.pack("<1024I", *words)


def old_superblock_at(size: int) -> int:
    """Where version 0.90 is on a device of this size."""
    return size // 65536 * 65536 - 65536


def _fold(block: bytes) -> int:
    total: int = sum(struct.unpack(f"<{len(block) // 4}I", block))
    return (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF
