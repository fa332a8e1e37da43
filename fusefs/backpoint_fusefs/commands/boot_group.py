"""`backpoint boot --group`: several restore points as machines that reach each other."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backpoint_fusefs.boot.errors import MachineFailed
    from backpoint_fusefs.boot.group_file import Member
    from backpoint_fusefs.boot.group_run import Group, MemberEvent
    from backpoint_fusefs.boot.sign_of_life import SignOfLife
    from backpoint_fusefs.live.session_home import SessionHome
    from backpoint_repo.catalog import PointSummary
    from backpoint_repo.repository import Repository

_OF_ONE: Final = (
    "session",
    "cores",
    "memory",
    "disk_bus",
    "network",
    "forward",
    "console",
    "until",
    "vcenter",
    "point",
)
"""Options that say something of one machine."""


def add_group_options(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    group = parser.add_argument_group("several machines")
    chosen = group.add_mutually_exclusive_group()
    chosen.add_argument(
        "--group", metavar="FILE", type=Path, help="boot what this TOML file names, in its order"
    )
    chosen.add_argument(
        "--group-example",
        action="store_true",
        help="print such a file, in which every key is explained, and boot nothing",
    )
    group.add_argument(
        "--until-ready", action="store_true", help="end once all are ready, for drills"
    )
    group.add_argument(
        "--log-dir", metavar="DIR", type=Path, help="write each one's serial console to a file here"
    )


def refuse_group_options(args: argparse.Namespace) -> None:
    """For one machine they would mean nothing. Raises UsageError."""
    from backpoint_repo.errors import UsageError

    if args.until_ready or args.log_dir is not None:
        raise UsageError("--until-ready and --log-dir go with --group")


def run_group(args: argparse.Namespace) -> int:
    """Raises UsageError, KeyFault, MachineFailed, and what sessions and stores raise."""
    if args.group_example:
        print(_example(), end="")
        return 0
    import time

    from backpoint_fusefs.boot.booted_point import discard_left_behind
    from backpoint_fusefs.commands.live_commands.opening import open_home
    from backpoint_repo.point_selector import select_point
    from backpoint_repo.process_tuning import tune_for_chunks
    from backpoint_repo.terminal import print_record, say

    _refuse_what_is_for_one(args)
    began = time.monotonic()
    members = _read(args.group)
    repository, home = open_home(args, "booting points", cached=True)
    tune_for_chunks()  # not before: what scrypt took would be kept too
    stored = repository.catalog.refresh()
    points = {member.title: select_point(stored, member.point) for member in members}
    discard_left_behind(home, say)
    outcome = _booted(args, repository, home, members, points)
    seconds = round(time.monotonic() - began, 3)
    if args.json:
        print_record(_record(outcome, points) | {"kept": args.keep, "duration_s": seconds})
    elif args.keep:
        names = ", ".join(booted.session for booted in outcome.group.booted.values())
        say(f"kept: {names}; see `backpoint live list`")
    if outcome.failure is not None:
        raise outcome.failure
    say(f"ended: {outcome.ended}")
    return 0


def _read(path: Path) -> list[Member]:
    """A line for each mistake but the last, which is raised as UsageError."""
    from backpoint_fusefs.boot.group_file import read_group
    from backpoint_repo.errors import UsageError
    from backpoint_repo.terminal import say

    try:
        return read_group(path)
    except UsageError as error:
        *others, last = str(error).splitlines()
        for mistake in others:
            say(mistake)
        raise UsageError(last) from error


def _refuse_what_is_for_one(args: argparse.Namespace) -> None:
    from backpoint_fusefs.boot.command_options import refuse_vcenter_options
    from backpoint_repo.errors import UsageError

    for name in _OF_ONE:
        if getattr(args, name):
            word = "VM@POINT" if name == "point" else "--" + name.replace("_", "-")
            raise UsageError(f"{word} is for one machine: the group's file says what boots")
    refuse_vcenter_options(args)
    if args.timeout is not None and not args.timeout > 0:
        raise UsageError("--timeout is a number of seconds above 0")


@dataclass(frozen=True)
class _Outcome:
    """ended: by what, as a phrase."""

    group: Group
    ended: str = ""
    failure: MachineFailed | None = None


def _booted(
    args: argparse.Namespace,
    repository: Repository,
    home: SessionHome,
    members: Sequence[Member],
    points: Mapping[str, PointSummary],
) -> _Outcome:
    """An interrupt ends it as a user does once all are ready; before, it is raised."""
    from backpoint_fusefs.boot.booted_group import GroupTerms, boot_group
    from backpoint_fusefs.boot.errors import MachineFailed
    from backpoint_repo.terminal import say, warn

    terms = GroupTerms("vnc" if args.vnc else "none", args.log_dir, args.keep)
    teller = _Teller(points, as_json=args.json)
    with boot_group(repository, home, members, points, terms, teller.tell) as group:
        for note in group.notes:
            warn(note)
        try:
            group.await_ready(args.timeout)
        except MachineFailed as failure:
            return _Outcome(group, failure=failure)
        if args.until_ready:
            return _Outcome(group, "all are ready")
        say(f"all {len(members)} are ready; Ctrl-C ends them")
        try:
            return _Outcome(group, group.attend(args.timeout))
        except KeyboardInterrupt:
            return _Outcome(group, "by the user")


class _Teller:
    """Says what happens as it happens."""

    def __init__(self, points: Mapping[str, PointSummary], *, as_json: bool) -> None:
        self._points = points
        self._as_json = as_json
        self._told_how = False

    def tell(self, event: MemberEvent) -> None:
        """A line on stderr, or a record."""
        from backpoint_repo.terminal import print_record, say

        if self._as_json:
            print_record(self._record(event))
            return
        name = event.name
        if event.what == "started":
            self._say_how(event)
            say(f"{name}: started, session {event.booted.session}")
        elif event.what == "ready" and event.sign is not None:
            say(f"{name}: ready {event.sign.seconds:.1f} s after its start: {event.sign.detail}")
        elif event.what == "room":
            say(f"{name}: {event.reason}")
        elif event.what == "ended":
            say(f"{name}: ended by itself")

    def _say_how(self, event: MemberEvent) -> None:
        from backpoint_repo.terminal import say, warn

        machine = event.booted.machine
        if machine.accelerator != "kvm" and not self._told_how:
            warn(f"they run by QEMU's own translation, slowly: {machine.why_not_kvm}")
        self._told_how = True
        for note in machine.notes:
            warn(f"{event.name}: {note}")
        if machine.vnc is not None:
            where = f"127.0.0.1:{machine.vnc.port}, password {machine.vnc.password}"
            say(f"{event.name}: its screen: VNC at {where}")

    def _record(self, event: MemberEvent) -> dict[str, Any]:
        machine, vnc = event.booted.machine, event.booted.machine.vnc
        return {
            "type": "boot-member",
            "event": event.what,
            "member": event.name,
            "seconds": round(event.seconds, 3),
            "vm": self._points[event.name].vm,
            "point_id": self._points[event.name].point_id.hex(),
            "session": event.booted.session,
            "accelerator": machine.accelerator,
            "notes": list(machine.notes),
            "vnc": None if vnc is None else {"port": vnc.port, "password": vnc.password},
            "sign": _sign_record(event.sign),
            "error": event.reason or None,
        }


def _record(outcome: _Outcome, points: Mapping[str, PointSummary]) -> dict[str, Any]:
    return {
        "type": "boot-group",
        "ok": outcome.failure is None,
        "ended": outcome.ended or None,
        "error": None if outcome.failure is None else str(outcome.failure),
        "notes": list(outcome.group.notes),
        "members": [_member_record(outcome.group, name, point) for name, point in points.items()],
    }


def _member_record(group: Group, name: str, point: PointSummary) -> dict[str, Any]:
    """ready_s: from its own start."""
    booted, ready = group.booted.get(name), group.ready.get(name)
    took = None if booted is None or ready is None else ready.at - booted.machine.started
    return {
        "member": name,
        "vm": point.vm,
        "point_id": point.point_id.hex(),
        "session": None if booted is None else booted.session,
        "ready": ready is not None,
        "ready_s": None if took is None else round(took, 3),
        "sign": None if ready is None else _sign_record(ready.sign),
    }


def _sign_record(sign: SignOfLife | None) -> dict[str, Any] | None:
    if sign is None:
        return None
    return {"kind": sign.kind, "detail": sign.detail, "seconds": round(sign.seconds, 3)}


def _example() -> str:
    from importlib.resources import files

    return files("backpoint_fusefs.boot").joinpath("group.example.toml").read_text(encoding="utf-8")
