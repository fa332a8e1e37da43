"""Whether a guest's port is open, told apart from QEMU's forward, which always accepts.

QEMU takes a connection before it asks the guest. So what counts is the guest's own answer: data,
or the handshake as QEMU's table of connections shows it.
"""

from __future__ import annotations

import re
import select
import socket
import time
from typing import Final

from backpoint_fusefs.boot.machine import Forward, Machine

_BANNER_S: Final = 0.5
_BANNER_MAX: Final = 200
_LOOK_S: Final = 0.05
# TCP[ESTABLISHED]  12  127.0.0.1 18080  10.0.2.15  80  0  0
_ROW: Final = re.compile(r"TCP\[(\w+)\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)\s")


def try_port(machine: Machine, forward: Forward, patience_s: float) -> str | None:
    """What a client finds, as a phrase; None where nobody has answered within `patience_s`.

    Raises MachineFailed where the machine has ended.
    """
    try:
        client = socket.create_connection(("127.0.0.1", forward.host_port), patience_s)
    except OSError:
        return None
    with client:
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if select.select([client], [], [], _LOOK_S)[0]:
                return _what_it_says(client)
            if _is_established(machine, forward):
                heard = select.select([client], [], [], _BANNER_S)[0]
                said = _what_it_says(client) if heard else None
                return said or "it accepts connections"
    return None


def _what_it_says(client: socket.socket) -> str | None:
    """None where it hangs up: then nobody was there."""
    try:
        data = client.recv(_BANNER_MAX)
    except OSError:
        return None
    first = data.decode(errors="replace").splitlines()[0] if data.strip() else ""
    shown = "".join(char if char.isprintable() else "?" for char in first)
    return f"it says {shown!r}" if data else None


def _is_established(machine: Machine, forward: Forward) -> bool:
    """SYN_SENT until the guest answers; what was hung up on is in another state."""
    rows = _ROW.findall(machine.connections())
    return ("ESTABLISHED", str(forward.host_port), str(forward.guest_port)) in rows
