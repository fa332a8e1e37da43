"""Staying with a machine that a person or a script has started, until there is a reason to end it.

Decides what ends it: the guest itself, what was waited for, a limit of time, the user. Its console
and its screen are shown by others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.boot.errors import NoSignOfLife
from backpoint_fusefs.boot.machine import Machine
from backpoint_fusefs.boot.room_watch import RoomWatch
from backpoint_fusefs.boot.sign_of_life import SignOfLife, Signs, await_sign
from backpoint_fusefs.boot.terminal_console import TerminalConsole

UNTIL_S: Final = 600.0
"""A guest by translation, on a slow store, with a filesystem to check."""
_LOOK_S: Final = 0.2
BY_USER: Final = "by the user"


@dataclass(frozen=True)
class Attendance:
    """ended: by what, as a phrase. failure: where what was waited for did not come."""

    ended: str
    sign: SignOfLife | None = None
    failure: NoSignOfLife | None = None


def attend(
    machine: Machine,
    until: str | None,
    timeout_s: float | None,
    console: TerminalConsole | None,
    tell: Callable[[str], None],
) -> Attendance:
    """tell: says a sentence to the user. Raises MachineFailed where the guest does not read what is
    typed, or nothing can come of it any more."""
    if until is not None:
        return _await(machine, until, timeout_s or UNTIL_S)
    room = RoomWatch(machine, tell)
    if console is None:
        _wait(machine, timeout_s, room)
    elif console.type_into(machine, timeout_s, room.look):
        return Attendance(BY_USER)
    return Attendance("the time is over" if machine.running else "by the guest")


def _await(machine: Machine, text: str, timeout_s: float) -> Attendance:
    try:
        return Attendance(
            "it said what was waited for", await_sign(machine, Signs(text), timeout_s)
        )
    except NoSignOfLife as failure:
        return Attendance("it did not say what was waited for", failure=failure)


def _wait(machine: Machine, timeout_s: float | None, room: RoomWatch) -> None:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while not machine.wait(_LOOK_S):
        room.look()
        if deadline is not None and time.monotonic() >= deadline:
            return
