"""Where a disk differs from a point's: found by reading both, and made good by writing only that.

Decides the grain of comparing (64 KiB) and that memory stays bounded however scattered the
differences are: then neighbours are joined, and what lies between is written again as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Final

from backpoint_agent.restoring.write_side import Advance
from backpoint_repo.image_reader import ImageReader, Stretch
from backpoint_repo.restore import copy_units, disk_units, in_disk_order, read_unit
from backpoint_repo.source.contract import ImageSource
from backpoint_repo.target.contract import ImageTarget

GRAIN: Final = 64 << 10
WRITE_MAX: Final = 1 << 20
"""Bytes written at once."""
_HOLE_MAX: Final = 32 << 20
_READ_MAX: Final = 4 << 20
_RUNS_MAX: Final = 1 << 17
Run = tuple[int, int]
"""Offset and length in bytes."""


def find_differences(reader: ImageReader, source: ImageSource, advance: Advance) -> list[Run]:
    """Runs that cover every byte in which the source differs from the reader, in order.

    Both have the same size. Raises as `restore_disk`, and what the source raises.
    """

    def deal_with(unit: Stretch) -> tuple[int, list[Run]]:
        return unit.length, list(_compare(reader, source, unit))

    found = _Runs()
    with closing(in_disk_order(_units(reader), deal_with, reader.lanes)) as units:
        for length, runs in units:
            found.add(runs)
            advance(length)
    return found.runs


def write_differences(
    reader: ImageReader, target: ImageTarget, runs: Iterable[Run], advance: Advance
) -> None:
    """Write the reader's content of these runs; durable when it returns. Raises as `copy_disk`.

    What was written before a failure stays written.
    """
    pieces = (
        Stretch(at, min(WRITE_MAX, offset + length - at), data=True)
        for offset, length in runs
        for at in range(offset, offset + length, WRITE_MAX)
    )
    try:
        copy_units(reader, pieces, target, advance)
        target.finish()
    except BaseException:
        target.abandon()
        raise


class _Runs:
    """Runs so far, joined where they touch; `grain` grows where they are too many."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self._grain = GRAIN

    def add(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._append(run)
        while len(self.runs) > _RUNS_MAX:
            self._grain *= 2
            old, self.runs = self.runs, []
            for run in old:
                self._append(run)

    def _append(self, run: Run) -> None:
        offset, length = run
        if self.runs:
            before, size = self.runs[-1]
            # A gap smaller than the grain is written again rather than remembered.
            if offset - (before + size) < self._grain - GRAIN + 1:
                self.runs[-1] = (before, offset + length - before)
                return
        self.runs.append(run)


def _units(reader: ImageReader) -> Iterator[Stretch]:
    for unit in disk_units(reader):
        if unit.data:
            yield unit
            continue
        end = unit.offset + unit.length
        for at in range(unit.offset, end, _HOLE_MAX):
            yield Stretch(at, min(_HOLE_MAX, end - at), data=False)


def _compare(reader: ImageReader, source: ImageSource, unit: Stretch) -> Iterator[Run]:
    if unit.data:
        wanted = bytearray(unit.length)
        for offset, length, content in read_unit(reader, unit):
            if content is not None:
                wanted[offset - unit.offset : offset - unit.offset + length] = content
        there = bytearray(unit.length)
        source.read_into(unit.offset, memoryview(there))
        yield from _differing(unit.offset, memoryview(wanted), memoryview(there))
        return
    for extent in source.extents(unit.offset, unit.length):
        if extent.hole:
            continue
        for at in range(extent.offset, extent.offset + extent.length, _READ_MAX):
            there = bytearray(min(_READ_MAX, extent.offset + extent.length - at))
            source.read_into(at, memoryview(there))
            yield from _differing(at, memoryview(bytes(len(there))), memoryview(there))


def _differing(offset: int, wanted: memoryview, there: memoryview) -> Iterator[Run]:
    if wanted == there:
        return
    for at in range(0, len(wanted), GRAIN):
        if wanted[at : at + GRAIN] != there[at : at + GRAIN]:
            yield offset + at, min(GRAIN, len(wanted) - at)
