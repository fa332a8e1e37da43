"""Fast commits: ext4's short records at the journal's end, of what changed since the last commit.

Decides only whether there are any that a mount would replay. They are not replayed here.
Layout: fs/ext4/fast_commit.h, validity as `ext4_fc_replay_scan` in fs/ext4/fast_commit.c.
"""

from __future__ import annotations

import struct

from backpoint_fusefs.guest.parsers.ext.checksum import crc32c
from backpoint_fusefs.guest.parsers.ext.journal_file import JournalFile
from backpoint_fusefs.guest.parsers.ext.journal_superblock import JournalSuperblock

_TAG = struct.Struct("<HH")  # tag, length of what follows
_HEAD_TAG, _TAIL_TAG = 9, 8
_HEAD = struct.Struct("<II")  # features, transaction
_TAIL = struct.Struct("<II")  # transaction, checksum


def holds_fast_commit(journal: JournalSuperblock, file: JournalFile, sequence: int) -> bool:
    """Whether one is whole that follows the last transaction. Raises GuestDamaged."""
    checksum, has_begun = 0, False
    # The kernel leaves the first of the blocks for them alone (`j_fc_first` is `j_last + 1`).
    for number in range(journal.end + 1, journal.end + journal.fast_commit_blocks):
        raw, at = file.read(number), 0
        while at + _TAG.size <= len(raw):
            tag, length = _TAG.unpack_from(raw, at)
            value = raw[at + _TAG.size : at + _TAG.size + length]
            if tag == _HEAD_TAG and len(value) >= _HEAD.size:
                if _HEAD.unpack_from(value)[1] != sequence:
                    return False
                has_begun = True
            elif not has_begun:
                return False
            if tag == _TAIL_TAG and len(value) >= _TAIL.size:
                checksum = crc32c(checksum, raw[at : at + _TAG.size + 4])
                return _TAIL.unpack_from(value) == (sequence, checksum)
            checksum = crc32c(checksum, raw[at : at + _TAG.size + length])
            at += _TAG.size + length
    return False
