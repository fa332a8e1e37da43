"""What travels between a parser process and its parent: one byte of kind, a length, the bytes.

Decides the frames' form and their largest size, which both sides enforce: neither believes the
other. Knows no filesystem and no process.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import Any, Final

import msgpack

FRAME_MAX: Final = 16 << 20
"""Bytes of one frame. A page of a listing stays far below."""
STAT: Final = struct.Struct("<qqHIIIqqqqqQ")
"""A Stat in a page of a listing. Packing it also tells whether it is one: no number out of its
range, none that is no number, in a fifth of the time that Python takes to look."""
_HEADER: Final = struct.Struct(">BI")
_PIECE: Final = 1 << 20


class FrameKind(IntEnum):
    """REQUEST, DATA and FAULT go to the parser; READ, RESULT, BYTES and ERROR come from it.

    READ asks for bytes of an image, DATA brings them, FAULT says that they cannot be had. RESULT
    and BYTES (unpacked) answer a request, ERROR refuses it.
    """

    REQUEST = 1
    DATA = 2
    FAULT = 3
    READ = 4
    RESULT = 5
    BYTES = 6
    ERROR = 7


class PeerGone(Exception):
    """The other side has closed the connection, or sent what no honest one would send."""


class FrameSocket:
    """Frames over a stream socket. Not thread-safe."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream

    def send(self, kind: FrameKind, payload: bytes | memoryview) -> None:
        """Raises PeerGone, and TimeoutError where the socket has a time limit."""
        if len(payload) > FRAME_MAX:
            raise ValueError(f"a frame of {len(payload)} bytes")
        try:
            self._stream.sendall(_HEADER.pack(kind, len(payload)))
            self._stream.sendall(payload)
        except ConnectionError as error:
            raise PeerGone("the connection was closed") from error

    def receive(self) -> tuple[FrameKind, bytearray]:
        """Raises PeerGone; TimeoutError where the socket has a time limit."""
        number, length = _HEADER.unpack(self._exactly(_HEADER.size))
        if number not in FrameKind.__members__.values() or length > FRAME_MAX:
            raise PeerGone("a frame that makes no sense")
        return FrameKind(number), self._exactly(length)

    def close(self) -> None:
        """For good."""
        self._stream.close()

    def _exactly(self, length: int) -> bytearray:
        content = bytearray(length)
        view, filled = memoryview(content), 0
        while filled < length:
            try:
                got = self._stream.recv_into(view[filled : filled + _PIECE])
            except ConnectionError as error:
                raise PeerGone("the connection was closed") from error
            if not got:
                raise PeerGone("the connection was closed")
            filled += got
        return content


def pack(value: Any) -> bytes:
    """Plain values: None, bool, int, bytes, str, list, dict."""
    packed: bytes = msgpack.packb(value)
    return packed


def unpack(payload: bytes | bytearray) -> Any:
    """Raises PeerGone where it is no msgpack."""
    try:
        return msgpack.unpackb(payload, use_list=False, strict_map_key=False)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise PeerGone("a frame that cannot be unpacked") from error
