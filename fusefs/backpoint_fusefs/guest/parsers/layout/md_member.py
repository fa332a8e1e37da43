"""A member of a Linux software RAID (md): which array, its level, where on it the data lies.

Metadata 0.90, 1.0 (both at the end), 1.1 and 1.2 (at the beginning), as in the kernel's
include/uapi/linux/raid/md_p.h, with their checksums. Decides whether one member of a mirror has
all of its data; knows nothing of what the array holds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from backpoint_fusefs.guest.parsers.layout.probe import TAIL_SIZE, Probe
from backpoint_fusefs.guest.parsers.layout.signature import label_text, uuid_text

_MAGIC = 0xA92B4EFC
_SECTOR = 512
_OLD_SIZE = 4096
_OLD_ALIGNMENT = 65536
_OLD_ACTIVE_AND_IN_SYNC = 0b110
_RECOVERING = 0x2
_RESHAPING = 0x4
_MAX_ROLES = 1920
_SPARE_ROLES = 0xFF00


@dataclass(frozen=True, slots=True)
class MdMember:
    """level: 1 for a mirror, as the kernel numbers them. offset, size: of the data, in bytes.

    complete: it has every block of the array. events: how often the array's metadata changed.
    minor: of metadata 0.90, which has no name, the number of its device; else -1.
    """

    set_uuid: str
    name: str
    level: int
    offset: int
    size: int
    events: int
    complete: bool
    minor: int = -1


def find_member(probe: Probe) -> MdMember | None:
    """Wherever its metadata is; the last 128 KiB are read for that."""
    return read_member(probe, 0) or read_member(probe, 4096) or find_member_at_end(probe)


def find_member_at_end(probe: Probe) -> MdMember | None:
    """Metadata 0.90 or 1.0."""
    if probe.size < TAIL_SIZE:
        return None
    at = (probe.size & ~(_OLD_ALIGNMENT - 1)) - _OLD_ALIGNMENT
    old = _old_member(probe.from_end(probe.size - at, _OLD_SIZE))
    return old or read_member(probe, (probe.size & ~0xFFF) - 0x2000)


def read_member(probe: Probe, at: int) -> MdMember | None:
    """Metadata 1.x at byte `at`; None if it is not there, or damaged."""
    if struct.unpack("<II", probe.read(at, 8)) != (_MAGIC, 1):
        return None
    block = probe.read(at, 4096)
    features = struct.unpack_from("<I", block, 8)[0]
    (level,) = struct.unpack_from("<i", block, 72)
    (size,) = struct.unpack_from("<Q", block, 80)
    offset, available, own = struct.unpack_from("<QQQ", block, 128)
    (number,) = struct.unpack_from("<I", block, 160)
    (events,) = struct.unpack_from("<Q", block, 200)
    sum_, roles = struct.unpack_from("<II", block, 216)
    if own != at // _SECTOR or roles > _MAX_ROLES or _new_sum(block, roles) != sum_:
        return None
    role = struct.unpack_from("<H", block, 256 + 2 * number)[0] if number < roles else 0xFFFF
    return MdMember(
        uuid_text(block[16:32]),
        label_text(block[32:64]),
        level,
        offset * _SECTOR,
        min(size, available) * _SECTOR,
        events,
        role < _SPARE_ROLES and not features & (_RECOVERING | _RESHAPING),
    )


def _new_sum(block: bytes, roles: int) -> int:
    counted = block[:216] + bytes(4) + block[220 : 256 + 2 * roles]
    total: int = sum(word for (word,) in struct.iter_unpack("<I", counted[: len(counted) & ~3]))
    if len(counted) % 4:
        total += int.from_bytes(counted[-2:], "little")
    return (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF


def _old_member(block: bytes) -> MdMember | None:
    words = struct.unpack("<1024I", block)
    if words[0] != _MAGIC or words[1] != 0:
        return None
    total = sum(words) - words[38]
    if (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF != words[38]:
        return None
    level = words[7] - (1 << 32) if words[7] >> 31 else words[7]
    # blkid prints the four words as numbers: the bytes of each the other way round.
    uuid = uuid_text(struct.pack(">4I", words[5], *words[13:16]))
    events = words[39] | words[40] << 32
    state = words[992 + 4]
    complete = state & 0b111 == _OLD_ACTIVE_AND_IN_SYNC
    return MdMember(uuid, "", level, 0, words[8] * 1024, events, complete, words[11])
