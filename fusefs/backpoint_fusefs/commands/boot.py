"""`backpoint boot`: a restore point as a running virtual machine."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from backpoint_fusefs.boot.command_options import (
    add_boot_options,
    refuse_vcenter_options,
    terms_of,
    vcenter_module,
)
from backpoint_fusefs.commands.boot_group import add_group_options, refuse_group_options, run_group
from backpoint_fusefs.commands.live_commands.opening import LIVE_ENVIRONMENT
from backpoint_repo.cache_options import add_cache_options
from backpoint_repo.command_parser import OPENS_REPOSITORY, describe

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from backpoint_fusefs.boot.attending import Attendance
    from backpoint_fusefs.boot.booted_point import BootedPoint, BootTerms
    from backpoint_fusefs.boot.terminal_console import TerminalConsole
    from backpoint_fusefs.live.session_home import SessionHome
    from backpoint_repo.catalog import PointSummary
    from backpoint_repo.repository import Repository

HELP: Final = "run a restore point as a virtual machine"

_DESCRIPTION: Final = """
Run a restore point as a virtual machine, from the backup: nothing is restored before. What it
writes goes to a live session, which is discarded at the end unless --keep or --session says
otherwise; the point itself never changes.

By QEMU on this machine (the default), with the hardware that the point's .vmx tells: firmware,
cores, memory, disks and their controllers, network cards. What QEMU does not have is replaced, and
said. It runs by KVM where KVM truly boots a guest, else by QEMU's own translation, much
slower. No network is connected unless --isolated or --network user asks for one.

On a terminal the guest's serial console is shown, and Ctrl-] ends the machine; --vnc shows its
screen to a VNC client on this machine instead. Ctrl-C ends it where its console is not shown, and
so does the guest's own shutdown.

With --group several points boot together in one closed network, in the order that the file says,
each once those it needs are ready: a text on its console, an open port, a screen at rest.
--group-example prints such a file, with every key explained.

