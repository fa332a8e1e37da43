"""Asking the process that has a session: one request over the socket in its folder, one answer.

Decides how long is waited. What the session is then asked for is for `holder.py`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.control.control_protocol import (
    LINE_MAX,
    SOCKET,
    Answer,
    Request,
    Verb,
    decode_answer,
    encode_request,
)
from backpoint_fusefs.live.control.control_socket import CREDENTIALS_SIZE, connect_to, may_speak
from backpoint_fusefs.live.errors import SessionInUse

_CONNECT_S: Final = 5.0
_WITHIN_S: Final[Mapping[Verb, float]] = {
    Verb.STATUS: 20.0,
    # All that guests wrote and nobody synced goes to the disk first.
    Verb.CUT: 600.0,
    Verb.FREEZE: 600.0,
    Verb.REBASE: 600.0,
    Verb.RELEASE: 120.0,
}


class NobodyListens(Exception):
    """There is no process at the other end of the socket, or no socket."""


class HungUp(SessionInUse):
    """It took the request and gave no whole answer: it is dying, or does not hear this user."""


def ask(folder: Path, request: Request) -> Answer:
    """Raises NobodyListens; HungUp; SessionInUse where no answer came in time; and what the other
    process refused with."""
    try:
        line = _converse(folder, request)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NobodyListens from None
    except TimeoutError:
        raise SessionInUse(
            f"the process that has the session {folder.name} did not answer `{request.verb.value}` "
            "in time; try again, or end that process"
        ) from None
    except OSError as error:
        raise SessionInUse(
            f"the process that has the session {folder.name} cannot be asked: {error.strerror}"
        ) from error
    if not line.endswith(b"\n"):
        raise HungUp(
            f"the process that has the session {folder.name} ended while it was asked, or does not "
            "hear this user; try again"
        )
    return decode_answer(line)


def _converse(folder: Path, request: Request) -> bytes:
    deadline = time.monotonic() + _WITHIN_S[request.verb]
    with connect_to(folder / SOCKET, _CONNECT_S) as peer:
        # Whoever may write to the folder could have put a socket there.
        if not may_speak(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS_SIZE)):
            raise PermissionError(0, "it belongs to another user")
        try:
            peer.sendall(encode_request(request))
            return _line_of(peer, deadline)
        except (ConnectionResetError, BrokenPipeError):
            return b""


def _line_of(peer: socket.socket, deadline: float) -> bytes:
    line = b""
    while len(line) <= LINE_MAX and not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        peer.settimeout(left)
        piece = peer.recv(LINE_MAX)
        if not piece:
            break
        line += piece
    return line
