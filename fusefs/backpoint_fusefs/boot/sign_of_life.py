"""Waiting until a booted guest shows that it lives: a text, an open port, a screen that settles.

Decides what counts as a sign and claims no more than was seen. A firmware that found nothing to
boot is recognised and ends the wait, because its screen stands still too.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from backpoint_fusefs.boot.errors import MachineFailed, NoSignOfLife
from backpoint_fusefs.boot.guest_port import try_port
from backpoint_fusefs.boot.machine import Forward, Machine
from backpoint_fusefs.boot.screen import Picture, parse_picture
from backpoint_repo.terminal import printable

_LOOK_S: Final = 0.05
_PORT_EVERY_S: Final = 1.0
_PORT_PATIENCE_S: Final = 2.0
_SCREEN_EVERY_S: Final = 0.5
_STANDSTILL_EVERY_S: Final = 1.0
_WORDS: Final = 2000
_LINE_MAX: Final = 400
_PIECE: Final = 2048
_GAVE_UP: Final = (
    (b"No bootable device.", "the firmware found nothing to boot from"),
    (b"BdsDxe: No bootable option or device was found", "the firmware found nothing to boot from"),
    (b"UEFI Interactive Shell", "the firmware found nothing to boot from and is in its own shell"),
)
_CONTROL: Final = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[@-Z\\^_])")
_TEXT_MODE: Final = (720, 400)
# Where firmware, boot loaders and kernels stand still because they cannot go on.
_STUCK: Final = re.compile(
    r"^Booting from |not a bootable disk|press any key|operating system not found"
    r"|missing operating system|(BOOTMGR|NTLDR) is missing|grub rescue>|^(GRUB|LI?)$"
    r"|kernel panic|\(initramfs\)|^boot failed|dracut:/|disk error|press ctrl.alt.del",
    re.IGNORECASE,
)

SignKind = Literal["console", "port", "screen"]


@dataclass(frozen=True)
class Signs:
    """What is waited for; the first that is seen counts. text: in a line of the serial console;
    with `is_pattern` a regular expression. ports: each a forward of the machine's plan. settled_s:
    the screen has changed, is not blank, and then stands still so long."""

    text: str = ""
    is_pattern: bool = False
    ports: Sequence[Forward] = ()
    settled_s: float | None = None


@dataclass(frozen=True)
class SignOfLife:
    """detail: what was seen, for the user. seconds: from the machine's start."""

    kind: SignKind
    detail: str
    seconds: float


def check_signs(signs: Signs) -> re.Pattern[bytes] | None:
    """The pattern looked for on the console. Raises re.error."""
    if not signs.text:
        return None
    text = signs.text if signs.is_pattern else re.escape(signs.text)
    return re.compile(os.fsencode(text))


def await_sign(machine: Machine, signs: Signs, timeout_s: float) -> SignOfLife:
    """timeout_s: from now. Raises NoSignOfLife with the console's last words and the screen."""
    watch = LifeWatch(machine, signs, timeout_s)
    while (sign := watch.look()) is None:
        machine.wait(_LOOK_S)
    return sign