By --vcenter it is registered and powered on there, from an NFS export of this machine.
"""
_EXAMPLES: Final = """
backpoint boot web01@latest
backpoint boot web01@2026-11-20 --vnc --isolated --forward 8080:80
backpoint boot db@latest --keep --memory 4G --network user
backpoint boot --session db-1
backpoint boot web01@latest --until "login:" --timeout 300 --json
backpoint boot --group shop.toml --until-ready --log-dir consoles
backpoint boot web01@latest --vcenter -c backpoint.toml --host esx1 --isolated
"""
_EXIT_CODES: Final = """\
exit codes:
  0 it ran and was ended, or --until was seen   2 wrong use
  4 the repository or the session failed   5 a key or passphrase is wrong or not enough
  6 the exported session cannot be written from here (--vcenter)   7 vCenter failed
  8 a machine did not start, did not say what --until waits for, or one of a group did not get ready
  130 interrupted before it ran, or before it said what --until waits for
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    environment = OPENS_REPOSITORY + LIVE_ENVIRONMENT
    describe(
        parser,
        _DESCRIPTION,
        examples=_EXAMPLES,
        environment=environment,
        exit_codes=_EXIT_CODES,
    )
    parser.add_argument(
        "point",
        metavar="VM@POINT",
        nargs="?",
        help="VM@latest, VM@TIME-PREFIX, VM@INDEX or VM@ID-PREFIX; not needed with --session",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--qemu", action="store_true", help="on this machine (the default)")
    where.add_argument("--vcenter", action="store_true", help="on a host of a vCenter")
    add_boot_options(parser)
    add_group_options(parser)
    add_cache_options(parser)


def run(args: argparse.Namespace) -> int:
    """Raises UsageError, KeyFault, MachineFailed, and what sessions and stores raise."""
    if args.group is not None or args.group_example:
        return run_group(args)
    refuse_group_options(args)
    if args.vcenter:
        return _run_in_vcenter(args)
    refuse_vcenter_options(args)
    import time

    from backpoint_fusefs.boot.booted_point import discard_left_behind
    from backpoint_fusefs.commands.live_commands.opening import open_home
    from backpoint_repo.process_tuning import tune_for_chunks
    from backpoint_repo.terminal import say

    began = time.monotonic()
    terms = terms_of(args)
    repository, home = open_home(args, "booting a point", cached=True)
    tune_for_chunks()  # not before: what scrypt took would be kept too
    discard_left_behind(home, say)
    point, begin = _point(args, repository, home)
    console = _console(args)
    with (
        console or nullcontext(),
        _booted(args, repository, home, (point, begin), terms, console) as booted,
    ):
        attendance = _attend(args, booted, console)
    _report(args, booted, point, attendance, time.monotonic() - began)
    if attendance.failure is not None:
        raise attendance.failure
    return 0


def _run_in_vcenter(args: argparse.Namespace) -> int:
    from backpoint_repo.errors import UsageError

    module = vcenter_module()
    if module is None:
        raise UsageError("--vcenter needs the agent, which is not installed here")
    if args.point is None:
        raise UsageError("which point? Give VM@POINT")
    code = module.run(args)
    assert isinstance(code, int)
    return code


def _point(
    args: argparse.Namespace, repository: Repository, home: SessionHome
) -> tuple[PointSummary, bool]:
    """The point to boot, and whether a session of it is to be begun."""
    from backpoint_fusefs.live.errors import NoSuchSession
    from backpoint_repo.errors import UsageError
    from backpoint_repo.point_selector import select_point

    points = repository.catalog.refresh()
    there = next((state for state in home.list() if state.name == args.session), None)
    if there is None or args.session is None:
        if args.point is None:
            if args.session is None:
                raise UsageError("which point? Give VM@POINT, or --session for one that is there")
            raise NoSuchSession(
                f"there is no session {args.session!r}: give VM@POINT for one to be begun"
            )
        return select_point(points, args.point), True
    record = there.record
    if record is None:
        raise UsageError(f"the session {args.session} cannot be used: {there.problem}")
    selected = select_point(points, args.point or f"{record.vm}@{record.point_id}")
    if selected.point_id.hex() not in (record.point_id, record.origin):
        raise UsageError(f"the session {args.session} is not one of {args.point}")
    return selected, False


def _booted(
    args: argparse.Namespace,
    repository: Repository,
    home: SessionHome,
    what: tuple[PointSummary, bool],
    terms: BootTerms,
    console: TerminalConsole | None,
) -> AbstractContextManager[BootedPoint]:
    from backpoint_fusefs.boot.booted_point import boot_point, boot_session
    from backpoint_fusefs.live.boot_trace.last_boot import put_last_boot_ahead

    point, begin = what
    listener = None if console is None else console.show
    if begin:
        keep = args.keep or args.session is not None
        return boot_point(
            repository,
            home,
            point,
            terms,
            session=args.session,
            keep=keep,
            prepare=lambda session: put_last_boot_ahead(repository, point.vm, session),
            on_console=listener,
        )
    return boot_session(repository, home, args.session, terms, listener)


def _console(args: argparse.Namespace) -> TerminalConsole | None:
    import sys

    from backpoint_fusefs.boot.terminal_console import TerminalConsole

    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    quiet = args.vnc or args.json or args.until is not None
    return TerminalConsole() if args.console or (on_terminal and not quiet) else None


def _tell_how(booted: BootedPoint, console: TerminalConsole | None) -> None:
    from backpoint_fusefs.boot.terminal_console import ESCAPE_NAME
    from backpoint_repo.terminal import say, warn

    machine, hardware = booted.machine, booted.hardware
    if machine.accelerator == "kvm":
        say("it runs by KVM")
    else:
        warn(f"it runs by QEMU's own translation, slowly: {machine.why_not_kvm}")
    for note in machine.notes:
        warn(note)
    say(
        f"session {booted.session}: {hardware.firmware.upper()}, cores: {hardware.cores}, "
        f"disks: {len(hardware.disks)}"
    )
    if machine.vnc is not None:
        say(f"its screen: VNC at 127.0.0.1:{machine.vnc.port}, password {machine.vnc.password}")
    say(f"{ESCAPE_NAME if console else 'Ctrl-C'} ends it")


def _attend(
    args: argparse.Namespace, booted: BootedPoint, console: TerminalConsole | None
) -> Attendance:
    from backpoint_fusefs.boot.attending import BY_USER, Attendance, attend
    from backpoint_repo.terminal import warn

    try:
        _tell_how(booted, console)
        return attend(booted.machine, args.until, args.timeout, console, warn)
    except KeyboardInterrupt:
        if args.until is not None:
            raise
        return Attendance(BY_USER)


def _report(
    args: argparse.Namespace,
    booted: BootedPoint,
    point: PointSummary,
    attendance: Attendance,
    seconds: float,
) -> None:
    from backpoint_repo.sizes import format_duration
    from backpoint_repo.terminal import print_record, say

    kept = bool(args.keep or args.session is not None)
    if args.json:
        print_record(_record(booted, point, attendance) | {"kept": kept, "duration_s": seconds})
        return
    if attendance.sign is not None:
        took = format_duration(attendance.sign.seconds)
        say(f"it said '{attendance.sign.detail}', {took} after its start")
    say(f"ended: {attendance.ended}")
    if kept:
        say(
            f"session {booted.session} is kept: `backpoint boot --session {booted.session}` goes "
            "on with it, `backpoint live commit` makes a point of it, `live discard` ends it"
        )


def _record(booted: BootedPoint, point: PointSummary, attendance: Attendance) -> dict[str, Any]:
    machine, sign = booted.machine, attendance.sign
    return {
        "type": "boot",
        "vm": point.vm,
        "point_id": point.point_id.hex(),
        "session": booted.session,
        "accelerator": machine.accelerator,
        "why_not_kvm": machine.why_not_kvm,
        "notes": list(machine.notes),
        "ended": attendance.ended,
        "sign": None
        if sign is None
        else {"kind": sign.kind, "detail": sign.detail, "seconds": round(sign.seconds, 3)},
        "error": None if attendance.failure is None else str(attendance.failure),
    }
