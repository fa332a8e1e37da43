"""A machine that QEMU has halted because a disk has no room for what it writes: told, and let go on
once there is.

Decides how often it is looked at. The guest notices nothing but the time; what must not be taken
for a sign of life, a screen that stands still, is for `sign_of_life.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from backpoint_fusefs.boot.machine import Machine

_EVERY_S: Final = 2.0


class RoomWatch:
    """tell: says a sentence to the user."""

    def __init__(self, machine: Machine, tell: Callable[[str], None]) -> None:
        self._machine = machine
        self._tell = tell
        self._next = 0.0
        self._halted = False

    def look(self) -> None:
        """As often as one likes."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY_S
        lacks = self._machine.lacks_room()
        if lacks and not self._halted:
            self._tell("the machine stands still: the sessions' folder is full; make room there")
        if self._halted and not lacks:
            self._tell("there is room again: the machine goes on")
        self._halted = lacks
        if lacks:
            self._machine.go_on()
