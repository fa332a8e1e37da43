"""`backpoint rebuild-index`: the index and other caches made anew from what they are caches of."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.index_rebuild import RebuildReport

HELP: Final = "make the index anew from the packs"
DAMAGED: Final = 1
_SHOWN_MAX: Final = 50

_DESCRIPTION: Final = """
Read the directory of every pack and write a new index from them, then delete the old one. Needed
where `backpoint check` reports damaged index segments, or chunks in the wrong place; never to free
space. Backups, mounts and collectors may run meanwhile. Interrupted, it leaves the index larger,
and no worse.

What old segments say of packs whose directory is damaged is kept: it may be all there is to find
those chunks by. Such packs are named; `backpoint scrub` and `backpoint heal` deal with them. Kept
is also what they say of packs that are gone and that no collector has deleted: from it the next
backups learn what to store again.

Other caches that are spoiled are cleared: damaged catalogue objects (points are listed from the
points themselves), damage marks that are unreadable or whose packs are gone, and files that a crash
left in the repository's tmp folder more than a day ago.

Either credential will do, if it may delete.
"""
_EXAMPLES: Final = """
backpoint rebuild-index --dry-run
backpoint rebuild-index
"""
_EXIT_CODES: Final = """\
exit codes:
  0 done   1 done, and some packs have a damaged directory
  4 some packs could not be read now, or the repository failed
  2 wrong use   5 a key or passphrase is wrong or not enough   130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, exit_codes=_EXIT_CODES)
    parser.add_argument(
        "--dry-run", action="store_true", help="read all directories and change nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Raises what opening and a store raise."""
    from backpoint_repo.errors import RepositoryError
    from backpoint_repo.index_rebuild import rebuild_index
    from backpoint_repo.opening import open_from
    from backpoint_repo.progress import steps

    repository = open_from(args)
    with steps("rebuilding the index", as_json=args.json) as shown:
        report = rebuild_index(repository, shown, dry_run=args.dry_run)
    _report(args, report)
    if report.unreadable:
        return RepositoryError.exit_code
    return DAMAGED if report.damaged else 0


def _report(args: argparse.Namespace, report: RebuildReport) -> None:
    from backpoint_repo.sizes import counted
    from backpoint_repo.terminal import print_line, print_record, warn

    if args.json:
        print_record(_record(report))
        return
    lines = [f"damaged directory: {what}" for what in report.damaged]
    lines += [f"could not read: {what}" for what in report.unreadable]
    gone = "would be deleted" if report.dry_run else "deleted"
    lines += [f"{gone}: {what}: {why}" for what, why in report.cleared]
    for line in lines[:_SHOWN_MAX]:
        print_line(line)
    if len(lines) > _SHOWN_MAX:
        print_line(f"... and {len(lines) - _SHOWN_MAX} more; --json lists all")
    for advice in report.advice:
        warn(advice)
    if report.taken_over:
        print_line(
            f"{report.taken_over} entries of packs that are damaged or gone are kept from the old "
            "index"
        )
    would = "would replace" if report.dry_run else "replaced"
    print_line(
        f"{report.entries} entries of {counted(report.packs, 'pack')}: "
        f"{counted(report.written, 'new segment')} {would} {report.replaced}"
    )


def _record(report: RebuildReport) -> dict[str, Any]:
    from dataclasses import asdict

    record = asdict(report)
    record["cleared"] = [{"what": what, "why": why} for what, why in report.cleared]
    return {"type": "rebuild-index", **record}
