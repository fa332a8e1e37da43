"""Asking this machine's rpcbind what is registered: one call of ONC RPC (RFC 5531, 1833).

Whoever answers is not trusted: answers are bounded and waited for at most a few seconds. Starts
nothing.
"""

from __future__ import annotations

import secrets
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOCKET: Final = Path("/run/rpcbind.sock")
NFS_PROGRAM: Final = 100003
_RPCBIND: Final = 100000
_RPCBIND_VERSION: Final = 3
_DUMP: Final = 4
"""Not GETADDR: over this socket rpcbind does not know which address the caller would like."""
_ANSWER_S: Final = 5.0
_ANSWER_MAX: Final = 256 << 10
_LAST_FRAGMENT: Final = 1 << 31
_CALL: Final = struct.Struct(">10I")
_REPLY: Final = struct.Struct(">6I")
_MORE: Final = struct.Struct(">3I")


class NoPortmapper(Exception):
    """Nobody answers there; no user sees it."""


@dataclass(frozen=True)
class Registered:
    """A program that listens somewhere, as it said itself. transport: `tcp`, `tcp6`, ..."""

    program: int
    version: int
    transport: str
    host: str
    port: int


def portmapper_runs(path: Path = SOCKET) -> bool:
    """Whether rpcbind answers; wakes one that waits for its first caller."""
    try:
        registered(path)
    except NoPortmapper:
        return False
    return True


def registered(path: Path = SOCKET) -> list[Registered]:
    """All that listen at a port. Raises NoPortmapper."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(_ANSWER_S)
            stream.connect(str(path))
            return _entries(_call(stream))
    except (OSError, struct.error, ValueError) as error:
        raise NoPortmapper(str(error)) from error


def _call(stream: socket.socket) -> bytes:
    """The result's bytes. Raises OSError, struct.error, ValueError."""
    xid = secrets.randbits(32)
    # A call (0) of RPC version 2; no credentials, no verifier, no arguments.
    message = _CALL.pack(xid, 0, 2, _RPCBIND, _RPCBIND_VERSION, _DUMP, 0, 0, 0, 0)
    stream.sendall(struct.pack(">I", _LAST_FRAGMENT | len(message)) + message)
    answer, last = b"", 0
    while not last:
        (marked,) = struct.unpack(">I", _exactly(stream, 4))
        last, length = marked & _LAST_FRAGMENT, marked & ~_LAST_FRAGMENT
        if len(answer) + length > _ANSWER_MAX or not length:
            raise ValueError("too long an answer, or an empty one")
        answer += _exactly(stream, length)
    # reply (1), accepted (0), verifier's kind and length, success (0)
    same, reply, accepted, _, verifier, outcome = _REPLY.unpack_from(answer)
    if (same, reply, accepted, verifier, outcome) != (xid, 1, 0, 0, 0):
        raise ValueError("not an answer to this call")
    return answer[_REPLY.size :]


def _entries(result: bytes) -> list[Registered]:
    """A list in which each entry says that there is one more. Raises struct.error, ValueError."""
    found, at = [], 0
    while struct.unpack_from(">I", result, at)[0]:
        _, program, version = _MORE.unpack_from(result, at)
        transport, at = _text(result, at + _MORE.size)
        address, at = _text(result, at)
        _owner, at = _text(result, at)
        if transport in ("tcp", "udp", "tcp6", "udp6"):
            # A universal address: `127.0.0.1.8.1`, whose last two numbers are the port.
            host, high, low = address.rsplit(".", 2)
            found.append(Registered(program, version, transport, host, int(high) * 256 + int(low)))
    return found


def _text(result: bytes, at: int) -> tuple[str, int]:
    """A string, and where the next thing begins."""
    (length,) = struct.unpack_from(">I", result, at)
    begin, end = at + 4, at + 4 + length
    if end > len(result):
        raise ValueError("a text that is longer than the answer")
    return result[begin:end].decode("ascii"), end + -length % 4


def _exactly(stream: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length:
        piece = stream.recv(length - len(got))
        if not piece:
            raise ConnectionResetError("closed in the middle of an answer")
        got += piece
    return got
