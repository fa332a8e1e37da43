"""`backpoint live list`: which sessions there are."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from backpoint_fusefs.commands.live_commands.opening import (
    LIVE_ENVIRONMENT,
    add_live_option,
    open_home,
)
from backpoint_repo.command_parser import OPENS_REPOSITORY, describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backpoint_fusefs.live.session_home import SessionState
    from backpoint_fusefs.live.session_record import SessionRecord

HELP: Final = "list sessions"

_DESCRIPTION: Final = """
List the sessions in a folder of sessions: of which VM and point they are (after a commit: of the
committed one), since when, how many bytes they take, and their state: writable, frozen, in use by a
mount or a machine, or damaged and why.
"""
_EXAMPLES: Final = """
backpoint live list
backpoint live list --live /fast/sessions --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=OPENS_REPOSITORY + LIVE_ENVIRONMENT
    )
    add_live_option(parser)


def run(args: argparse.Namespace) -> int:
    """Raises UsageError, KeyFault, and what a store raises."""
    from backpoint_repo.terminal import print_record, say

    repository, home = open_home(args, "listing sessions")
    states = home.list()
    times = {point.point_id.hex(): point.time for point in repository.catalog.refresh()}
    if args.json:
        for state in states:
            print_record(_record(state, times))
    elif states:
        _print_table(states, times)
    else:
        say(f"no sessions in {home.folder}")
    return 0


def _record(state: SessionState, times: Mapping[str, float]) -> dict[str, Any]:
    """Times: seconds since 1970 by point id in hex."""
    from backpoint_repo.point_selector import format_time

    record: dict[str, Any] = {
        "type": "session",
        "name": state.name,
        "folder": str(state.folder),
        "size": state.size,
        "in_use": state.in_use,
        "problem": state.problem,
    }
    if state.record is not None:
        time = times.get(state.record.point_id)
        record |= {
            "session_id": state.record.session_id,
            "vm": state.record.vm,
            "point": None if time is None else format_time(time),
            "point_id": state.record.point_id,
            "origin": state.record.origin,
            "created": state.record.created,
            "frozen": state.record.frozen,
            "owner": state.record.owner,
        }
    return record


def _print_table(states: list[SessionState], times: Mapping[str, float]) -> None:
    from backpoint_repo.sizes import format_size
    from backpoint_repo.terminal import Column, print_table

    columns = [Column(word) for word in ("session", "vm", "point", "since")]
    columns += [Column("on disk", right=True), Column("for"), Column("state")]
    rows = []
    for state in states:
        record = state.record
        about = ("?", "?", "?") if record is None else _about(record, times)
        owner = "" if record is None else record.owner
        rows.append((state.name, *about, format_size(state.size), owner, _state(state)))
    print_table(columns, rows)


def _about(record: SessionRecord, times: Mapping[str, float]) -> tuple[str, str, str]:
    from backpoint_repo.point_selector import format_time

    time = times.get(record.point_id)
    point = f"{record.point_id[:8]} (gone)" if time is None else format_time(time)
    return record.vm, point, format_time(record.created)


def _state(state: SessionState) -> str:
    if state.problem:
        return f"damaged: {state.problem}"
    frozen = state.record is not None and state.record.frozen
    return ("frozen" if frozen else "writable") + (", in use" if state.in_use else "")
