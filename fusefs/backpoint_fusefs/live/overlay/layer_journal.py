"""What makes a layer's writes durable: its log, and the snapshot of its map that begins it anew.

Decides the order of durable things: a data file is in its folder before there is a log, a snapshot
is on disk before the log's front is written over, and each tells which generation of the log comes
after it. What is to be made durable, and when, is for the layer.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.overlay.block_set import BlockSet
from backpoint_fusefs.live.overlay.block_set_form import encode_blocks
from backpoint_fusefs.live.overlay.data_file import DataFile, SyncFailed
from backpoint_fusefs.live.overlay.layer_files import LayerFiles
from backpoint_fusefs.live.overlay.log_record import DiskSizes
from backpoint_fusefs.live.overlay.map_snapshot import (
    MapSnapshot,
    read_snapshot,
    write_snapshot,
)
from backpoint_fusefs.live.overlay.recovery import RecoveryPlan, plan_recovery
from backpoint_fusefs.live.overlay.write_ahead_log import WriteAheadLog


class LayerJournal:
    """One thread at a time. Methods raise OSError; of those, SyncFailed means that writes are lost
    and that nothing may be tried again."""

    def __init__(self, files: LayerFiles) -> None:
        """Of a layer that begins: no file of it is made before something is synced."""
        self._files = files
        self._identity = secrets.token_bytes(32)
        self._generation = 0
        self._snapshot_length = 0
        self._log: WriteAheadLog | None = None

    def recover(self, snapshot: MapSnapshot | None, below_size: int) -> RecoveryPlan:
        """Read what was synced. below_size: of what the layer began over, bytes.

        Raises SessionDamaged, OSError.
        """
        try:
            log = WriteAheadLog.open(self._files.log)
        except FileNotFoundError:
            raise SessionDamaged(f"{self._files.log} is missing: discard the session") from None
        begun = MapSnapshot(log.identity, 0, 0, DiskSizes(below_size, below_size), BlockSet())
        start = snapshot or begun
        if start.identity != log.identity:
            raise SessionDamaged(f"{self._files.log} belongs to another session's disk")
        length = start.sizes.size if snapshot else 0
        records = list(log.records(start.generation))
        # What follows from them is done to the data file, which a power cut may keep without them.
        log.settle()
        try:
            plan = plan_recovery(start.held, start.sizes, length, records)
        except ValueError as error:
            raise SessionDamaged(f"{self._files.log} is damaged: it tells of {error}") from None
        if snapshot:
            self._snapshot_length = self._files.map.stat().st_size
        self._log, self._identity, self._generation = log, log.identity, start.generation
        return plan

    @property
    def allocated(self) -> int:
        """Bytes that it takes on disk, but for the last block of the snapshot."""
        return self._snapshot_length + (self._log.allocated if self._log else 0)

    def append(
        self,
        data: DataFile,
        sizes: DiskSizes,
        blocks: BlockSet,
        content: Sequence[bytes] | None = None,
    ) -> bool:
        """A record of `blocks`: with their content, or without where `data` has it durably.

        False where it does not fit: nothing was done, the log must begin anew.
        """
        if self._log is None:
            data.sync()
            self._log = WriteAheadLog.create(self._files.log, self._identity)
        return self._log.append(sizes, encode_blocks(blocks), content)

    def begin_anew(self, held: BlockSet, sizes: DiskSizes, cut: int = 0) -> None:
        """`held` is durable in the data file; the log is empty from here on. cut: as Layer's."""
        generation = self._generation + 1
        snapshot = MapSnapshot(self._identity, generation, cut, sizes, held)
        try:
            length = write_snapshot(self._files.map, snapshot)
        except OSError as error:
            if self._is_in_place(generation):
                # It may be there after a crash or not: whichever log we wrote on, it could be the
                # wrong one.
                raise SyncFailed(error.errno, error.strerror, str(self._files.map)) from error
            raise
        self._generation, self._snapshot_length = generation, length
        if self._log is not None:
            self._log.begin_anew(generation)

    def drop_log(self) -> None:
        """The layer was cut: its map says all."""
        self._log = None
        # A log that stays is deleted when the disk is opened.
        with contextlib.suppress(OSError):
            self._files.log.unlink(missing_ok=True)

    def _is_in_place(self, generation: int) -> bool:
        try:
            return read_snapshot(self._files.map).generation == generation
        except (SessionDamaged, OSError):
            # None was there before.
            return self._files.map.exists()
