"""Asking this machine's rpcbind which port a program has: one call of ONC RPC (RFC 5531, 1833).

Whoever answers is not trusted: answers are bounded and waited for at most a few seconds. Starts
nothing.
"""

from __future__ import annotations

import secrets
import socket
import struct
from pathlib import Path
from typing import Final

SOCKET: Final = Path("/run/rpcbind.sock")
NFS_PROGRAM: Final = 100003
_RPCBIND: Final = 100000
_RPCBIND_VERSION: Final = 3
_GETADDR: Final = 3
_ANSWER_S: Final = 5.0
_ANSWER_MAX: Final = 4096
_LAST_FRAGMENT: Final = 1 << 31
_CALL: Final = struct.Struct(">10I")
_REPLY: Final = struct.Struct(">6I")


class NoPortmapper(Exception):
    """Nobody answers there; no user sees it."""


def portmapper_runs(path: Path = SOCKET) -> bool:
    """Whether rpcbind answers; wakes one that waits for its first caller."""
    try:
        registered_place(NFS_PROGRAM, 3, path)
    except NoPortmapper:
        return False
    return True


def registered_place(program: int, version: int, path: Path = SOCKET) -> tuple[str, int] | None:
    """Address and TCP port of a program, None where it is not registered. Raises NoPortmapper."""
    arguments = struct.pack(">2I", program, version) + _text("tcp") + _text("") + _text("")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(_ANSWER_S)
            stream.connect(str(path))
            return _place_of(_call(stream, arguments))
    except (OSError, struct.error, ValueError) as error:
        raise NoPortmapper(str(error)) from error


def _call(stream: socket.socket, arguments: bytes) -> bytes:
    """The result's bytes. Raises OSError, struct.error, ValueError."""
    xid = secrets.randbits(32)
    # A call (0) of RPC version 2; no credentials, no verifier.
    head = _CALL.pack(xid, 0, 2, _RPCBIND, _RPCBIND_VERSION, _GETADDR, 0, 0, 0, 0)
    message = head + arguments
    stream.sendall(struct.pack(">I", _LAST_FRAGMENT | len(message)) + message)
    (marked,) = struct.unpack(">I", _exactly(stream, 4))
    length = marked & ~_LAST_FRAGMENT
    if length > _ANSWER_MAX:
        raise ValueError("too long an answer")
    answer = _exactly(stream, length)
    # reply (1), accepted (0), verifier's kind and length, success (0)
    same, reply, accepted, _, verifier, outcome = _REPLY.unpack_from(answer)
    if (same, reply, accepted, verifier, outcome) != (xid, 1, 0, 0, 0):
        raise ValueError("not an answer to this call")
    return answer[_REPLY.size :]


def _place_of(result: bytes) -> tuple[str, int] | None:
    """Out of a universal address, `127.0.0.1.8.1`, whose last two numbers are the port."""
    (length,) = struct.unpack_from(">I", result)
    address = result[4 : 4 + length].decode("ascii")
    if not address:
        return None
    host, high, low = address.rsplit(".", 2)
    return host, int(high) * 256 + int(low)


def _text(word: str) -> bytes:
    raw = word.encode("ascii")
    return struct.pack(">I", len(raw)) + raw + bytes(-len(raw) % 4)


def _exactly(stream: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length:
        piece = stream.recv(length - len(got))
        if not piece:
            raise ConnectionResetError("closed in the middle of an answer")
        got += piece
    return got
