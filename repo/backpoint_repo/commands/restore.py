"""`backpoint restore`: one disk of one point, whole, into a file or block device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backpoint_repo.cache_options import add_cache_options
from backpoint_repo.command_parser import describe
from backpoint_repo.commands.show import SELECTOR

if TYPE_CHECKING:
    from backpoint_repo.point import Point

HELP: Final = "write a disk of a restore point to a file"
_CACHE_BYTES: Final = 64 << 20

_DESCRIPTION: Final = """
Write one disk of a restore point to a new file, as raw, vmdk or qcow2. What was empty stays empty.
With raw, FILE may also be a block device, which is overwritten. Usually `backpoint mount` is
quicker: every disk is there as a file without restoring anything.
"""
_EXAMPLES: Final = """
backpoint restore web01@latest --disk 0 -o system.raw
backpoint restore web01@2026-11-20 --disk 1 -o data.qcow2 --format qcow2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("point", metavar="VM@POINT", help=SELECTOR)
    parser.add_argument(
        "--disk", metavar="N", type=int, required=True, help="number of the disk, from 0 (see show)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="a file not there yet"
    )
    parser.add_argument(
        "--format", choices=("raw", "vmdk", "qcow2"), default="raw", help="default: raw"
    )
    add_cache_options(parser)


def run(args: argparse.Namespace) -> int:
    """Raises UsageError, OwnerKeyNeeded, TargetError, ObjectDamaged and what a store raises."""
    import time

    from backpoint_repo.chunk_cache import ChunkCache
    from backpoint_repo.opening import open_cached_from, require_owner
    from backpoint_repo.point_selector import select_point
    from backpoint_repo.progress import progress
    from backpoint_repo.reading import reading
    from backpoint_repo.restore import restore_disk
    from backpoint_repo.terminal import warn

    started = time.monotonic()
    # A disk is read once: it must not push out what mounts read again and again.
    repository = open_cached_from(args, keeps_data=False)
    require_owner(repository, "restoring a disk")
    selected = select_point(repository.catalog.refresh(), args.point)
    point = repository.point(selected.point_id)
    _check_number(point, args.disk)
    disk = point.disks[args.disk]
    reader = repository.open_disk(disk, ChunkCache(_CACHE_BYTES))
    identity = point.point_id + args.disk.to_bytes(4, "big")  # as the mount has it
    with (
        reading(repository, point, warn),
        progress(f"restoring {disk.key}", disk.size, as_json=args.json) as advance,
    ):
        restore_disk(reader, args.output, args.format, identity, advance)
    _report(args, point, time.monotonic() - started)
    return 0


def _check_number(point: Point, number: int) -> None:
    from backpoint_repo.errors import UsageError
    from backpoint_repo.point_record import point_name

    if not 0 <= number < len(point.disks):
        there = f"0 to {len(point.disks) - 1}" if point.disks else "none"
        raise UsageError(f"{point_name(point)} has no disk {number}; its disks: {there}")


def _report(args: argparse.Namespace, point: Point, seconds: float) -> None:
    from backpoint_repo.point_record import point_name
    from backpoint_repo.sizes import format_duration, format_rate, format_size
    from backpoint_repo.terminal import print_line, print_record

    disk = point.disks[args.disk]
    if args.json:
        record = {
            "type": "restored",
            "point": point.point_id.hex(),
            "disk": args.disk,
            "file": str(args.output),
            "format": args.format,
            "size": disk.size,
            "allocated": disk.allocated,
            "duration_s": round(seconds, 3),
        }
        print_record(record)
        return
    print_line(
        f"disk {args.disk} of {point_name(point)} written to {args.output}: "
        f"{format_size(disk.size)}, {format_size(disk.allocated)} used, "
        f"in {format_duration(seconds)} ({format_rate(disk.size / seconds)})"
    )
