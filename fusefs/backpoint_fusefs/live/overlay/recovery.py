"""What a layer is after a crash: its map's snapshot, and the records of its log in their order.

Content is written to the data file again only from records behind the last `flushed` one: earlier
content may have been overwritten since, and what overwrote it is durable. Shortening a disk takes
effect on the map always, on the data file likewise only behind that record. Pure planning, and one
function that does what was planned; how records lie in a file is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backpoint_fusefs.live.overlay.block_set import BLOCK, BlockSet
from backpoint_fusefs.live.overlay.block_set_form import decode_blocks
from backpoint_fusefs.live.overlay.data_file import DataFile
from backpoint_fusefs.live.overlay.layer import blocks_of, whole_blocks
from backpoint_fusefs.live.overlay.log_record import DiskSizes, RecordHead, RecordKind
from backpoint_fusefs.live.overlay.map_snapshot import SIZE_MAX


@dataclass(frozen=True, slots=True)
class Shorten:
    size: int


@dataclass(frozen=True, slots=True)
class Put:
    """content: whole blocks."""

    offset: int
    content: memoryview


@dataclass
class RecoveryPlan:
    """data_length: bytes that the data file has if nothing took them away; not whole blocks where
    it was being shortened."""

    held: BlockSet
    sizes: DiskSizes
    data_length: int
    steps: list[Shorten | Put] = field(default_factory=list)


def plan_recovery(
    held: BlockSet,
    sizes: DiskSizes,
    data_length: int,
    records: Sequence[tuple[RecordHead, bytes]],
) -> RecoveryPlan:
    """held, sizes: as the snapshot tells, else as the layer began; `held` is changed.

    Raises ValueError where a record, whatever its checksum, makes no sense.
    """
    plan = RecoveryPlan(held, sizes, data_length)
    kinds = [head.kind for head, _ in records]
    flushed = max((at for at, kind in enumerate(kinds) if kind == RecordKind.FLUSHED), default=-1)
    for at, (head, body) in enumerate(records):
        _add_record(plan, head, body, again=at > flushed)
        if at == flushed:
            plan.data_length = head.sizes.size
    return plan


def _add_record(plan: RecoveryPlan, head: RecordHead, body: bytes, *, again: bool) -> None:
    size, below_end = head.sizes
    if not below_end <= size <= SIZE_MAX or below_end > plan.sizes.below_end:
        raise ValueError("sizes that cannot be")
    if size < plan.sizes.size:
        plan.held.clear_from(blocks_of(size))
        plan.data_length = min(plan.data_length, size)
        if again:
            plan.steps.append(Shorten(size))
    plan.sizes = head.sizes
    blocks = decode_blocks(memoryview(body)[: head.set_length], blocks_of(size))
    plan.held.add_all(blocks)
    content = memoryview(body)[head.set_length :]
    if head.kind == RecordKind.FLUSHED:
        if content:
            raise ValueError("content where there should be none")
        return
    at = 0
    for first, end in blocks.held_runs():
        length = (end - first) * BLOCK
        if again:
            plan.steps.append(Put(first * BLOCK, content[at : at + length]))
        at += length
    if at != len(content):
        raise ValueError("a record with more or less content than blocks")


def apply_recovery(plan: RecoveryPlan, data: DataFile) -> None:
    """Nothing of it need be durable: the log still has it. Raises OSError."""
    for step in plan.steps:
        if isinstance(step, Shorten):
            shorten(data, step.size)
        elif bytes(step.content).count(0) == len(step.content):
            data.zero(step.offset, len(step.content))
        else:
            write_all(data, step.offset, step.content)
    # What was written behind the end and never synced must not show when the disk grows.
    shorten(data, plan.sizes.size)


def shorten(data: DataFile, size: int) -> None:
    """Whole blocks for a disk of this size; behind it zeros, in its last block too."""
    data.truncate(size)
    data.truncate(whole_blocks(size))


def write_all(data: DataFile, offset: int, content: memoryview) -> None:
    while content:
        done = data.write(offset, [content])
        offset, content = offset + done, content[done:]
