"""What the tables of a streamOptimized VMDK prove about its grains: none missing, none misplaced.

A grain's own marker says where in the disk it belongs, and nothing protects the marker but the
tables, which name the sector of the stream that each grain begins at. They come before all grains
(qemu) or behind them (ESXi, announced by a directory "at the end"). Decides when a stream may be
believed. Refuses to know what grains hold. Trusts no number: memory is bounded before it is used.
"""

from __future__ import annotations

from typing import Final, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from backpoint_repo.errors import SourceError

SECTOR: Final = 512
TABLE_ENTRIES: Final = 512
"""Of every grain table; the format knows no other number in practice."""
TABLE_SECTORS: Final = TABLE_ENTRIES * 4 // SECTOR

_TABLES_OPEN_MAX: Final = 32_768
"""Tables with grains that wait for their own table: 64 MiB of memory, 1 TiB of disk. ESXi sends
each table behind its grains, so that one waits."""

_ZEROED: Final = 1
"""Entry of a grain that reads as zeros and is not in the stream."""

Sectors = npt.NDArray[np.uint32]


class GrainTables(Protocol):
    """What the parser of the stream tells, in the stream's order. Each raises SourceError."""

    def grain(self, number: int, sector: int) -> None:
        """A grain (numbered from the disk's start) begins at this sector of the stream."""

    def table(self, body: bytes, sector: int) -> None:
        """A grain table whose first sector is `sector`."""

    def directory(self, body: bytes, sector: int) -> None:
        """The grain directory."""

    def footer(self, directory_sector: int) -> None:
        """The second header, which knows where the directory is."""

    def finish(self, *, by_marker: bool) -> None:
        """The stream ended, by an end-of-stream marker or by its last byte. If this returns, every
        grain of the disk was seen where it belongs."""


class TablesAhead:
    """Directory and tables lie in the head of the stream: each grain is foreseen."""

    def __init__(self, name: str, head: bytes, directory_sector: int, grains: int) -> None:
        """head: the stream up to its first grain. grains: of the whole disk."""
        self._name = name
        tables = -(-grains // TABLE_ENTRIES)
        directory = self._part(head, directory_sector, tables)
        used = np.flatnonzero(directory)
        if len(np.unique(directory[used])) != len(used):
            self._damaged("two parts of the disk share one grain table")
        numbers, sectors = [], []
        for number in used:
            table = self._part(head, int(directory[number]), TABLE_ENTRIES)
            sent = np.flatnonzero(table > _ZEROED)
            numbers.append(sent + number * TABLE_ENTRIES)
            sectors.append(table[sent])
        self._numbers = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
        self._sectors = np.concatenate(sectors) if sectors else np.zeros(0, np.uint32)
        self._seen = 0

    def grain(self, number: int, sector: int) -> None:
        """It must be the next one foreseen."""
        at = self._seen
        if at >= len(self._numbers):
            self._damaged(f"grain {number} is in no grain table")
        if (number, sector) != (self._numbers[at], self._sectors[at]):
            self._damaged(
                f"grain {number} at sector {sector} came instead of grain {self._numbers[at]} "
                f"at sector {self._sectors[at]}"
            )
        self._seen += 1

    def table(self, body: bytes, sector: int) -> None:
        """There is none behind the head."""
        self._damaged(f"a second grain table is at sector {sector}")

    def directory(self, body: bytes, sector: int) -> None:
        """There is none behind the head."""
        self._damaged(f"a second grain directory is at sector {sector}")

    def footer(self, directory_sector: int) -> None:
        """There is none behind the head."""
        self._damaged("it has a footer although its header names the grain directory")

    def finish(self, *, by_marker: bool) -> None:
        """All that were foreseen came; then it does not matter how the stream ended."""
        if self._seen < len(self._numbers):
            self._damaged(f"it ended before grain {self._numbers[self._seen]}")

    def _part(self, head: bytes, sector: int, entries: int) -> Sectors:
        start = sector * SECTOR
        if sector == 0 or start + entries * 4 > len(head):
            self._damaged(f"sector {sector}, where a grain table should be, is not in its head")
        return np.frombuffer(head, "<u4", entries, start)

    def _damaged(self, why: str) -> NoReturn:
        raise _damaged(self._name, why)


class TablesBehind:
    """Each table follows its grains, the directory all tables, the footer the directory."""

    def __init__(self, name: str, grains: int) -> None:
        """grains: of the whole disk."""
        self._name = name
        tables = -(-grains // TABLE_ENTRIES)
        self._open: dict[int, Sectors] = {}
        self._open_by_sector: dict[int, int] = {}
        self._table_sectors = np.zeros(tables, np.uint32)
        self._empty_tables: set[int] = set()
        self._directory_sector: int | None = None
        self._footer = False

    def grain(self, number: int, sector: int) -> None:
        """Kept until its table comes."""
        at, entry = divmod(number, TABLE_ENTRIES)
        if self._directory_sector is not None or self._table_sectors[at]:
            self._damaged(f"grain {number} came after its grain table")
        if at not in self._open:
            if len(self._open) >= _TABLES_OPEN_MAX:
                self._damaged("its grain tables are too far behind the grains")
            self._open[at] = np.zeros(TABLE_ENTRIES, np.uint32)
            self._open_by_sector[_entry(sector)] = at
        self._open[at][entry] = _entry(sector)

    def table(self, body: bytes, sector: int) -> None:
        """It names exactly the grains that came; which table it is, its first grain tells."""
        table = np.frombuffer(body, "<u4", TABLE_ENTRIES)
        table = np.where(table == _ZEROED, np.uint32(0), table)
        sent = np.flatnonzero(table)
        if not len(sent):
            if len(self._empty_tables) >= len(self._table_sectors):
                self._damaged("it has more grain tables than the disk has room for")
            self._empty_tables.add(_entry(sector))
            return
        at = self._open_by_sector.pop(int(table[sent[0]]), None)
        if at is None or not np.array_equal(table, self._open.pop(at)):
            self._damaged(f"the grain table at sector {sector} names other grains than were sent")
        self._table_sectors[at] = _entry(sector)

    def directory(self, body: bytes, sector: int) -> None:
        """It names exactly the tables that came, in their places."""
        if self._open:
            self._damaged("it has grains without a grain table")
        if self._directory_sector is not None:
            self._damaged("it has two grain directories")
        directory = np.frombuffer(body, "<u4", len(self._table_sectors))
        for at in np.flatnonzero(directory != self._table_sectors):
            if self._table_sectors[at] or int(directory[at]) not in self._empty_tables:
                self._damaged(f"its grain directory has another grain table {at} than was sent")
        self._directory_sector = sector

    def footer(self, directory_sector: int) -> None:
        """It names the directory."""
        if self._directory_sector is None or directory_sector != self._directory_sector:
            self._damaged("its footer names another grain directory than was sent")
        self._footer = True

    def finish(self, *, by_marker: bool) -> None:
        """All of it came, and the marker that says so."""
        if not (self._footer and by_marker):
            self._damaged("it ended before its end-of-stream marker")

    def _damaged(self, why: str) -> NoReturn:
        raise _damaged(self._name, why)


def _entry(sector: int) -> int:
    """As a table names it: behind 2 TiB of stream only the low 32 bits are left."""
    return sector & 0xFFFFFFFF


def _damaged(name: str, why: str) -> SourceError:
    return SourceError(f"the exported VMDK of {name} is damaged or cut short: {why}")
