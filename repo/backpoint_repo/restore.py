"""A stored disk, whole, into a file or device.

Decides the order of work: units of disk, read and written by worker threads, few at a time so that
memory stays bounded. The first unit that fails ends it all, and nothing is left that looks whole.
Refuses to know formats (`target`) and chunks (`image_reader`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreUnavailable
from backpoint_repo.format import LEAF_SIZE
from backpoint_repo.image_reader import ImageReader, Stretch
from backpoint_repo.target.choose import open_target
from backpoint_repo.target.contract import ImageTarget

WORKERS: Final = os.cpu_count() or 1
_UNIT: Final = 4 << 20
"""Bytes of disk one worker deals with at a time: one ranged get of a pack, mostly."""
_UNITS_AHEAD: Final = 2 * WORKERS
"""Units begun and not yet reported: enough that no worker waits for the one who reports."""


def restore_disk(
    reader: ImageReader,
    out: Path,
    format_name: str,
    identity: bytes,
    advance: Callable[[int], None],
) -> None:
    """Write the disk to `out`, durably; holes stay holes where the target has such.

    format_name: raw, vmdk or qcow2. identity: what tells this content from any other, for a vmdk.
    advance: called in this thread with bytes of disk dealt with since the last call, in disk order.

    Raises UsageError where `out` exists (a block device with raw excepted), TargetError,
    OwnerKeyNeeded; ObjectDamaged, ObjectMissing, StoreUnavailable naming the range of the disk that
    could not be read. Any exception leaves nothing that looks whole.
    """
    target = open_target(out, reader.size, format_name, identity)
    try:
        _copy(reader, target, advance)
        target.finish()
    except BaseException:
        target.abandon()
        raise


def _copy(reader: ImageReader, target: ImageTarget, advance: Callable[[int], None]) -> None:
    workers = ThreadPoolExecutor(WORKERS, "restore")
    under_way: deque[tuple[int, Future[None]]] = deque()
    try:
        for unit in _units(reader):
            under_way.append((unit.length, workers.submit(_deal_with, reader, target, unit)))
            if len(under_way) >= _UNITS_AHEAD:
                _report_oldest(under_way, advance)
        while under_way:
            _report_oldest(under_way, advance)
    finally:
        # Nobody may write to a target that is being finished or abandoned.
        workers.shutdown(cancel_futures=True)


def _report_oldest(
    under_way: deque[tuple[int, Future[None]]], advance: Callable[[int], None]
) -> None:
    length, done = under_way.popleft()
    done.result()
    advance(length)


def _units(reader: ImageReader) -> Iterator[Stretch]:
    """Units that hold data, and between them holes of a leaf or more, however long."""
    hole = Stretch(0, 0, data=False)
    for leaf in range(0, reader.size, LEAF_SIZE):
        end = min(leaf + LEAF_SIZE, reader.size)
        with _ReadOf(leaf, end - leaf):
            data = any(stretch.data for stretch in reader.stretches(leaf, end - leaf))
        if not data:
            hole = Stretch(hole.offset if hole.length else leaf, hole.length + end - leaf, False)
            continue
        if hole.length:
            yield hole
            hole = Stretch(0, 0, data=False)
        for offset in range(leaf, end, _UNIT):
            yield Stretch(offset, min(_UNIT, end - offset), data=True)
    if hole.length:
        yield hole


def _deal_with(reader: ImageReader, target: ImageTarget, unit: Stretch) -> None:
    if not unit.data:
        target.zero_at(unit.offset, unit.length)
        return
    for offset, length, data in list(reader.stretches(unit.offset, unit.length)):
        if data:
            with _ReadOf(offset, length):
                content = reader.read(offset, length)
            target.write_at(offset, content)
        else:
            target.zero_at(offset, length)


class _ReadOf:
    """Faults of the repository, with the range of the disk that they cost."""

    def __init__(self, offset: int, length: int) -> None:
        self._what = f"bytes {offset} to {offset + length} of the disk cannot be read"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ObjectDamaged | ObjectMissing | StoreUnavailable):
            raise type(error)(f"{self._what}: {error}") from error
