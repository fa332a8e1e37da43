"""The blocks of a journal's log: descriptors with their tags, revocations, commits.

Decides what each says and whether its checksum is right, not what follows from it.
Layout: include/linux/jbd2.h; checksums as in fs/jbd2/recovery.c. All numbers are big-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.ext.checksum import crc32c
from backpoint_fusefs.guest.parsers.ext.journal_superblock import JOURNAL_MAGIC, JournalSuperblock

DESCRIPTOR: Final = 1
COMMIT: Final = 2
REVOKE: Final = 5

_HEADER = struct.Struct(">III")  # magic, type, sequence
_TAG = struct.Struct(">IHH")  # block low, checksum of version 2, flags
_TAG3 = struct.Struct(">IIII")  # block low, flags, block high, checksum
_ESCAPED, _SAME_UUID, _LAST = 0x1, 0x2, 0x8
_UUID_SIZE = 16
_TAIL_SIZE = 4
_REVOKE_HEADER_SIZE = 16
_COMMIT_HEADER_SIZE = 60
_COMMIT_CHECKSUM = 16
_COMMIT_TIME = 48
_CRC32, _CRC32_SIZE = 1, 4
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Tag(NamedTuple):
    """Which block of the filesystem a block of the log is for."""

    block: int
    escaped: bool
    checksum: int


def kind_of(raw: bytes, sequence: int) -> int:
    """The block's type; 0 if it is not one of the transaction of that number."""
    magic, kind, found = _HEADER.unpack_from(raw)
    return int(kind) if (magic, found) == (JOURNAL_MAGIC, sequence) else 0


def tags_of(journal: JournalSuperblock, raw: bytes) -> Iterator[Tag]:
    """Of a descriptor."""
    at, size = _HEADER.size, journal.tag_size
    end = len(raw) - (_TAIL_SIZE if journal.checksum_version else 0)
    while at + size <= end:
        if journal.checksum_version == 3:
            block, flags, high, checksum = _TAG3.unpack_from(raw, at)
        else:
            block, checksum, flags = _TAG.unpack_from(raw, at)
            high = int.from_bytes(raw[at + 8 : at + 12], "big")
        if journal.is_64bit:
            block |= high << 32
        yield Tag(block, bool(flags & _ESCAPED), checksum)
        if flags & _LAST:
            return
        at += size if flags & _SAME_UUID else size + _UUID_SIZE


def revoked_by(journal: JournalSuperblock, raw: bytes) -> tuple[int, ...]:
    """Blocks of the filesystem that older transactions must not write. Raises GuestDamaged."""
    end = int.from_bytes(raw[12:16], "big")
    if end > len(raw) - (_TAIL_SIZE if journal.checksum_version else 0):
        raise GuestDamaged("has a list of revoked blocks that is too long")
    size = 8 if journal.is_64bit else 4
    count = max(0, end - _REVOKE_HEADER_SIZE) // size
    return struct.unpack_from(f">{count}{'Q' if size == 8 else 'I'}", raw, _REVOKE_HEADER_SIZE)


def commit_time(raw: bytes) -> int:
    """In seconds, by the guest's clock."""
    return int.from_bytes(raw[_COMMIT_TIME : _COMMIT_TIME + 8], "big")


def has_right_tail(journal: JournalSuperblock, raw: bytes) -> bool:
    """Of a descriptor or a list of revoked blocks."""
    if not journal.checksum_version:
        return True
    computed = crc32c(journal.checksum_seed, raw[:-_TAIL_SIZE] + bytes(_TAIL_SIZE))
    return computed == int.from_bytes(raw[-_TAIL_SIZE:], "big")


def is_right_commit(journal: JournalSuperblock, raw: bytes) -> bool:
    """By the commit's own checksum, of which versions 2 and 3 of the checksums have one."""
    if not journal.checksum_version:
        return True
    stored = int.from_bytes(raw[_COMMIT_CHECKSUM : _COMMIT_CHECKSUM + 4], "big")
    without = raw[:_COMMIT_CHECKSUM] + bytes(4) + raw[_COMMIT_CHECKSUM + 4 :]
    # The kernel also takes a commit of which only the header, in the first sector, got to disk.
    header = without[:_COMMIT_HEADER_SIZE].ljust(len(raw), b"\0")
    return any(crc32c(journal.checksum_seed, whole) == stored for whole in (without, header))


class TransactionChecksum:
    """The checksum of version 1: over descriptors and copies of a transaction, stored in its
    commit. It is `crc32_be`, which zlib computes if all bits of the input are turned round."""

    def __init__(self) -> None:
        self._state = 0

    def add(self, raw: bytes) -> None:
        # zlib inverts before and after, so it starts from our ~0 and carries on from its own.
        self._state = zlib.crc32(raw.translate(_REVERSED), self._state)

    def matches(self, commit: bytes) -> bool:
        """Or the commit says that there is none."""
        kind, size = commit[12:14]
        stored = int.from_bytes(commit[_COMMIT_CHECKSUM : _COMMIT_CHECKSUM + 4], "big")
        if (kind, size, stored) == (0, 0, 0):
            return True
        computed = int(f"{self._state ^ 0xFFFF_FFFF:032b}"[::-1], 2)
        return (kind, size, stored) == (_CRC32, _CRC32_SIZE, computed)
