"""`backpoint tail`: a replica kept in step."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.command_parser import OPENS_REPOSITORY, describe
from backpoint_repo.commands.copy import TO_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backpoint_repo.catalog import PointSummary
    from backpoint_repo.copying.copier import Copier, Outcome
    from backpoint_repo.copying.report import Tally
    from backpoint_repo.copying.tail import Standing, Tail, VmStanding

HELP: Final = "keep a replica in another repository in step"
_SHORTEST_S: Final = 1.0

_DESCRIPTION: Final = """
Copy new restore points to REPO2 as they come, and show how far it is behind: what a loss of the
source now would cost. Of each VM the points are copied that came after the newest one REPO2 has got
of it; so what its own retention removes does not come back. Of a VM that it has nothing of, all
points are copied, or those since T. `backpoint copy` copies the others, and says more about how.

While a repository cannot be reached, or REPO2 is full, this is told and tried again, after 5
seconds first and 5 minutes at last. Ended (ctrl-C, SIGTERM), it gives up the point under way; what
was stored of it is found again. With --once it copies what there is to copy, shows how far each VM
is and ends: for cron.

Holds of the source and proofs are not copied: hold and prove points of REPO2 there.

With --json each round is one line on stdout, each point copied another. lag_s: the age of the
oldest point that is not there yet, of a VM and of all; vms: those that are behind, in the first
round and with --once all of them.
"""
_EXAMPLES: Final = """
backpoint -r /srv/backup tail --to s3://bucket/offsite
backpoint tail --to /mnt/disk2/repo 'db*' --every 10m
backpoint tail --to /mnt/disk2/repo --once --json
"""
_EXIT_CODES: Final = """\
exit codes:
  0 in step (--once), or ended by a signal
  1 some points are damaged, or their copies differ; all others are there (--once)
  4 a repository failed, or some points could not be read for now
  2 wrong use   5 a key or passphrase is wrong or not enough   130 interrupted (--once)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser,
        _DESCRIPTION,
        examples=_EXAMPLES,
        environment=OPENS_REPOSITORY + TO_ENVIRONMENT,
        exit_codes=_EXIT_CODES,
    )
    parser.add_argument(
        "vms",
        metavar="VM",
        nargs="*",
        help="names or shell patterns of VMs, which need not be there yet (default: all)",
    )
    parser.add_argument("--to", metavar="REPO2", required=True, help="where the replica is")
    parser.add_argument(
        "--since", metavar="T", help="for VMs that REPO2 has nothing of, like 2026-11-20"
    )
    parser.add_argument(
        "--every", metavar="TIME", default="60s", help="how often to look (default: 60s)"
    )
    parser.add_argument("--once", action="store_true", help="one round, for cron")
    parser.add_argument(
        "--verify", action="store_true", help="read each copy back and compare it with its original"
    )


def run(args: argparse.Namespace) -> int:
    """With --once 0 in step, 1 some points are damaged, 4 some could not be read; else 0 once ended
    by a signal. Raises UsageError, KeyFault and what opening raises; with --once what a store
    raises."""
    from backpoint_repo.errors import UsageError
    from backpoint_repo.moment import parse_moment
    from backpoint_repo.sizes import parse_duration

    since = 0.0 if args.since is None else parse_moment(args.since)
    every_s = parse_duration(args.every)
    if every_s < _SHORTEST_S:
        raise UsageError(f"--every {args.every} is too often; once a second is the most")
    if args.once:
        return _opened(args, since).once()
    _follow(lambda: _opened(args, since), every_s)
    return 0


def _opened(args: argparse.Namespace, since: float) -> _Rounds:
    from backpoint_repo.commands.copy import opened_copier
    from backpoint_repo.copying.tail import Tail

    copier = opened_copier(args, verify=args.verify)
    return _Rounds(args, copier, Tail(copier, args.vms, since))


def _follow(opened: Callable[[], _Rounds], every_s: float) -> None:
    """Until a signal ends it. A place may be away, also when it is to be opened: a machine may have
    started before its store. One that was never reached as it is set up is no such place."""
    from backpoint_repo.copying.tail import pauses
    from backpoint_repo.errors import StoreDenied, StoreMisconfigured, StoreUnavailable
    from backpoint_repo.sizes import format_duration
    from backpoint_repo.terminal import say, warn

    rounds: _Rounds | None = None
    failures = pauses(every_s)
    try:
        while True:
            try:
                rounds = rounds or opened()
                rounds.run()
            except StoreUnavailable as error:
                if rounds is None and isinstance(error, StoreDenied | StoreMisconfigured):
                    raise
                pause = next(failures)
                _clear(rounds)
                warn(f"{error}; trying again in {format_duration(pause)}")
            else:
                pause, failures = every_s, pauses(every_s)
            time.sleep(pause)
    except (KeyboardInterrupt, SystemExit):
        _clear(rounds)
        say("ended; what was stored of a point under way is found again")


