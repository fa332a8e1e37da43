"""`backpoint backup image`: disks that are files or block devices become one restore point."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backpoint_repo.command_parser import CommandParser, describe

if TYPE_CHECKING:
    from backpoint_repo.backup_session import DiskJob
    from backpoint_repo.point import Point
    from backpoint_repo.repository import Repository
    from backpoint_repo.source.contract import ImageSource

HELP: Final = "back up disks into a new restore point"
FORMATS: Final = ("raw", "vmdk", "qcow2", "vhdx", "vpc", "vdi")
_NAME_SIZE_MAX: Final = 255
"""Bytes of a VM's name or a configuration file's: they become file names in the mount."""

_DESCRIPTION: Final = """
Back up the disks of one VM into a new restore point. Disks may be raw files, block devices, vmdk,
qcow2, vhdx, vhd or vdi; the VM should be off, or the disks a snapshot, while they are read.

Every point is a full one, whatever was stored for it. The newest good point of the VM becomes the
parent: with --changed-list only what changed since then is read. Each line of such a file is
{"offset": BYTES, "length": BYTES}; give one file per disk, in their order.

Interrupted or failed, a backup leaves no point; the next run finds again what was stored.
"""
_EXAMPLES: Final = """
backpoint backup image --vm web01 system.qcow2 data.raw
backpoint backup image --vm web01 --label 'before upgrade' /dev/vg0/web01-snapshot
backpoint backup image --vm web01 --changed-list blocks.jsonl --config web01.vmx disk.vmdk
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    parser.description = HELP
    kinds = parser.add_subparsers(
        title="what to back up", metavar="KIND", required=True, parser_class=CommandParser
    )
    image = kinds.add_parser("image", help="disks that are files or block devices")
    describe(image, _DESCRIPTION, examples=_EXAMPLES)
    image.add_argument("--vm", metavar="NAME", required=True, help="whose disks these are")
    image.add_argument(
        "--time", metavar="T", help="the moment the point shows: ISO 8601 or seconds since 1970"
    )
    image.add_argument("--label", metavar="TEXT", default="", help="a remark kept with the point")
    image.add_argument(
        "--changed-list",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="what changed since the newest point, one file per disk",
    )
    image.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="a small file of the VM to keep with the point (.vmx, .nvram); repeatable",
    )
    image.add_argument(
        "--format",
        choices=FORMATS,
        help="format of all disks; by default told from their content. Give raw where the guest "
        "could have written another format's header into its disk",
    )
    image.add_argument("disks", metavar="DISK", nargs="+", help="disk0, disk1, ... of the point")


def run(args: argparse.Namespace) -> int:
    """Raises UsageError, SourceError, KeyFault and what a store raises."""
    from backpoint_repo.moment import parse_moment
    from backpoint_repo.opening import open_from
    from backpoint_repo.process_tuning import tune_for_chunks

    _check_names(args)
    moment = None if args.time is None else parse_moment(args.time)
    files = [(path.name, _read_config_file(path)) for path in args.config]
    with ExitStack() as opened:
        jobs = _open_jobs(args, opened)
        repository = open_from(args)
        tune_for_chunks()  # not before: what scrypt took would be kept too
        point = _back_up(args, repository, jobs, files, moment)
    _report(args, repository, point)
    return 0


def _back_up(
    args: argparse.Namespace,
    repository: Repository,
    jobs: list[DiskJob],
    files: list[tuple[str, bytes]],
    moment: float | None,
) -> Point:
    from backpoint_repo.progress import progress

    total = sum(job.source.size for job in jobs)
    with (
        repository.begin_backup(args.vm) as session,
        progress(f"backing up {args.vm}", total, as_json=args.json) as advance,
    ):
        for job in jobs:
            session.store_disk(job, advance)
        for name, data in files:
            session.store_file(name, data)
        return session.publish(time=moment, label=args.label)


def _open_jobs(args: argparse.Namespace, opened: ExitStack) -> list[DiskJob]:
    from backpoint_repo.backup_session import DiskJob
    from backpoint_repo.changed_list import read_changed_list
    from backpoint_repo.errors import UsageError

    lists = args.changed_list
    if lists and len(lists) != len(args.disks):
        raise UsageError(
            f"{len(lists)} --changed-list for {len(args.disks)} disks; give one for each, in order"
        )
    jobs = []
    for number, path in enumerate(args.disks):
        source = _open_source(path, args.format)
        opened.callback(source.close)
        changed = read_changed_list(lists[number], source.size) if lists else None
        jobs.append(DiskJob(f"disk{number}", source, changed))
    return jobs


def _open_source(path: str, format_name: str | None) -> ImageSource:
    from backpoint_repo.source.detect import open_image
    from backpoint_repo.source.qemu_nbd import QemuImage
    from backpoint_repo.source.raw_image import RawImage

    if format_name is None:
        return open_image(path)
    return RawImage(path) if format_name == "raw" else QemuImage(path, format_name)


def _check_names(args: argparse.Namespace) -> None:
    """Names must be text that fits a file name; what they are made of is for whoever shows them."""
    from backpoint_repo.errors import UsageError

    names = [path.name for path in args.config]
    if len(set(names)) != len(names):
        raise UsageError("two --config files have the same name; the point can hold only one")
    for name in (args.vm, *names):
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise UsageError(f"{name!r} is not UTF-8 text") from None
        if not 1 <= size <= _NAME_SIZE_MAX:
            raise UsageError(f"a name has 1 to {_NAME_SIZE_MAX} bytes; {name!r} has {size}")


def _read_config_file(path: Path) -> bytes:
    from backpoint_repo.errors import UsageError
    from backpoint_repo.point import FILE_SIZE_MAX

    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > FILE_SIZE_MAX:
        raise UsageError(f"{path} is no configuration file: it has more than {FILE_SIZE_MAX} bytes")
    return data


def _report(args: argparse.Namespace, repository: Repository, point: Point) -> None:
    from backpoint_repo.point_record import full_record, point_name
    from backpoint_repo.sizes import format_duration, format_rate, format_size
    from backpoint_repo.terminal import print_line, print_record, warn

    for warning in (*point.warnings, *repository.index.broken_segments):
        warn(warning)
    if args.json:
        print_record({"type": "point", **full_record(point)})
        return
    traffic = point.traffic
    rate = format_rate(point.size / point.duration_s) if point.duration_s > 0 else "-"
    print_line(f"point {point_name(point)} ({point.point_id.hex()[:8]})")
    print_line(
        f"disks {format_size(point.size)}, read {format_size(traffic.read)}, "
        f"new {format_size(traffic.new)}, stored {format_size(traffic.stored)}, "
        f"in {format_duration(point.duration_s)} ({rate})"
    )
