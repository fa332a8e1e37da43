"""Which signs of life a proof waits for: what its user names, else what most guests show.

Decides the default, a login prompt or a screen at rest: weak signs, which the proof names as such.
"""

from __future__ import annotations

import re
import socket
from typing import Final

from backpoint_fusefs.boot.machine_plan import Forward
from backpoint_fusefs.boot.sign_of_life import Signs, check_signs
from backpoint_repo.errors import UsageError

_PROMPT: Final = r"[Ll]ogin: ?"
_SETTLED_S: Final = 15.0
"""Boot screens pause: a spinner that stands still for less is common."""


def signs_wanted(text: str | None, port: int | None, address: str | None) -> Signs:
    """Raises UsageError for what is no regular expression, or an address without a port."""
    if address is not None and port is None:
        raise UsageError("--sign-address says where --sign-port is: give both")
    if port is not None and not port < 1 << 16:
        raise UsageError(f"--sign-port {port} is no port")
    ports = () if port is None else (Forward(_free_port(), port, address or ""),)
    if text is None and not ports:
        return Signs(_PROMPT, is_pattern=True, settled_s=_SETTLED_S)
    signs = Signs(text or "", is_pattern=True, ports=ports)
    try:
        check_signs(signs)
    except re.error as error:
        raise UsageError(f"--sign-text is no regular expression: {error}") from error
    return signs


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
