"""The QEMU of one machine as a process: started with nothing of ours but its wires, gone with us.

Decides what it inherits and how it ends. What it is told to be is for `qemu_command.py`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from backpoint_fusefs.boot.errors import MachineFailed
from backpoint_fusefs.boot.machine_wires import KeptOutput, WireReader
from backpoint_fusefs.boot.qemu_command import QemuCommand, Wires

_PROGRAM: Final = "qemu-system-x86_64"
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR", "HOME")
"""A passphrase may be among the others."""
_END_S: Final = 5.0
_WORDS_MAX: Final = 600


def qemu_program() -> str:
    """Its path. Raises MachineFailed where it is not installed."""
    path = shutil.which(_PROGRAM)
    if path is None or shutil.which("setpriv") is None:
        raise MachineFailed(
            f"{_PROGRAM} is not installed: install the Debian package qemu-system-x86"
        )
    return path


class QemuProcess:
    """Running once it is made."""

    def __init__(
        self, make_command: Callable[[Wires], QemuCommand], listener: Callable[[bytes], None] | None
    ) -> None:
        """listener: gets what the console says, on another thread. Raises MachineFailed."""
        self.console = KeptOutput(listener)
        self.firmware = KeptOutput()
        self._said = KeptOutput()
        with ExitStack() as opened:
            self.qmp, theirs = _pair(opened)
            self.console_wire, console = _pair(opened)
            firmware_wire, firmware = _pair(opened)
            wires = Wires(theirs.fileno(), console.fileno(), firmware.fileno())
            self.command = make_command(wires)
            # setpriv: the kernel kills it when we die, and no Python runs in a forked process of a
            # program that may have threads.
            words = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--", qemu_program()]
            try:
                self._child = subprocess.Popen(
                    [*words, *self.command.words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=(wires.qmp, wires.console, wires.firmware),
                    env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                    start_new_session=True,
                )
            except OSError as error:
                raise MachineFailed(f"cannot start QEMU: {error.strerror}") from error
            assert self._child.stdout is not None
            opened.callback(self._child.stdout.close)
            for wire in (theirs, console, firmware):
                wire.close()
            kept = {
                self.console_wire.fileno(): self.console,
                firmware_wire.fileno(): self.firmware,
                self._child.stdout.fileno(): self._said,
            }
            opened.callback(WireReader(kept).close)
            opened.callback(self._end_child)
            self._opened = opened.pop_all()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def code(self) -> int | None:
        """None while it runs."""
        return self._child.poll()

    def wait(self, timeout_s: float | None) -> bool:
        """Whether it ended in time."""
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """Politely first, since it writes out what it holds then. Harmless when repeated."""
        self._opened.close()

    def last_words(self) -> str:
        """Of QEMU itself, in one line that is safe for a terminal."""
        said = self._said.tail[-_WORDS_MAX:].decode(errors="replace")
        line = "; ".join(line.strip() for line in said.splitlines() if line.strip())
        return "".join(char if char.isprintable() else "?" for char in line) or "it said nothing"

    def _end_child(self) -> None:
        self._child.terminate()
        if not self.wait(_END_S):
            self._child.kill()
            self._child.wait()


def _pair(opened: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    opened.callback(ours.close)
    opened.callback(theirs.close)
    return ours, theirs