class LifeWatch:
    """For who has more to do than to wait for one machine."""

    def __init__(self, machine: Machine, signs: Signs, timeout_s: float) -> None:
        """timeout_s: from now."""
        self._machine = machine
        self._signs = signs
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._pattern = check_signs(signs)
        self._next_port = self._next_screen = self._next_standstill = 0.0
        self._seen = 0
        self._screen = _ScreenWatch(signs.settled_s)

    def look(self) -> SignOfLife | None:
        """What there is now. Raises NoSignOfLife once there will be none, or it is too late."""
        running = self._machine.running
        self._refuse_standstill()
        if (sign := self._sign_now()) is not None:
            return sign
        if not running:
            words = self._machine.last_words()
            raise _failure(self._machine, f"the machine ended by itself; QEMU: {words}")
        if why := _firmware_gave_up(self._machine):
            raise _failure(self._machine, why)
        if time.monotonic() >= self._deadline:
            late = f"no sign of life within {self._timeout_s:g} s{self._state}"
            raise _failure(self._machine, late)
        return None

    def _refuse_standstill(self) -> None:
        """A screen that stands still with its machine says nothing, of its point least of all."""
        now = time.monotonic()
        if now >= self._next_standstill:
            self._next_standstill = now + _STANDSTILL_EVERY_S
            if self._machine.lacks_room():
                raise MachineFailed(
                    "the machine stands still, because the sessions' folder is full: make room "
                    "there, or name another with --live"
                )

    def _sign_now(self) -> SignOfLife | None:
        now = time.monotonic()
        with suppress(MachineFailed):  # it has just ended, which is told by whoever asked
            if found := self._console():
                return self._sign("console", found)
            if self._signs.ports and now >= self._next_port:
                self._next_port = now + _PORT_EVERY_S
                for forward in self._signs.ports:
                    if answer := try_port(self._machine, forward, _PORT_PATIENCE_S):
                        return self._sign("port", f"port {forward.guest_port}: {answer}")
            if self._signs.settled_s is not None and now >= self._next_screen:
                self._next_screen = now + _SCREEN_EVERY_S
                if self._screen.settled(self._machine, now):
                    what = f"the screen stands still for {self._signs.settled_s:g} s"
                    return self._sign("screen", what + self._screen.where)
        return None

    @property
    def _state(self) -> str:
        """How far it came, for the failure's message."""
        return "" if self._signs.settled_s is None else f"; {self._screen.state}"

    def _console(self) -> str:
        if self._pattern is None or self._machine.console_total == self._seen:
            return ""
        self._seen = self._machine.console_total
        for piece in _pieces(self._machine.console()):
            if found := self._pattern.search(piece):
                shown = piece[max(0, found.end() - _LINE_MAX // 2) :].decode(errors="replace")
                return printable(_drawn(shown)[:_LINE_MAX]) or "the text"
        return ""

    def _sign(self, kind: SignKind, detail: str) -> SignOfLife:
        return SignOfLife(kind, detail, time.monotonic() - self._machine.started)


class _ScreenWatch:
    def __init__(self, settled_s: float | None) -> None:
        self._settled_s = settled_s or 0.0
        self._last: Picture | None = None
        self._still_since = 0.0
        self._changed = False
        self._line = ""

    def settled(self, machine: Machine, now: float) -> bool:
        picture = parse_picture(machine.pixels())
        if picture is None or self._last is None or not picture.same_as(self._last):
            self._changed = self._changed or self._last is not None
            self._last, self._still_since, self._line = picture, now, ""
            return False
        if now - self._still_since < self._settled_s or not self._changed or picture.is_blank:
            return False
        self._line = _last_line(machine, picture)
        return not _STUCK.search(self._line)

    @property
    def where(self) -> str:
        """The last line of a screen of text."""
        return f" at {self._line!r}" if self._line else ""

    @property
    def state(self) -> str:
        if not self._changed:
            return "the screen never changed"
        if self._line:
            return f"the screen stands{self.where}"
        blank = self._last is not None and self._last.is_blank
        return "the screen is blank" if blank else "the screen does not stand still"


def _pieces(said: bytes) -> Iterator[bytes]:
    """Lines; of long ones parts that overlap, since a pattern may take the square of what it is
    given, and a hostile guest never ends its line."""
    for line in re.split(rb"[\r\n]+", said):
        for at in range(0, len(line), _PIECE // 2):
            yield line[at : at + _PIECE]


def _drawn(text: str) -> str:
    """Without what moves a cursor and changes colours: firmware of today does little else."""
    return _CONTROL.sub("", text).strip()


def _last_line(machine: Machine, picture: Picture) -> str:
    lines = machine.screen_text() if (picture.width, picture.height) == _TEXT_MODE else []
    return printable(lines[-1])[:_LINE_MAX] if lines else ""


def _firmware_gave_up(machine: Machine) -> str:
    said = machine.firmware_log()[-_WORDS:] + machine.console()
    return next((why for words, why in _GAVE_UP if words in said), "")


def _failure(machine: Machine, why: str) -> NoSignOfLife:
    said = machine.console()[-_WORDS:].decode(errors="replace")
    lines = [printable(line) for row in said.splitlines() if (line := _drawn(row))]
    screenshot = None
    with suppress(MachineFailed):
        screenshot = machine.screenshot()
    last = f"; the console's last words: {lines[-1]}" if lines else "; nothing is on the console"
    return NoSignOfLife(why + last, "\n".join(lines), screenshot)
