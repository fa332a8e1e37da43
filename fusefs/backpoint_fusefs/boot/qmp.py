"""QEMU's control protocol, QMP: one JSON object a line over a connected socket.

Decides limits of time and size; the guest's QEMU may be taken over and answer anything. Which
commands there are is not known here.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any, Final

from backpoint_fusefs.boot.errors import MachineFailed

_ANSWER_MAX: Final = 4 << 20
_PIECE: Final = 64 << 10
_ANSWER_S: Final = 30.0


class QmpFailed(MachineFailed):
    """QEMU refused a command, or does not answer."""


class QmpClient:
    """For one thread."""

    def __init__(self, wire: socket.socket) -> None:
        """Wait for the greeting. Raises QmpFailed."""
        self._wire = wire
        self._read = b""
        deadline = time.monotonic() + _ANSWER_S
        if "QMP" not in self._next(deadline):
            raise QmpFailed("QEMU's control socket does not greet")
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """What it returns; events are passed over. Raises QmpFailed."""
        deadline = time.monotonic() + _ANSWER_S
        request = json.dumps({"execute": command, "arguments": arguments}).encode()
        try:
            self._wire.settimeout(_ANSWER_S)
            self._wire.sendall(request + b"\n")
        except OSError as error:
            raise QmpFailed(f"QEMU does not take {command}: it has ended") from error
        while True:
            answer = self._next(deadline)
            if "return" in answer:
                return answer["return"]
            if isinstance(answer.get("error"), dict):
                raise QmpFailed(f"QEMU refuses {command}: {_shown(answer['error'].get('desc'))}")

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._read:
            left = deadline - time.monotonic()
            if left <= 0 or len(self._read) > _ANSWER_MAX:
                raise QmpFailed("QEMU does not answer")
            self._wire.settimeout(left)
            try:
                piece = self._wire.recv(_PIECE)
            except TimeoutError as error:
                raise QmpFailed("QEMU does not answer") from error
            except OSError as error:
                raise QmpFailed("QEMU has ended") from error
            if not piece:
                raise QmpFailed("QEMU has ended")
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise QmpFailed("QEMU answers nonsense")
        return answer


def _shown(text: object) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(text)[:500])
