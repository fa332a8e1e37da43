"""`backpoint leases`: who uses the repository now, and what a collector waits for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.lease_book import HeldLease
    from backpoint_repo.repository import Repository
    from backpoint_repo.sealed_store import SealedStore

HELP: Final = "who uses the repository now"
_SHOWN_MAX: Final = 64

_DESCRIPTION: Final = """
List the leases: every backup, mount, restore and collection that is under way, where it runs, when
it last gave a sign of life, and what it pins. A lease blocks nobody. A collector does not delete
what a living session may depend on; one without a sign of life for ten minutes is ended by the next
`backpoint collect`, which costs a backup that is still alive after all that backup, and no data.

BEHIND says how many trash epochs a session has not seen yet: `collect` deletes nothing of those
before it has.

--end does at once what `collect` does later: for a machine that is gone for good.
"""
_EXAMPLES: Final = """
backpoint leases
backpoint leases --json
backpoint leases --end 5f03c1a2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument(
        "--end",
        metavar="SESSION",
        help="end this session (the beginning of its id is enough): it cannot publish any more",
    )


def run(args: argparse.Namespace) -> int:
    """Raises what opening and a store raise."""
    from backpoint_repo.lease_book import read_leases
    from backpoint_repo.opening import open_from
    from backpoint_repo.terminal import print_record, say

    repository = open_from(args)
    if args.end is not None:
        return _end(repository, args.end, as_json=args.json)
    newest = _newest_epoch(repository.sealed)
    leases = [lease for lease in read_leases(repository.sealed) if not lease.ended]
    now = repository.clock()
    if args.json:
        print_record({"epoch": newest, "leases": [_record(lease, now) for lease in leases]})
    elif leases:
        _print_table(leases, newest, now)
    else:
        say("nobody uses the repository")
    return 0


def _newest_epoch(sealed: SealedStore) -> int:
    """Also where trash cannot be read: then people have to know who is at work."""
    from backpoint_repo.errors import ObjectDamaged, UnknownFormat
    from backpoint_repo.terminal import warn
    from backpoint_repo.trash import newest_epoch, read_trash

    try:
        return read_trash(sealed).newest
    except (ObjectDamaged, UnknownFormat) as error:
        warn(str(error))
        return newest_epoch(sealed)


def _end(repository: Repository, beginning: str, *, as_json: bool) -> int:
    from backpoint_repo.errors import UsageError
    from backpoint_repo.lease_book import read_leases, revoke
    from backpoint_repo.terminal import print_line, print_record

    leases = read_leases(repository.sealed)
    found = [lease for lease in leases if lease.session.hex().startswith(beginning.lower())]
    if len(found) != 1 or not beginning:
        some = f"{len(found)} sessions" if found else "no session"
        raise UsageError(
            f"{some} with a lease {'begin' if found else 'begins'} with {beginning!r}; "
            "see `backpoint leases`"
        )
    lease = found[0]
    voided = revoke(repository.sealed, lease.session, bytes(16), repository.clock())
    if as_json:
        print_record({"ended": lease.session.hex(), "published": not voided})
    else:
        print_line(
            f"{lease.title} is ended"
            + ("" if voided else "; it had published its point already, which stays")
        )
    return 0


def _print_table(leases: list[HeldLease], newest: int, now: float) -> None:
    from backpoint_repo.point_selector import format_time
    from backpoint_repo.sizes import format_duration
    from backpoint_repo.terminal import Column, print_table, warn

    words = ("session", "purpose", "host")
    numbers = ("process", "pins", "behind", "refreshed")
    columns = [Column(word) for word in words] + [Column(word, right=True) for word in numbers]
    columns += [Column("since"), Column("")]
    rows = []
    for lease in leases:
        if lease.problem:
            warn(lease.title)
            continue
        rows.append(
            (
                lease.session.hex()[:8],
                lease.purpose[:_SHOWN_MAX],
                lease.host[:_SHOWN_MAX],
                str(lease.pid),
                str(len(lease.pins) or ""),
                str(max(0, newest - lease.epoch) or ""),
                f"{format_duration(max(0.0, now - lease.refreshed))} ago",
                format_time(lease.started),
                "expired" if lease.looks_expired(now) else "",
            )
        )
    print_table(columns, rows)


def _record(lease: HeldLease, now: float) -> dict[str, Any]:
    return {
        "session": lease.session.hex(),
        "purpose": lease.purpose,
        "host": lease.host,
        "pid": lease.pid,
        "epoch": lease.epoch,
        "pins": [pin.hex() for pin in lease.pins],
        "started": lease.started,
        "refreshed": lease.refreshed,
        "lifetime_s": lease.lifetime_s,
        "expired": lease.looks_expired(now),
        "problem": lease.problem,
    }
