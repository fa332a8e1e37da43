"""A guest that runs in QEMU, from its start to its end, with its console and its screen.

Decides how QEMU is started, watched and ended (QMP on a private socket), and the accelerator: KVM
where it truly boots, else TCG. The disks are files that somebody else keeps.

Beyond the first contract: the plan is in `machine_plan.py`; a listener gets the console's output,
in place of a switch in the plan; `notes`, `vnc`, `firmware_log`, `pixels`,
`screen_text` and `connections`.
"""

from __future__ import annotations

import secrets
import select
import string
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_fusefs.boot.accelerator import find_accelerator
from backpoint_fusefs.boot.errors import MachineFailed
from backpoint_fusefs.boot.firmware import prepare_firmware
from backpoint_fusefs.boot.machine_plan import Display, Forward, MachinePlan, Network
from backpoint_fusefs.boot.qemu_command import plan_command
from backpoint_fusefs.boot.qemu_process import QemuProcess, qemu_program
from backpoint_fusefs.boot.qmp import QmpClient, QmpFailed

__all__ = ["Display", "Forward", "Machine", "MachinePlan", "Network", "VncAccess"]

_PICTURE_MAX: Final = 256 << 20
"""A screen of 8192 times 8192 points."""
_TEXT_MEMORY: Final = 0xB8000
_TEXT_COLUMNS: Final = 80
_TEXT_ROWS: Final = 25
_TYPING_S: Final = 10.0
_PASSWORD_SIZE: Final = 8
"""All that VNC looks at."""


@dataclass(frozen=True)
class VncAccess:
    """On 127.0.0.1. password: good for this machine's run."""

    port: int
    password: str


class Machine:
    """A context manager: QEMU has ended when it is left. Sync; for one thread.

    accelerator: "kvm" or "tcg". notes: what is not as the VM had it, for the user. vnc: None
    without a display.
    """

    accelerator: str
    why_not_kvm: str
    notes: tuple[str, ...]
    vnc: VncAccess | None

    def __init__(
        self, plan: MachinePlan, on_console: Callable[[bytes], None] | None = None
    ) -> None:
        """Start QEMU. on_console: called on another thread with what the guest's console says.

        Raises MachineFailed with QEMU's own last words.
        """
        chosen = plan.accelerator or find_accelerator(qemu_program())
        self.accelerator, self.why_not_kvm = chosen.kind, chosen.why_not_kvm
        self._scratch = plan.scratch
        firmware = prepare_firmware(plan.hardware, plan.scratch)
        self.started = time.monotonic()
        self._qemu = QemuProcess(
            lambda wires: plan_command(plan, chosen, firmware, wires), on_console
        )
        self.notes = self._qemu.command.notes
        try:
            self._qmp = QmpClient(self._qemu.qmp)
            self.vnc = self._open_vnc() if plan.display == "vnc" else None
            self._qmp.execute("cont")
        except MachineFailed as error:
            self._qemu.wait(1.0)
            self._qemu.end()
            raise MachineFailed(
                f"the machine does not start: {error}; QEMU: {self._qemu.last_words()}"
            ) from error
        except BaseException:
            self._qemu.end()
            raise

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._qemu.pid

    @property
    def running(self) -> bool:
        return self._qemu.code is None

    def console(self) -> bytes:
        """What the guest has written on its serial console so far; the last 256 KiB."""
        return self._qemu.console.tail

    @property
    def console_total(self) -> int:
        """Bytes that it has written."""
        return self._qemu.console.total

    def firmware_log(self) -> bytes:
        """What SeaBIOS says of its search for something to boot; the last 256 KiB."""
        return self._qemu.firmware.tail

    def last_words(self) -> str:
        """QEMU's own, in one line."""
        return self._qemu.last_words()

    def type(self, text: bytes) -> None:
        """On the serial console. Raises MachineFailed where the guest takes no more of it."""
        wire = self._qemu.console_wire
        deadline = time.monotonic() + _TYPING_S
        while text:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([], [wire], [], left)[1]:
                raise MachineFailed("the guest does not read its console")
            try:
                text = text[wire.send(text[:4096]) :]
            except OSError as error:
                raise MachineFailed(f"the machine has ended: {self.last_words()}") from error

    def screenshot(self) -> bytes:
        """A PNG of what is on the screen now. Raises MachineFailed."""
        return self._picture("png")

    def pixels(self) -> bytes:
        """The same as a PPM, to be compared. Raises MachineFailed."""
        return self._picture("ppm")

    def screen_text(self) -> list[str]:
        """Lines that are on a screen in VGA's text mode, without empty ones; what is in its memory
        in other modes. Raises MachineFailed."""
        where = {"val": _TEXT_MEMORY, "size": 2 * _TEXT_COLUMNS * _TEXT_ROWS}
        data = self._saved("screen.text", "pmemsave", **where)
        text = data[::2].decode("cp437")
        rows = (text[at : at + _TEXT_COLUMNS] for at in range(0, len(text), _TEXT_COLUMNS))
        return [row for line in rows if (row := line.replace("\0", " ").strip())]

    def connections(self) -> str:
        """The user network's table of connections, as QEMU shows it. Raises MachineFailed."""
        shown = self._qmp.execute("human-monitor-command", **{"command-line": "info usernet"})
        return str(shown)

    def lacks_room(self) -> bool:
        """Whether QEMU has halted it because a disk had no room for what it wrote."""
        with suppress(MachineFailed):
            answer = self._qmp.execute("query-status")
            return isinstance(answer, dict) and answer.get("status") == "io-error"
        return False

    def go_on(self) -> None:
        """After `lacks_room`: the write is tried again."""
        with suppress(MachineFailed):
            self._qmp.execute("cont")

    def wait(self, timeout_s: float | None) -> bool:
        """Whether it ended by itself in time."""
        return self._qemu.wait(timeout_s)

    def end(self) -> None:
        """At once; harmless when repeated."""
        self._qemu.end()

    def _picture(self, kind: str) -> bytes:
        return self._saved(f"screen.{kind}", "screendump", format=kind)

    def _saved(self, name: str, command: str, **arguments: object) -> bytes:
        """What QEMU writes to a file."""
        path = Path(self._scratch) / name
        self._qmp.execute(command, filename=str(path), **arguments)
        try:
            with path.open("rb") as file:
                data = file.read(_PICTURE_MAX + 1)
            path.unlink()
        except OSError as error:
            raise MachineFailed(f"there is no picture of the screen: {error.strerror}") from error
        if len(data) > _PICTURE_MAX:
            raise MachineFailed("the picture of the screen is too large")
        return data

    def _open_vnc(self) -> VncAccess:
        letters = string.ascii_letters + string.digits
        password = "".join(secrets.choice(letters) for _ in range(_PASSWORD_SIZE))
        self._qmp.execute("set_password", protocol="vnc", password=password)
        answer = self._qmp.execute("query-vnc")
        with suppress(KeyError, TypeError, ValueError):
            return VncAccess(int(answer["service"]), password)
        raise QmpFailed("QEMU does not say where its VNC is")
