"""A machine's serial console on the terminal: what it says comes out, what is typed goes in.

Decides the key that ends it, because in raw mode Ctrl-C is the guest's. What the guest says is
passed on as it is: a console is for programs that draw on it.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from backpoint_fusefs.boot.machine import Machine

ESCAPE: Final = b"\x1d"
ESCAPE_NAME: Final = "Ctrl-]"
_LOOK_S: Final = 0.1
_PIECE: Final = 4096


class TerminalConsole:
    """A context manager: the terminal is as before when it is left."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._output = sys.stdout.fileno()
        self._before: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> TerminalConsole:
        if os.isatty(self._input):
            self._before = termios.tcgetattr(self._input)
            tty.setraw(self._input)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)
            os.write(self._output, b"\r\n")

    def show(self, data: bytes) -> None:
        """On the thread that reads the machine's wires."""
        with suppress(OSError):  # nobody reads it any more: the machine goes on
            while data:
                data = data[os.write(self._output, data) :]

    def type_into(
        self, machine: Machine, timeout_s: float | None, meanwhile: Callable[[], None]
    ) -> bool:
        """Until the machine has ended, in time, or somebody ends it. Whether it was somebody.

        Raises MachineFailed where the guest does not read what is typed.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        typing = [self._input]
        while machine.running and (deadline is None or time.monotonic() < deadline):
            meanwhile()
            if not select.select(typing, [], [], _LOOK_S)[0]:
                continue
            data = os.read(self._input, _PIECE)
            before, escape, _ = data.partition(ESCAPE)
            if before:
                machine.type(before)
            if escape:
                return True
            if not data:
                typing = []  # its end: the machine goes on without it
        return False
