"""The journal's superblock: how long the log is, where it starts, and how it is written.

Decides which journals can be replayed. Knows no block of the log.
Layout: struct journal_superblock_s in include/linux/jbd2.h, checks as `journal_get_superblock`.
All numbers of a journal are big-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported
from backpoint_fusefs.guest.parsers.ext.checksum import crc32c

JOURNAL_MAGIC: Final = 0xC03B3998

_VERSION_1, _VERSION_2 = 3, 4
_CHECKSUM, _IS_64BIT, _ASYNC_COMMIT = 0x1, 0x2, 0x4
_CHECKSUM_V2, _CHECKSUM_V3, _FAST_COMMIT = 0x8, 0x10, 0x20
# 1 is revoke, which every journal may have.
_KNOWN_INCOMPAT = 0x1 | _IS_64BIT | _ASYNC_COMMIT | _CHECKSUM_V2 | _CHECKSUM_V3 | _FAST_COMMIT
_CRC32C = 4
_SIZE = 1024
_FAST_COMMIT_BLOCKS = 256
# magic, block type, sequence, block size, length, first, sequence, start, error, features, UUID
_HEAD = struct.Struct(">IIIIIIIIIIII16s")


@dataclass(frozen=True)
class JournalSuperblock:
    """Places are numbers of the journal's blocks. The log goes round in [first, end); start: 0 if
    it is empty. checksum_seed: of its blocks, where they have checksums."""

    first: int
    end: int
    start: int
    sequence: int
    is_64bit: bool
    is_async: bool
    has_commit_checksums: bool
    checksum_version: int
    checksum_seed: int
    fast_commit_blocks: int

    @property
    def tag_size(self) -> int:
        """`journal_tag_bytes`: of a tag in a descriptor, without a UUID."""
        if self.checksum_version == 3:
            return 16
        return 8 + (4 if self.is_64bit else 0) + (2 if self.checksum_version == 2 else 0)


def decode_journal_superblock(raw: bytes, block_size: int, blocks: int) -> JournalSuperblock:
    """block_size: of the filesystem. blocks: that the journal has room for. Raises GuestError."""
    magic, kind, _, size, length, first, sequence, start, _, compat, incompat, _, uuid = (
        _HEAD.unpack_from(raw)
    )
    if magic != JOURNAL_MAGIC or kind not in (_VERSION_1, _VERSION_2) or size != block_size:
        raise GuestDamaged("it has no superblock of its own")
    if kind == _VERSION_1:
        compat = incompat = 0
    if incompat & ~_KNOWN_INCOMPAT:
        raise GuestUnsupported(f"it has unknown features ({incompat & ~_KNOWN_INCOMPAT:#x})")
    version = 3 if incompat & _CHECKSUM_V3 else 2 if incompat & _CHECKSUM_V2 else 0
    if version:
        _check(raw[:_SIZE], incompat)
    fast = 0
    if incompat & _FAST_COMMIT:
        fast = int.from_bytes(raw[0x54:0x58], "big") or _FAST_COMMIT_BLOCKS
    end = length - fast
    if not 0 < first < end <= length <= blocks or start >= end or 0 < start < first:
        raise GuestDamaged("its superblock contradicts itself")
    return JournalSuperblock(
        first=first,
        end=end,
        start=start,
        sequence=sequence,
        is_64bit=bool(incompat & _IS_64BIT),
        is_async=bool(incompat & _ASYNC_COMMIT),
        has_commit_checksums=bool(compat & _CHECKSUM),
        checksum_version=version,
        checksum_seed=crc32c(0xFFFF_FFFF, uuid),
        fast_commit_blocks=fast,
    )


def _check(raw: bytes, incompat: int) -> None:
    if incompat & _CHECKSUM_V3 and incompat & _CHECKSUM_V2:
        raise GuestDamaged("its superblock contradicts itself")
    if raw[0x50] != _CRC32C:
        raise GuestUnsupported(f"its checksums are of an unknown type ({raw[0x50]})")
    if crc32c(0xFFFF_FFFF, raw[:0xFC] + bytes(4) + raw[0x100:]) != int.from_bytes(
        raw[0xFC:0x100], "big"
    ):
        raise GuestDamaged("its superblock has a wrong checksum")
