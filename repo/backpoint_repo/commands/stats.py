"""`backpoint stats`: what the repository holds and what that costs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.tally import Tally

HELP: Final = "what the repository holds and what it costs"

_DESCRIPTION: Final = """
Count points, VMs, chunks and stored bytes. Deduplication is what all points would take, holes left
out, for each byte of different chunks; compression is plain bytes for each stored one. What is in
trash goes with the next `backpoint collect`; what removing points would free, `backpoint collect
--dry-run` tells after they are removed.
"""
_EXAMPLES: Final = """
backpoint stats
backpoint stats --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Raises what opening and a store raise."""
    from backpoint_repo.opening import open_from
    from backpoint_repo.progress import steps
    from backpoint_repo.tally import take_tally
    from backpoint_repo.terminal import print_fields, print_record, warn

    repository = open_from(args)
    with steps("counting", as_json=args.json) as shown:
        tally = take_tally(repository, shown)
    for what in tally.unreadable:
        warn(what)
    if args.json:
        print_record(_record(tally))
    else:
        print_fields(_fields(tally))
    return 0


def _fields(tally: Tally) -> Iterator[tuple[str, str]]:
    from backpoint_repo.sizes import format_size

    chunks, total = tally.chunks, sum(tally.stored_bytes.values())
    yield "points", f"{tally.points} of {tally.vms} VMs"
    yield "disks, all points", format_size(tally.logical_bytes)
    yield "without holes", format_size(tally.allocated_bytes)
    yield "different chunks", f"{chunks.chunks}, {format_size(chunks.plain_bytes)}"
    yield "stored", format_size(total)
    for folder, size in sorted(tally.stored_bytes.items(), key=lambda item: -item[1]):
        yield f"  {folder}", f"{format_size(size)} in {tally.objects[folder]}"
    yield "deduplication", _times(tally.dedup_ratio)
    yield "compression", _times(chunks.compression_ratio)
    yield "chunks stored twice", str(chunks.blobs - chunks.chunks)
    yield "packs in no index", str(tally.unlisted_packs)
    yield "packs in trash", f"{tally.trashed_packs}, {format_size(tally.trashed_bytes)}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def _record(tally: Tally) -> dict[str, Any]:
    from dataclasses import asdict

    ratios = {
        "dedup_ratio": tally.dedup_ratio,
        "compression_ratio": tally.chunks.compression_ratio,
        "stored_total_bytes": sum(tally.stored_bytes.values()),
    }
    return {"type": "stats", **asdict(tally), **ratios}
