"""The command `tools/guest-disk`: arguments to calls, nothing else."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import get_args

from guest_disks import (
    Filesystem,
    NoMarker,
    PartitionTable,
    boot,
    build_bootable,
    build_data_disk,
    change_data_disk,
)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """`64M` in bytes. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\d+)([KMGT]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512M or 6G")
    return int(match[1]) * _UNITS[match[2]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/guest-disk", description="Make guest disks.")
    actions = parser.add_subparsers(dest="action", required=True)
    bootable = actions.add_parser("bootable", help="a guest that QEMU boots in seconds")
    bootable.add_argument("--hostname", default="guest1")
    bootable.add_argument("--size", type=parse_size, default=64 << 20)
    data = actions.add_parser("data", help="a disk full of files")
    data.add_argument("--size", type=parse_size, default=1 << 30)
    data.add_argument("--files", type=parse_size, default=300 << 20, help="bytes in files")
    data.add_argument("--seed", type=int, default=1)
    data.add_argument("--filesystem", choices=get_args(Filesystem), default="ext4")
    data.add_argument("--table", choices=get_args(PartitionTable), default="gpt")
    change = actions.add_parser("change", help="let a day pass on a data disk")
    change.add_argument("--day", type=int, default=1)
    change.add_argument("--share", type=float, default=0.02, help="share of the bytes that change")
    start = actions.add_parser("boot", help="boot a disk, unchanged, until it says BOOT-OK")
    start.add_argument("--format", default="raw")
    start.add_argument("--timeout", type=float, default=120, metavar="SECONDS")
    for action in (bootable, data, change, start):
        action.add_argument("disk", type=Path)
    return parser


def main() -> int:
    """Run one action and print what came of it. The exit code: 0, or 1 where it failed."""
    asked = _parser().parse_args()
    began = time.monotonic()
    try:
        print(_act(asked))
    except (RuntimeError, NoMarker, OSError, ValueError) as error:
        print(f"tools/guest-disk: {error}", file=sys.stderr)
        return 1
    print(f"{time.monotonic() - began:.1f} s")
    return 0


def _act(asked: argparse.Namespace) -> str:
    disk: Path = asked.disk
    match asked.action:
        case "bootable":
            build_bootable(disk, asked.size, hostname=asked.hostname)
            return f"{disk}: bootable, {disk.stat().st_blocks * 512 >> 20} MiB on disk"
        case "data":
            build_data_disk(
                disk,
                asked.size,
                seed=asked.seed,
                files_total_bytes=asked.files,
                filesystem=asked.filesystem,
                table=asked.table,
            )
            return f"{disk}: {asked.filesystem}, {disk.stat().st_blocks * 512 >> 20} MiB on disk"
        case "change":
            day = change_data_disk(disk, asked.day, share=asked.share)
            touched = len(day.appended) + len(day.rewritten) + len(day.deleted) + len(day.added)
            return f"{disk}: {touched} files touched, {day.bytes_written >> 10} KiB written"
        case _:
            report = boot(f"file={disk},format={asked.format}", timeout_s=asked.timeout)
            return f"{report.line} ({report.seconds:.1f} s)"


if __name__ == "__main__":
    sys.exit(main())
