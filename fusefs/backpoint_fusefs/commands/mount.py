"""`backpoint mount`: every restore point as files, until it is unmounted."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backpoint_fusefs.memory_size import add_memory_size, parse_memory_size
from backpoint_repo.cache_options import add_cache_options
from backpoint_repo.command_parser import describe

HELP: Final = "show every restore point as files below a directory"

_DESCRIPTION: Final = """
Mount the repository: vms/VM/TIME/ and by-date/DAY/VM hold each point's disks as .vmdk files, the
guest's own files below guest/, and what is known about the point in point.json. All of that is
read-only; new points appear by themselves.

With --live the mount also has live/SESSION/, a point's folder that can be written to; nothing of
it is lost when the mount ends or dies, but what no program had synced. Sessions are begun by
`backpoint live start`; one that is begun while it is mounted appears by itself.

The mount goes on in the background until `backpoint umount DIR`. Only the user who mounts can read
it, unless --allow-others says otherwise. The agent credential cannot be used: disks are read with
the owner's key.
"""
_EXAMPLES: Final = """
backpoint mount /mnt/backups
backpoint mount --memory 1G --foreground /mnt/backups
backpoint -r s3://backups/site1 mount --cache /srv/cache --cache-size 50G /mnt/backups
backpoint mount --live /var/lib/backpoint/sessions /mnt/backups
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("directory", metavar="DIR", type=Path, help="an empty directory")
    parser.add_argument(
        "--foreground", action="store_true", help="stay, and log to stderr, until it is unmounted"
    )
    parser.add_argument(
        "--allow-others",
        action="store_true",
        help="let every user of this machine read it (without root: see fuse.conf(5))",
    )
    parser.add_argument(
        "--streams",
        action="store_true",
        help="show alternate streams of NTFS that are too large for an extended attribute as files "
        "named FILE:STREAM",
    )
    parser.add_argument(
        "--live",
        metavar="SESSIONS",
        type=Path,
        help="also show the live sessions of this folder, writable: what `backpoint live start` "
        "was given as --live (without it: BACKPOINT_LIVE, else /var/lib/backpoint/live/ID for "
        "root and ~/.local/state/backpoint/live/ID for others)",
    )
    add_memory_size(parser)
    add_cache_options(parser)


def run(args: argparse.Namespace) -> int:
    """Raises UsageError, KeyFault, and what a store raises."""
    from backpoint_fusefs.background import run_in_background
    from backpoint_fusefs.mount_log import log_path, log_to_stderr, open_log
    from backpoint_fusefs.mount_point import check_mount_point, real_place
    from backpoint_fusefs.mounting import MountPlan, serve_mount
    from backpoint_repo.opening import open_cached_from, require_owner
    from backpoint_repo.process_tuning import tune_for_chunks

    place, memory = real_place(args.directory), parse_memory_size(args.memory)
    live = None if args.live is None else args.live.absolute()
    check_mount_point(place)
    repository = open_cached_from(args)
    require_owner(repository, "mounting")
    tune_for_chunks()  # not before: what scrypt took would be kept too
    plan = MountPlan(repository, place, memory, args.allow_others, args.streams, live)

    def serve(ready: Callable[[], None]) -> None:
        log_to_stderr()
        serve_mount(plan, ready)

    if args.foreground:
        serve(lambda: _report(args, place))
        return 0
    log = log_path(place)
    run_in_background(serve, open_log(log), str(log))
    _report(args, place)
    return 0


def _report(args: argparse.Namespace, place: Path) -> None:
    from backpoint_repo.terminal import print_record, say

    if args.json:
        print_record({"type": "mount", "path": str(place)})
    else:
        say(f"mounted at {place}; `backpoint umount {place}` ends it")
