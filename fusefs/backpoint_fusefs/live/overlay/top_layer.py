"""The layer that is written to: what was written since the last sync, and how a sync stores it.

A small sync puts the content itself into the log, one write in place; a large one flushes the data
file and logs only which blocks it has. Writers hold `_writing` while they write, so that content is
copied for the log between two writes, never within one; whoever makes things durable (`commit`,
`resize`, `end`) must be one at a time, which the disk sees to. Knows nothing of what lies below.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Mapping
from typing import Final

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.overlay.block_set import BLOCK, BlockSet
from backpoint_fusefs.live.overlay.data_file import DataFile, SyncFailed
from backpoint_fusefs.live.overlay.layer import Layer, blocks_of, whole_blocks
from backpoint_fusefs.live.overlay.layer_files import LayerFiles
from backpoint_fusefs.live.overlay.layer_journal import LayerJournal
from backpoint_fusefs.live.overlay.log_record import DiskSizes
from backpoint_fusefs.live.overlay.map_snapshot import MapSnapshot
from backpoint_fusefs.live.overlay.recovery import apply_recovery, shorten

SMALL_SYNC: Final = 32
"""Blocks up to which a sync writes them to the log: 128 KiB, where both ways cost the same."""
AT_ONCE: Final = 1 << 20
"""Bytes that may be written without waiting before a sync: the kernel slows down whom it must, not
somebody who has this little in memory."""


class TopLayer(Layer):
    """Its writing methods are thread-safe; all raise OSError."""

    def __init__(
        self,
        files: LayerFiles,
        data: DataFile,
        held: BlockSet,
        sizes: DiskSizes,
        journal: LayerJournal,
        *,
        inherited: bool,
    ) -> None:
        """Use `begin_layer` or `recover_layer`. inherited: `data` may have content that a dead
        process wrote and nobody flushed."""
        super().__init__(files, data, held, sizes, cut=0)
        self._journal = journal
        self._writing = threading.Lock()
        self._dirty = BlockSet()
        self._unsynced = 0
        """Bytes written since a sync took what was there."""
        self._recorded: DiskSizes | None = sizes
        """None where a record that failed may tell of others."""
        self._inherited = inherited
        self._lost: str | None = None
        """What the system said when it lost writes."""

    @property
    def allocated(self) -> int:
        return self.data.allocated + self._journal.allocated

    def write(self, offset: int, content: memoryview, below: Mapping[int, bytes]) -> bool:
        """below: what blocks hold that are written in part and not held here; they become whole.

        False, and nothing was written, where `below` lacks one, or the layer was cut meanwhile.
        """
        end = offset + len(content)
        head, tail = offset // BLOCK, (end - 1) // BLOCK
        self._refuse_if_lost()
        with self._writing:
            if self.cut:
                return False
            before = after = b""
            if offset % BLOCK and not self.held.holds(head, head + 1):
                if head not in below:
                    return False
                before = self._shown(below, head)[: offset % BLOCK]
            if end % BLOCK and not self.held.holds(tail, tail + 1):
                if tail not in below:
                    return False
                after = self._shown(below, tail)[end % BLOCK :]
            if end > self.size:
                self.data.truncate(whole_blocks(end))
            self._put(offset - len(before), [before, content, after], end)
        return True

    def write_at_once(self, offset: int, content: memoryview) -> bool:
        """Whole blocks, without waiting; False, and nothing was written, where that cannot be."""
        end = offset + len(content)
        if self._lost is not None or not self._writing.acquire(blocking=False):
            return False
        try:
            room = AT_ONCE - self._unsynced
            if self.cut or end > self.size or len(content) > room:
                return False
            self._put(offset, [content], end)
            return True
        finally:
            self._writing.release()

    def zero_blocks(self, first: int, end: int) -> bool:
        """Holes in [first, end), which this layer holds. False as `write`'s."""
        self._refuse_if_lost()
        with self._writing:
            if self.cut:
                return False
            end = min(end, blocks_of(self.size))
            if first >= end:
                return True
            try:
                self.data.zero(first * BLOCK, (end - first) * BLOCK)
            except OSError:
                self._mark_changed(first, end)
                raise
            self._mark(first, end)
        return True

    def commit(self) -> None:
        """All that was written before is durable when it returns, or is to be committed still."""
        self._refuse_if_lost()
        with self._writing:
            sizes = DiskSizes(self.size, self.below_end)
            small = not self._inherited and self._dirty.count(SMALL_SYNC) <= SMALL_SYNC
            content = self._content(self._dirty) if small else None
            dirty, self._dirty = self._dirty, BlockSet()
            self._unsynced = 0
        if not dirty and sizes == self._recorded and not self._inherited:
            return
        try:
            if content is None:
                self.data.sync()
            if not self._journal.append(self.data, sizes, dirty, content):
                self._begin_anew()
            self._recorded = sizes
            self._inherited = False
        except BaseException as error:
            self._take_back(dirty, error)
            raise

    def resize(self, size: int) -> None:
        """Durable when it returns."""
        self._refuse_if_lost()
        with self._writing:
            sizes = DiskSizes(size, min(size, self.below_end))
            last = self._last_block(size)
            content = [part[: size % BLOCK].ljust(BLOCK, b"\0") for part in self._content(last)]
            try:
                if not self._journal.append(self.data, sizes, last, content):
                    self._begin_anew_locked()
                    self._journal.append(self.data, sizes, last, content)
                self._apply_size(sizes)
            except OSError as error:
                self._recorded = None
                if isinstance(error, SyncFailed):
                    self._lost = str(error.strerror)
                raise
            self._recorded = sizes

    def end(self, cut: int) -> None:
        """Durable, and never changes any more."""
        self._refuse_if_lost()
        with self._writing:
            self._begin_anew_locked(cut)
            self.cut = cut
        self._journal.drop_log()

    def ended(self) -> Layer:
        """What stays of it after `end`."""
        return Layer(
            self.files, self.data, self.held, DiskSizes(self.size, self.below_end), self.cut
        )

    def _shown(self, below: Mapping[int, bytes], block: int) -> bytes:
        """What shows of a block from below: the disk may have been shortened since it was read."""
        shown = max(0, self.below_end - block * BLOCK)
        return below[block][:shown].ljust(BLOCK, b"\0")

    def _put(self, offset: int, parts: list[bytes | memoryview], size: int) -> None:
        """Write whole blocks, or within held ones; mark what was written even where room ends on
        the way. size: of the disk at least, afterwards."""
        end = offset + sum(map(len, parts))
        first = offset // BLOCK
        self._unsynced += end - offset
        while (done := self.data.write(offset, parts)) < end - offset:
            offset += done
            self._mark(first, offset // BLOCK)
            self._mark_changed(offset // BLOCK, offset // BLOCK + 1)
            self.size = max(self.size, min(size, offset // BLOCK * BLOCK))
            parts = [memoryview(b"".join(parts))[done:]]
        self._mark(first, blocks_of(end))
        self.size = max(self.size, size)

    def _last_block(self, size: int) -> BlockSet:
        """The block that a disk made this short ends in, where it is held. Its content goes with
        the record: cut off again after a crash, what was written since would be half there."""
        found, block = BlockSet(), size // BLOCK
        if size < self.size and size % BLOCK and self.held.holds(block, block + 1):
            found.add(block, block + 1)
        return found

    def _mark(self, first: int, end: int) -> None:
        self._dirty.add(first, end)
        self.held.add(first, end)

    def _mark_changed(self, first: int, end: int) -> None:
        """Some of these may have been written: those that are held are to be synced."""
        for run in self.held.runs(first, end):
            if run.held:
                self._dirty.add(run.first, run.end)

    def _content(self, blocks: BlockSet) -> list[bytes]:
        runs = blocks.held_runs()
        return [self.data.read(first * BLOCK, (end - first) * BLOCK) for first, end in runs]

    def _begin_anew(self) -> None:
        """As `_begin_anew_locked`, while others write."""
        with self._writing:
            sizes, held = DiskSizes(self.size, self.below_end), self.held.copy()
            dirty, self._dirty = self._dirty, BlockSet()
        try:
            self.data.sync()
            self._journal.begin_anew(held, sizes)
        except BaseException as error:
            self._take_back(dirty, error)
            raise

    def _begin_anew_locked(self, cut: int = 0) -> None:
        """Flush the data file, store the map; the log is empty then."""
        try:
            self.data.sync()
            self._journal.begin_anew(self.held, DiskSizes(self.size, self.below_end), cut)
        except SyncFailed as error:
            self._lost = str(error.strerror)
            raise
        self._dirty = BlockSet()

    def _apply_size(self, sizes: DiskSizes) -> None:
        """After the record of it: content must not go while the disk is longer after a crash."""
        is_shorter = sizes.size < self.size
        # Before blocks are let go: whoever reads meanwhile must not see through them.
        self.size, self.below_end = sizes
        if is_shorter:
            self.held.clear_from(blocks_of(sizes.size))
            self._dirty.clear_from(blocks_of(sizes.size))
        try:
            shorten(self.data, sizes.size)
        except OSError as error:
            raise SyncFailed(error.errno, error.strerror, str(self.data.path)) from error

    def _take_back(self, dirty: BlockSet, error: BaseException) -> None:
        with self._writing:
            self._dirty.add_all(dirty)
        if isinstance(error, SyncFailed):
            self._lost = str(error.strerror)

    def _refuse_if_lost(self) -> None:
        if self._lost is not None:
            raise OSError(
                errno.EIO,
                f"writes were lost ({self._lost}): open the session anew,"
                " it has what was synced before",
                str(self.data.path),
            )


def begin_layer(files: LayerFiles, size: int) -> TopLayer:
    """Over a disk of `size` bytes. Raises OSError."""
    data = DataFile.create(files.data)
    data.truncate(whole_blocks(size))
    journal = LayerJournal(files)
    return TopLayer(files, data, BlockSet(), DiskSizes(size, size), journal, inherited=False)


def recover_layer(files: LayerFiles, snapshot: MapSnapshot | None, below_size: int) -> TopLayer:
    """As it was synced last. Raises SessionDamaged, OSError."""
    journal = LayerJournal(files)
    plan = journal.recover(snapshot, below_size)
    try:
        data = DataFile.open(files.data, writable=True)
    except FileNotFoundError:
        raise SessionDamaged(f"{files.data} is missing: discard the session") from None
    if data.length < plan.data_length:
        raise SessionDamaged(f"{files.data} is shorter than it was: discard the session")
    data.forget_cached()
    apply_recovery(plan, data)
    return TopLayer(files, data, plan.held, plan.sizes, journal, inherited=True)
