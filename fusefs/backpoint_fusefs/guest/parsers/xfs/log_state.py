"""Whether the log holds changes that the volume's other blocks do not show yet.

Decides what is said of a volume that was not unmounted; replays nothing. The log is a ring of
records, each block of it stamped with the number of its round (cycle): the newest record ends where
the number falls. Layout: struct xlog_rec_header, xlog_op_header, xfs_buf_log_format in the kernel's
fs/xfs/libxfs/xfs_log_format.h; the search follows what fs/xfs/xfs_log_recover.c does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.xfs.block_reader import BlockReader

EXTERNAL: Final = (
    "the log is on another device: changes that it may hold are not shown, and this volume does "
    "not say whether there are any"
)
DIRTY: Final = (
    "the log holds changes that are not shown: the guest had not unmounted this volume, and its "
    "newest changes may still be missing or half done"
)

_BLOCK: Final = 512
_MAGIC: Final = 0xFEEDBABE
_RECORD: Final = struct.Struct(">IIIIQQIII")
_CYCLE_DATA_OFFSET: Final = 44
_CYCLES_IN_HEADER: Final = 64
_SIZE_OFFSET: Final = 320
_HEADER_COVERS: Final = 32 << 10
_RECORD_BLOCKS_MAX: Final = (256 << 10) // _BLOCK + 8
"""The largest log buffer, and the headers of its data."""

_LOOKED_AT_MAX: Final = 1024
"""Blocks between the oldest record not written back and the end. A quiesced guest has a few."""

_OPERATION: Final = struct.Struct(">IIBBxx")
_START, _COMMIT, _UNMOUNT = 0x01, 0x02, 0x20
_TRANSACTION_MAGIC: Final = 0x5452414E
_BUFFER_ITEM: Final = 0x123C


class _Record(NamedTuple):
    """tail: the block where the oldest change starts that is not written back. payload: its
    operations, restored to what they were before the blocks were stamped."""

    start: int
    blocks: int
    operations: int
    tail: int
    payload: bytes


def missing_changes(reader: BlockReader) -> str:
    """A sentence where changes may be missing, else empty."""
    superblock = reader.superblock
    if not superblock.log_start:
        return EXTERNAL
    start = superblock.block_at(superblock.log_start, superblock.log_blocks)
    blocks = superblock.log_blocks * superblock.block_size // _BLOCK
    try:
        return DIRTY if _Log(reader, start, blocks).has_changes() else ""
    except (GuestDamaged, struct.error):
        # A record cut off while it was written is what a crash leaves behind.
        return DIRTY


@dataclass(frozen=True, slots=True)
class _Log:
    reader: BlockReader
    start: int
    blocks: int

    def has_changes(self) -> bool:
        """Damage where the newest records cannot be made out."""
        if self.blocks < 2:
            raise GuestDamaged("the log has no room")
        if not self._cycle(0):
            return False
        head = self._head()
        newest = self._record_before(head)
        if (newest.start + newest.blocks) % self.blocks != head % self.blocks:
            raise GuestDamaged("the newest record is cut off")
        if newest.operations == 1 and _OPERATION.unpack_from(newest.payload)[3] & _UNMOUNT:
            return False
        return not self._only_counters(newest.tail, head % self.blocks)

    def _head(self) -> int:
        """Where the next record would start: the first block of the round before, or none yet."""
        oldest = self._cycle(self.blocks - 1)
        if self._cycle(0) == oldest:
            return self.blocks
        newer, older = 0, self.blocks - 1
        while older - newer > 1:
            middle = (newer + older) // 2
            if self._cycle(middle) == oldest:
                older = middle
            else:
                newer = middle
        return older

    def _cycle(self, block: int) -> int:
        first = int.from_bytes(self._read(block, 1)[:8], "big")
        # A record's header starts with its magic number; its cycle comes behind.
        return first & 0xFFFFFFFF if first >> 32 == _MAGIC else first >> 32

    def _record_before(self, head: int) -> _Record:
        window = min(_RECORD_BLOCKS_MAX, self.blocks)
        first = (head - window) % self.blocks
        data = self._read(first, window)
        for index in range(window - 1, -1, -1):
            if data[index * _BLOCK : index * _BLOCK + 4] == _MAGIC.to_bytes(4, "big"):
                return self._record((first + index) % self.blocks)
        raise GuestDamaged("the log has no record before its end")

    def _record(self, start: int) -> _Record:
        header = self._read(start, 1)
        magic, _, version, length, _, tail, _, _, operations = _RECORD.unpack_from(header)[:9]
        size = int.from_bytes(header[_SIZE_OFFSET : _SIZE_OFFSET + 4], "big")
        headers = max(1, -(-size // _HEADER_COVERS)) if version & 2 else 1
        data_blocks = -(-length // _BLOCK)
        if magic != _MAGIC or headers + data_blocks > min(_RECORD_BLOCKS_MAX, self.blocks):
            raise GuestDamaged("the log has no record where one should be")
        stamps = self._stamps(self._read(start, headers), header)
        data = bytearray(self._read((start + headers) % self.blocks, data_blocks))
        if len(stamps) < data_blocks * 4:
            raise GuestDamaged("a log record has more data than its header covers")
        for index in range(data_blocks):
            data[index * _BLOCK : index * _BLOCK + 4] = stamps[index * 4 : index * 4 + 4]
        return _Record(
            start, headers + data_blocks, operations, tail & 0xFFFFFFFF, bytes(data[:length])
        )

    @staticmethod
    def _stamps(headers: bytes, header: bytes) -> bytes:
        """What was in the first four bytes of each data block."""
        own = header[_CYCLE_DATA_OFFSET : _CYCLE_DATA_OFFSET + _CYCLES_IN_HEADER * 4]
        more = (
            headers[at + 4 : at + 4 + _CYCLES_IN_HEADER * 4]
            for at in range(_BLOCK, len(headers), _BLOCK)
        )
        return own + b"".join(more)

    def _only_counters(self, tail: int, head: int) -> bool:
        """Whether all that is not written back is the superblock, which has nothing to show: so
        it is after a guest was quiesced for its snapshot (fsfreeze), and when it was long idle."""
        if tail >= self.blocks or (head - tail) % self.blocks > _LOOKED_AT_MAX:
            return False
        at = tail
        while at != head:
            record = self._record(at)
            if record.blocks > (head - at) % self.blocks or not _is_counters(record):
                return False
            at = (at + record.blocks) % self.blocks
        return True

    def _read(self, block: int, count: int) -> bytes:
        """The ring's end goes on at its start."""
        first = min(count, self.blocks - block)
        data = self.reader.read(self.start + block * _BLOCK, first * _BLOCK)
        if first < count:
            data += self.reader.read(self.start, (count - first) * _BLOCK)
        return data


def _is_counters(record: _Record) -> bool:
    """Whether a record holds whole transactions of the superblock's buffer only."""
    regions_left = 0
    for flags, region in _regions(record):
        if flags & ~(_START | _COMMIT):
            return False
        if flags or not region:
            continue
        if regions_left:
            regions_left -= 1
        elif int.from_bytes(region[:4], "little") != _TRANSACTION_MAGIC:
            kind, regions, _, _, place = struct.unpack_from("<HHHHq", region)
            if kind != _BUFFER_ITEM or place != 0 or not regions:
                return False
            regions_left = regions - 1
    return not regions_left


def _regions(record: _Record) -> Iterator[tuple[int, bytes]]:
    at = 0
    for _ in range(record.operations):
        _, length, _, flags = _OPERATION.unpack_from(record.payload, at)
        at += _OPERATION.size + length
        if at > len(record.payload):
            raise GuestDamaged("a log record is cut off")
        yield flags, record.payload[at - length : at]
