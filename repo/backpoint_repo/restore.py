"""A stored disk, whole, into a file or device, or wherever a caller takes it.

Decides the order of work: units of disk, dealt with by worker threads, few at a time so that memory
stays bounded, their results in disk order. The first unit that fails ends it all, and nothing is
left that looks whole. Refuses to know formats (`target`) and chunks (`image_reader`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, TypeVar

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreUnavailable
from backpoint_repo.format import LEAF_SIZE
from backpoint_repo.image_reader import ImageReader, Stretch
from backpoint_repo.target.choose import open_target
from backpoint_repo.target.contract import Content, ImageTarget

T = TypeVar("T")

WORKERS: Final = os.cpu_count() or 1
_UNIT: Final = 4 << 20
"""Bytes of disk one worker deals with at a time: one ranged get of a pack, mostly."""
_WAITING: Final = 8
"""Workers more where each request waits for a network: 32 MiB on their way, which is 50 ms of
600 MB/s."""


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
        copy_disk(reader, target, advance)
        target.finish()
    except BaseException:
        target.abandon()
        raise


def copy_disk(reader: ImageReader, target: ImageTarget, advance: Callable[[int], None]) -> None:
    """Write all of the disk to a target, which the caller finishes or abandons.

    advance: as for `restore_disk`. Raises as it, and nobody writes any more when it has raised.
    """
    copy_units(reader, disk_units(reader), target, advance)


def copy_units(
    reader: ImageReader,
    units: Iterable[Stretch],
    target: ImageTarget,
    advance: Callable[[int], None],
) -> None:
    """As `copy_disk`, but only these parts, each of some MiB, or a hole where `data` is false."""

    def deal_with(unit: Stretch) -> int:
        if unit.data:
            for offset, length, content in read_unit(reader, unit):
                if content is None:
                    target.zero_at(offset, length)
                else:
                    target.write_at(offset, content)
        else:
            target.zero_at(unit.offset, unit.length)
        return unit.length

    with closing(in_disk_order(units, deal_with, reader.lanes)) as lengths:
        for length in lengths:
            advance(length)


def in_disk_order(
    units: Iterable[Stretch], deal_with: Callable[[Stretch], T], lanes: int = 1
) -> Generator[T, None, None]:
    """The results of `deal_with`, which works some units ahead in threads of its own.

    lanes: of the store that it reads. Close the iterator (or use it up) before what the threads use
    is closed.
    """
    threads = WORKERS if lanes == 1 else WORKERS + min(_WAITING, lanes)
    workers = ThreadPoolExecutor(threads, "restore")
    under_way: deque[Future[T]] = deque()
    try:
        for unit in units:
            under_way.append(workers.submit(deal_with, unit))
            # Enough that no worker waits for the one who reports.
            if len(under_way) >= threads + WORKERS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        # Nobody may write to a target that is being finished or abandoned.
        workers.shutdown(cancel_futures=True)


def disk_units(reader: ImageReader) -> Iterator[Stretch]:
    """The whole disk in order: units of at most 4 MiB that hold data, and between them holes of a
    leaf or more, however long."""
    hole = Stretch(0, 0, data=False)
    for leaf in range(0, reader.size, LEAF_SIZE):
        end = min(leaf + LEAF_SIZE, reader.size)
        with _ReadOf(leaf, end - leaf):
            reader.expect(leaf, end - leaf)
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


def read_unit(reader: ImageReader, unit: Stretch) -> Iterator[tuple[int, int, Content | None]]:
    """Offset, length and content of a unit's stretches, None for a hole.

    Raises as `restore_disk` for what cannot be read.
    """
    if reader.lanes > 1:
        # All of it at once; what is wrong with a part of it is told when that part is read.
        with suppress(ObjectDamaged, ObjectMissing):
            reader.prefetch(unit.offset, unit.length)
    for offset, length, data in list(reader.stretches(unit.offset, unit.length)):
        if data:
            with _ReadOf(offset, length):
                content = reader.read(offset, length)
            yield offset, length, content
        else:
            yield offset, length, None


class _ReadOf:
    """Faults of the repository, with the range of the disk that they cost."""

    def __init__(self, offset: int, length: int) -> None:
        self._what = f"bytes {offset} to {offset + length} of the disk cannot be read"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ObjectDamaged | ObjectMissing | StoreUnavailable):
            raise type(error)(f"{self._what}: {error}") from error
