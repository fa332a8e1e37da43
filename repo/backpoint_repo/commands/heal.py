"""`backpoint heal`: what was damaged is stored anew, from wherever the same content still is."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.command_parser import OPENS_REPOSITORY, describe
from backpoint_repo.commands.backup import FORMATS

if TYPE_CHECKING:
    from backpoint_repo.healing.heal_report import HealReport
    from backpoint_repo.healing.way import Way
    from backpoint_repo.progress import Steps
    from backpoint_repo.repository import Repository

HELP: Final = "store damaged content anew"
LOST: Final = 1
_VMS_SHOWN_MAX: Final = 10

_DESCRIPTION: Final = """
Store anew what some restore point needs and no good copy holds: chunks and map nodes that a check
or a scrub found damaged, and those of packs that are gone or cut short. They are looked for in this
repository first (copies that read well again, parity packs) and then in what --from names:

  a disk        the machine's own, a clone, an image: raw, vmdk, qcow2, vhdx, vhd or vdi. The places
                where the content lay are read first, then the whole disk, for what has moved
  a repository  a byte copy of this one gives its stored blobs; any other one is asked for what its
                points show in the same places of disks of the same size

Only content whose id is the lost one is stored, so a wrong SOURCE costs the time of reading it.
Nothing is deleted, and backups, mounts and collectors may run meanwhile. What was never read may be
rotten unnoticed: run `check --read-data` or `scrub` before. With the agent credential, copies that
were marked as damaged are not believed again, because it cannot open them.
"""
_EXAMPLES: Final = """
backpoint heal --dry-run
backpoint heal
backpoint heal --from /dev/vg0/web01 --vm web01
backpoint heal --from /mnt/second-site/repo
backpoint heal --from s3://bucket/offsite
"""
_FROM_ENVIRONMENT: Final = """\
  BACKPOINT_FROM_PASSPHRASE, BACKPOINT_FROM_PASSPHRASE_FILE, BACKPOINT_FROM_PASSPHRASE_COMMAND,
  BACKPOINT_FROM_CREDENTIAL     likewise, of the repository that --from names; a byte copy of this
                                one needs none
"""
_EXIT_CODES: Final = """\
exit codes:
  0 nothing is lost, or all of it was healed   1 something is still lost
  4 something could not be looked at, or is no repository
  2 wrong use   3 a source disk cannot be opened   5 a key or passphrase is wrong or not enough
  130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser,
        _DESCRIPTION,
        examples=_EXAMPLES,
        environment=OPENS_REPOSITORY + _FROM_ENVIRONMENT,
        exit_codes=_EXIT_CODES,
    )
    parser.add_argument(
        "--from", dest="source", metavar="SOURCE|REPO2", help="where to look besides"
    )
    parser.add_argument("--vm", metavar="NAME", help="heal only what the points of this VM need")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="of a disk, read only the places where the content lay",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="format of the disk; by default told from its content",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what is lost; write nothing, read no source"
    )


def run(args: argparse.Namespace) -> int:
    """0 all is healed, 1 something is lost, 4 where something could not be looked at. Raises
    UsageError, SourceError, KeyFault and what opening raises."""
    from backpoint_repo.errors import RepositoryError
    from backpoint_repo.opening import open_from
    from backpoint_repo.process_tuning import tune_for_chunks
    from backpoint_repo.progress import steps

    repository = open_from(args)
    _check_vm(args, repository)
    with ExitStack() as opened:
        ways = _ways(args, repository, opened)
        tune_for_chunks()
        shown = opened.enter_context(steps("healing", as_json=args.json))
        report = _healed(args, repository, ways, shown)
    _report(args, report, [way.title for way in ways])
    if not report.whole:
        return LOST
    return RepositoryError.exit_code if report.unreadable else 0


def _healed(
    args: argparse.Namespace, repository: Repository, ways: list[Way], shown: Steps
) -> HealReport:
    from backpoint_repo.healing.heal import heal, plan_heal

    if args.dry_run:
        return plan_heal(repository, shown, args.vm)
    return heal(repository, ways, shown, args.vm)


def _ways(args: argparse.Namespace, repository: Repository, opened: ExitStack) -> list[Way]:
    from backpoint_repo.healing.donor import opened_donor
    from backpoint_repo.opening import store_at
    from backpoint_repo.store.place import parse_place

    if args.source is None:
        return []
    named = parse_place(args.source)
    place = named if isinstance(named, Path) else store_at(args, args.source)
    donor = opened_donor(repository, place, os.environ, format_name=args.format, quick=args.quick)
    return [opened.enter_context(donor)]


def _check_vm(args: argparse.Namespace, repository: Repository) -> None:
    """A mistyped name must not read as a VM that has lost nothing."""
    from backpoint_repo.errors import UsageError

    if args.vm is None:
        return
    names = sorted({point.vm for point in repository.catalog.refresh()})
    if args.vm not in names:
        known = ", ".join(names[:10]) or "none at all"
        raise UsageError(f"no points of a VM named {args.vm!r}; there are: {known}")


def _report(args: argparse.Namespace, report: HealReport, ways: list[str]) -> None:
    from backpoint_repo.scrubbing.damage_text import print_damage, print_notes
    from backpoint_repo.sizes import counted, format_size
    from backpoint_repo.terminal import print_line, print_record

    if args.json:
        print_record(_record(args, report))
        return
    print_notes(report.notes)
    print_damage(report.broken, report.lost, report.unreadable)
    for item in report.healed:
        if item.chunks or item.nodes:
            print_line(f"healed {_counted(item.chunks, item.nodes)} {item.way}")
    wanted = _counted(report.chunks, report.nodes)
    print_line(
        f"{counted(report.points, 'point')} examined, {wanted} wanted, "
        f"{format_size(report.stored)} stored: {_verdict(args, report)}"
    )
    for line in _advice(args, report, ways):
        print_line(line)


def _verdict(args: argparse.Namespace, report: HealReport) -> str:
    if not report.whole:
        return "LOST" if args.dry_run else "STILL LOST"
    if report.unreadable:
        return "COULD NOT LOOK AT EVERYTHING"
    return "healed" if report.chunks or report.nodes else "nothing to heal"


def _advice(args: argparse.Namespace, report: HealReport, ways: list[str]) -> list[str]:
    """What to do next."""
    if args.dry_run and report.lost:
        places = ["in this repository's copies and parity packs", *ways]
        return [f"heal would look {', then '.join(places)}"]
    if report.broken:
        return sorted({broken.by_hand for broken in report.broken})
    if report.lost:
        vms = ", ".join(sorted({hurt.vm for hurt in report.lost})[:_VMS_SHOWN_MAX])
        other = "" if ways else "; --from a disk or another repository may have it"
        return [f"a full backup of {vms} stores what its disks still hold{other}"]
    return ["run `backpoint check` to see it confirmed"] if report.healed and report.whole else []


def _counted(chunks: int, nodes: int) -> str:
    """`12 chunks and 1 map node`."""
    from backpoint_repo.sizes import counted

    parts = [
        counted(count, what) for count, what in ((chunks, "chunk"), (nodes, "map node")) if count
    ]
    return " and ".join(parts) or "nothing"


def _record(args: argparse.Namespace, report: HealReport) -> dict[str, Any]:
    from dataclasses import asdict

    record = asdict(report)
    for lost in record["lost"]:
        lost["point_id"] = lost["point_id"].hex()
    return {"type": "heal", "dry_run": args.dry_run, "whole": report.whole, **record}