def _clear(rounds: _Rounds | None) -> None:
    if rounds is not None:
        rounds.clear()


class _Rounds:
    """What is shown of them: a live line on a terminal, a line for each change elsewhere, records
    with --json."""

    def __init__(self, args: argparse.Namespace, copier: Copier, tail: Tail) -> None:
        from backpoint_repo.copying.telling import Telling

        self._args = args
        self._copier = copier
        self._tail = tail
        self._telling = Telling(args)
        self._live = sys.stderr.isatty() and not args.json
        self._shown = ""
        self._first = True

    def once(self) -> int:
        """One round; the exit code."""
        from backpoint_repo.copying.telling import exit_code

        tally = self.run()
        if not self._args.json:
            self.clear()
            _print_table(self._tail.look(time.time())[0])
        return exit_code(tally, self._copier)

    def run(self) -> Tally:
        """Look, copy what there is, and tell how far it is. Raises as `Copier.copy`."""
        from backpoint_repo.copying.report import Tally

        tally = Tally()
        standing, plan = self._tail.look(time.time())
        self._telling.unreadable(self._copier)
        self._show(standing, tally)
        if plan:
            for outcome in self._tail.catch_up(plan, self._copy):
                tally.count(outcome)
                self._tell(outcome)
            standing, _ = self._tail.look(time.time())
            self._show(standing, tally)
        self._first = False
        return tally

    def clear(self) -> None:
        """Make room for a line, if the live one is in its place."""
        if self._live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def _copy(self, point: PointSummary) -> Outcome:
        from backpoint_repo.point_record import point_name
        from backpoint_repo.progress import progress

        self.clear()
        name, total = f"copying {point_name(point)}", self._telling.bytes_to_pass(point)
        with progress(name, total, as_json=self._args.json) as advance:
            return self._telling.copied(self._copier, point, advance)

    def _tell(self, outcome: Outcome) -> None:
        from backpoint_repo.point_record import point_name
        from backpoint_repo.sizes import format_duration, format_size
        from backpoint_repo.terminal import print_line

        if outcome.copied is None or self._args.json:
            return
        copy = outcome.copied.point
        print_line(
            f"{outcome.fate.value} {point_name(outcome.point)} ({copy.point_id.hex()[:8]}): stored "
            f"{format_size(copy.traffic.stored)} in {format_duration(copy.duration_s)}"
        )
        sys.stdout.flush()

    def _show(self, standing: Standing, tally: Tally) -> None:
        from backpoint_repo.terminal import print_line, print_record, printable

        if self._args.json:
            every = self._first or self._args.once
            shown = standing.vms if every else standing.behind
            print_record(_record(standing, shown, tally))
            return
        text = _text(standing)
        if self._live:
            self.clear()
            sys.stderr.write(printable(f"{_clock(standing.now)} {text}"))
            sys.stderr.flush()
        elif text != self._shown and not self._args.once:
            print_line(f"{_clock(standing.now)} {text}")
            sys.stdout.flush()
        self._shown = text


def _clock(seconds: float) -> str:
    from backpoint_repo.point_selector import format_time

    return format_time(seconds)


def _text(standing: Standing) -> str:
    from backpoint_repo.sizes import counted, format_duration

    if not standing.pending:
        return f"in step: {counted(len(standing.vms), 'VM')}"
    worst = max(standing.behind, key=lambda one: one.lag_s(standing.now))
    return (
        f"behind by {format_duration(standing.lag_s)} ({worst.vm}): "
        f"{counted(standing.pending, 'point')} of {counted(len(standing.behind), 'VM')} to copy"
    )


def _print_table(standing: Standing) -> None:
    from backpoint_repo.point_selector import format_time
    from backpoint_repo.sizes import format_duration
    from backpoint_repo.terminal import Column, print_line, print_table

    columns = [Column("vm"), Column("newest there"), *(Column(w, True) for w in ("left", "behind"))]
    rows = [
        (
            one.vm,
            format_time(one.newest.time) if one.newest else "none",
            str(one.pending or ""),
            format_duration(one.lag_s(standing.now)) if one.pending else "",
        )
        for one in standing.vms
    ]
    if rows:
        print_table(columns, rows)
    print_line(_text(standing))


def _record(standing: Standing, shown: Sequence[VmStanding], tally: Tally) -> dict[str, Any]:
    from backpoint_repo.point_selector import format_time

    vms = [
        {
            "vm": one.vm,
            "pending": one.pending,
            "lag_s": round(one.lag_s(standing.now), 3),
            "newest": format_time(one.newest.time) if one.newest else None,
            "newest_time": one.newest.time if one.newest else None,
        }
        for one in shown
    ]
    return {
        "type": "tail",
        "now": standing.now,
        "lag_s": round(standing.lag_s, 3),
        "pending": standing.pending,
        "behind": len(standing.behind),
        "vms": vms,
        **tally.record(),
    }
