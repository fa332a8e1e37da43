"""The log of a journal: which blocks a recovery would write.

Decides where the valid log ends: an interrupted transaction is left out, a corrupt one in the
middle makes the whole journal damaged, as the kernel refuses to mount then. As `do_one_pass` of
fs/jbd2/recovery.c, but its three passes (find the end, collect revocations, write) are one here:
nothing is written, so a transaction's revocations can simply take back what those before it and it
itself would have written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported
from backpoint_fusefs.guest.parsers.ext.checksum import crc32c
from backpoint_fusefs.guest.parsers.ext.journal_block import (
    COMMIT,
    DESCRIPTOR,
    REVOKE,
    TransactionChecksum,
    commit_time,
    has_right_tail,
    is_right_commit,
    kind_of,
    revoked_by,
    tags_of,
)
from backpoint_fusefs.guest.parsers.ext.journal_file import JournalFile
from backpoint_fusefs.guest.parsers.ext.journal_overlay import Copy
from backpoint_fusefs.guest.parsers.ext.journal_superblock import JournalSuperblock

# About 150 MB of memory; a journal of the largest default size (1 GiB) has half as many blocks.
MAX_COPIES: Final = 1 << 19


_MAX_REVOKED = 1 << 20
# 8 GiB of 4 KiB blocks, walked in about 6 s.
_MAX_STEPS = 1 << 21


@dataclass
class _Transaction:
    """What was read of the transaction whose commit has not been found yet.

    problem: why it must not be committed. is_suspect: a block has a wrong checksum; it may be left
    from an older round of the log.
    """

    copies: dict[int, Copy] = field(default_factory=dict)
    revoked: list[int] = field(default_factory=list)
    checksum: TransactionChecksum = field(default_factory=TransactionChecksum)
    is_suspect: bool = False
    problem: str = ""


class JournalLog:
    """Of one journal, to be walked once. blocks: that the filesystem has."""

    def __init__(self, journal: JournalSuperblock, file: JournalFile, blocks: int) -> None:
        self._journal = journal
        self._file = file
        self._blocks = blocks
        self._at = journal.start
        self._steps = 0
        self._sequence = journal.sequence
        self._open = _Transaction()
        self._last_commit_time = 0
        self._copies: dict[int, Copy] = {}
        self._interrupted: int | None = None

    def copies(self) -> dict[int, Copy]:
        """What replaces which block. Raises GuestError where the kernel would not recover."""
        if self._journal.start:
            self._walk()
        return self._copies

    def end_sequence(self) -> int:
        """Of the first transaction that does not count, once the log was walked."""
        return self._sequence if self._interrupted is None else self._interrupted

    def _walk(self) -> None:
        while True:
            raw = self._file.read(self._step())
            kind = kind_of(raw, self._sequence)
            if kind == DESCRIPTOR:
                self._describe(raw)
            elif kind == REVOKE:
                self._revoke(raw)
            elif kind != COMMIT or not self._commit(raw):
                return

    def _step(self) -> int:
        """The next block of the log, which is a ring."""
        self._steps += 1
        if self._steps > self._journal.end - self._journal.first + 1:
            raise GuestDamaged("its log has no end")
        if self._steps > _MAX_STEPS:
            raise GuestUnsupported(f"its log is longer than {_MAX_STEPS} blocks")
        number = self._at
        self._at = number + 1 if number + 1 < self._journal.end else self._journal.first
        return number

    def _describe(self, raw: bytes) -> None:
        journal, transaction = self._journal, self._open
        transaction.is_suspect |= not has_right_tail(journal, raw)
        is_summed = journal.has_commit_checksums and self._interrupted is None
        if is_summed:
            transaction.checksum.add(raw)
        seed = crc32c(journal.checksum_seed, self._sequence.to_bytes(4, "big"))
        mask = {2: 0xFFFF, 3: 0xFFFF_FFFF}.get(journal.checksum_version, 0)
        for block, escaped, checksum in tags_of(journal, raw):
            number = self._step()
            if is_summed:
                transaction.checksum.add(self._file.read(number))
            if block >= self._blocks:
                transaction.problem = f"writes the impossible block {block}"
            copy = Copy(self._file.offset(number), escaped, seed, checksum, mask)
            transaction.copies[block] = copy
        if len(self._copies) + len(transaction.copies) > MAX_COPIES:
            raise GuestUnsupported(f"it holds more than {MAX_COPIES} blocks")

    def _revoke(self, raw: bytes) -> None:
        transaction = self._open
        transaction.is_suspect |= not has_right_tail(self._journal, raw)
        try:
            transaction.revoked += revoked_by(self._journal, raw)
        except GuestDamaged as damage:
            transaction.problem = str(damage)
        if len(transaction.revoked) > _MAX_REVOKED:
            raise GuestUnsupported(f"one transaction revokes more than {_MAX_REVOKED} blocks")

    def _commit(self, raw: bytes) -> bool:
        """Whether the log goes on."""
        if self._interrupted is not None:
            raise GuestDamaged(f"its transaction {self._interrupted} has a wrong checksum")
        time = commit_time(raw)
        if self._is_right(raw):
            self._close(self._open)
            self._last_commit_time = time
        elif time < self._last_commit_time:
            return False  # Left from an older round of the log.
        elif self._open.is_suspect or not self._journal.is_async:
            raise GuestDamaged(f"its transaction {self._sequence} has a wrong checksum")
        else:
            # An asynchronous commit may reach the disk before what it commits: interrupted, unless
            # (as only the checksums of version 1 are asked) another commit follows.
            self._interrupted = self._sequence
            if not self._journal.has_commit_checksums:
                return False
        self._open = _Transaction()
        self._sequence = (self._sequence + 1) & 0xFFFF_FFFF
        return True

    def _is_right(self, raw: bytes) -> bool:
        if self._open.is_suspect or not is_right_commit(self._journal, raw):
            return False
        return not self._journal.has_commit_checksums or self._open.checksum.matches(raw)

    def _close(self, transaction: _Transaction) -> None:
        if transaction.problem:
            raise GuestDamaged(f"its transaction {self._sequence} {transaction.problem}")
        self._copies.update(transaction.copies)
        # Copies of this transaction and of those before it, but not of later ones.
        for block in transaction.revoked:
            self._copies.pop(block, None)
