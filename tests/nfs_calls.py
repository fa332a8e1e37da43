"""Single calls of NFSv3 from an address of one's choice, which no client at hand can do."""

from __future__ import annotations

import errno
import itertools
import os
import random
import socket
import struct
from typing import Final

OK: Final = 0
_MOUNT_PROGRAM: Final = 100005
_NFS_PROGRAM: Final = 100003
_VERSION: Final = 3
_MNT: Final = 1
_GETATTR: Final = 1
_TIMEOUT_S: Final = 10.0
_XIDS: Final = itertools.count(1)
_ROOTS_PORTS: Final = range(600, 1024)
ANY_PORT: Final = range(1)
"""What a user gets who is not root."""


class Denied(Exception):
    """The server refuses the call itself."""


def mount(host: str, port: int, path: str, source: str) -> tuple[int, bytes]:
    """Status and, with `OK`, the handle of what is exported there."""
    result = _call((host, port), _MOUNT_PROGRAM, _MNT, _opaque(path.encode()), source)
    (status,) = struct.unpack_from(">I", result)
    if status != OK:
        return status, b""
    (length,) = struct.unpack_from(">I", result, 4)
    return status, result[8 : 8 + length]


def attributes_status(
    host: str, port: int, handle: bytes, source: str, ports: range = _ROOTS_PORTS
) -> int:
    """Of a GETATTR. ports: one of them is the client's own."""
    result = _call((host, port), _NFS_PROGRAM, _GETATTR, _opaque(handle), source, ports)
    (status,) = struct.unpack_from(">I", result)
    return int(status)


def _call(
    place: tuple[str, int],
    program: int,
    procedure: int,
    arguments: bytes,
    source: str,
    ports: range = _ROOTS_PORTS,
) -> bytes:
    xid = next(_XIDS)
    head = struct.pack(">6I", xid, 0, 2, program, _VERSION, procedure)
    # Who asks, as AUTH_SYS: a stamp, a name, user and group root, no other groups.
    who = struct.pack(">I", 0) + _opaque(b"test") + struct.pack(">3I", 0, 0, 0)
    credentials = struct.pack(">I", 1) + _opaque(who) + struct.pack(">2I", 0, 0)
    message = head + credentials + arguments
    with _connected(place, source, ports) as stream:
        stream.sendall(struct.pack(">I", 1 << 31 | len(message)) + message)
        with stream.makefile("rb") as answers:
            (marked,) = struct.unpack(">I", answers.read(4))
            answer = answers.read(marked & 0x7FFFFFFF)
    same, reply, denied = struct.unpack_from(">3I", answer)
    assert (same, reply) == (xid, 1)
    if denied:
        raise Denied(answer[12:].hex())
    _, _, outcome = struct.unpack_from(">3I", answer, 12)
    if outcome:
        raise Denied
    return answer[24:]


def _connected(place: tuple[str, int], source: str, ports: range) -> socket.socket:
    for port in random.sample(ports, len(ports)):
        try:
            return socket.create_connection(place, _TIMEOUT_S, source_address=(source, port))
        except OSError as error:
            # Another's, or one of ours that is closing down.
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _opaque(raw: bytes) -> bytes:
    return struct.pack(">I", len(raw)) + raw + bytes(-len(raw) % 4)
