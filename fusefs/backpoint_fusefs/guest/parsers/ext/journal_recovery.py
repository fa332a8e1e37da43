"""Recovery of a filesystem that was not unmounted: finds its journal and lays it over the volume.

Decides what is said when changes in the journal cannot be shown; the tree is then shown as it is
on the disk. A mount would clear up orphaned inodes next. Of that nothing can be seen but the times
of a file whose truncation was interrupted, which become those of the mount: unlinked files are in
no folder, and a truncated one has its new size already.
"""

from __future__ import annotations

from dataclasses import dataclass

from backpoint_fusefs.guest.filesystem import (
    GuestDamaged,
    GuestError,
    VolumeFacts,
    VolumeImage,
)
from backpoint_fusefs.guest.parsers.ext.block_map import runs_of
from backpoint_fusefs.guest.parsers.ext.blocks import Blocks
from backpoint_fusefs.guest.parsers.ext.fast_commit import holds_fast_commit
from backpoint_fusefs.guest.parsers.ext.inode_table import InodeTable
from backpoint_fusefs.guest.parsers.ext.journal_file import JournalFile
from backpoint_fusefs.guest.parsers.ext.journal_log import JournalLog
from backpoint_fusefs.guest.parsers.ext.journal_overlay import JournalOverlay
from backpoint_fusefs.guest.parsers.ext.journal_superblock import decode_journal_superblock
from backpoint_fusefs.guest.parsers.ext.superblock import Superblock

_MAX_RUNS = 1 << 16
_EXTERNAL = "Its journal is on another device: changes that are only there are not shown."
_FAST_COMMITS = "Its journal ends with fast commits, which are not known here: they are not shown."


@dataclass(frozen=True)
class Recovered:
    """image: of the volume as the journal leaves it."""

    image: JournalOverlay
    facts: VolumeFacts


def recover(image: VolumeImage, superblock: Superblock) -> Recovered:
    """Never fails: what cannot be recovered is said in the facts."""
    plain = JournalOverlay(image, superblock.block_size, {})
    if not superblock.needs_recovery:
        return Recovered(plain, VolumeFacts())
    if not superblock.journal_ino:
        return Recovered(plain, VolumeFacts(_EXTERNAL))
    try:
        return _replay(image, superblock)
    except GuestError as error:
        sentence = f"Its journal cannot be replayed ({error}): changes in it are not shown."
        return Recovered(plain, VolumeFacts(sentence))


def _replay(image: VolumeImage, superblock: Superblock) -> Recovered:
    file, length = _journal_file(image, superblock)
    journal = decode_journal_superblock(file.read(0), superblock.block_size, length)
    log = JournalLog(journal, file, superblock.blocks)
    overlay = JournalOverlay(image, superblock.block_size, copies := log.copies())
    if journal.is_async:
        # Only the copies' own checksums say whether all that was committed reached the disk.
        overlay.verify()
    is_cut = journal.start and holds_fast_commit(journal, file, log.end_sequence())
    return Recovered(overlay, VolumeFacts(_FAST_COMMITS if is_cut else "", len(copies)))


def _journal_file(image: VolumeImage, superblock: Superblock) -> tuple[JournalFile, int]:
    """With the number of blocks that it has room for."""
    blocks = Blocks(image, superblock)
    inode = InodeTable(blocks, superblock).any_inode(superblock.journal_ino)
    if not inode.is_regular:
        raise GuestDamaged("its inode is not a file's")
    runs = []
    for run in runs_of(blocks, superblock, inode):
        runs.append(run)
        if len(runs) > _MAX_RUNS:
            raise GuestDamaged("it is too fragmented")
    return JournalFile(blocks, runs), inode.size // superblock.block_size
