"""HTTP/1.1 messages passed from one socket to another: heads are read, bodies are only moved.

Large bodies go through a pipe within the kernel, so that a proxy costs next to nothing beside the
client that is measured. Knows no object store and no fault.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

PIECE: Final = 256 * 1024
_SPLICED: Final = 64 * 1024
"""A body below this is not worth a pipe."""
_HEAD_LIMIT: Final = 64 * 1024


class Gone(Exception):
    """The other side closed or reset the connection."""


@dataclass(frozen=True)
class Head:
    """The first lines of a message. first: such as `PUT /bucket/key HTTP/1.1`."""

    first: str
    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The value of a header field; names in lower case."""
        return next((value for each, value in self.fields if each.lower() == name), None)

    @property
    def length(self) -> int:
        return int(self.get("content-length") or 0)

    @property
    def chunked(self) -> bool:
        return (self.get("transfer-encoding") or "").lower() == "chunked"

    def having(self, name: str, value: str) -> Head:
        """The same with one field as given."""
        kept = tuple(row for row in self.fields if row[0].lower() != name.lower())
        return Head(self.first, (*kept, (name, value)))

    def lacking(self, name: str) -> Head:
        return Head(self.first, tuple(row for row in self.fields if row[0].lower() != name))

    def encode(self) -> bytes:
        lines = [self.first, *(f"{name}: {value}" for name, value in self.fields)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Bandwidth:
    """Bytes per second that all connections have together; None: no limit."""

    def __init__(self, bytes_per_s: float | None) -> None:
        self._rate = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.passed = 0

    def take(self, count: int) -> None:
        """Wait until `count` bytes have gone down the line."""
        with self._lock:
            self.passed += count
            if self._rate is None:
                return
            self._free_at = max(self._free_at, time.monotonic()) + count / self._rate
            wait_s = self._free_at - time.monotonic()
        if wait_s > 0.001:  # less than the machine's own delays
            time.sleep(wait_s)


class Wire:
    """One connection, with what was read too far."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._ahead = b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def head(self) -> Head:
        """The next message's head. Raises Gone."""
        while b"\r\n\r\n" not in self._ahead:
            if len(self._ahead) > _HEAD_LIMIT:
                raise Gone
            self._ahead += self._received(_SPLICED)
        raw, _, self._ahead = self._ahead.partition(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")
        split = (line.partition(":") for line in lines)
        return Head(first, tuple((name, value.strip()) for name, _, value in split))

    def chunks(self) -> bytes:
        """A whole body in chunks, as it was sent: listings and the like, which are small."""
        raw = b""
        while True:
            line = self._line()
            size = int(line.split(b";")[0], 16)
            raw += line + self._exactly(size + 2)
            if size == 0:
                return raw

    def send(self, data: bytes | memoryview) -> None:
        """Raises Gone."""
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Gone from error

    def idle_and_closed(self) -> bool:
        """Nothing is under way, and the other side has hung up."""
        try:
            return not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def reset(self) -> None:
        """Hang up so that the other side gets ECONNRESET."""
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            # Wakes the thread that is blocked in a read, which closing alone does not.
            self.socket.shutdown(socket.SHUT_RD)
        self.socket.close()

    def pieces(self, length: int) -> Iterator[bytes]:
        """A body of `length` bytes. Raises Gone where it ends early."""
        while length:
            piece = self._ahead[:length] or self._received(min(length, PIECE))
            self._ahead = self._ahead[len(piece) :]
            length -= len(piece)
            yield piece

    def fill(self, room: memoryview) -> None:
        """Read a body of just that length into `room`. Raises Gone where it ends early."""
        ahead = min(len(room), len(self._ahead))
        room[:ahead] = self._ahead[:ahead]
        self._ahead = self._ahead[ahead:]
        while ahead < len(room):
            try:
                got = self.socket.recv_into(room[ahead:], 0, socket.MSG_WAITALL)
            except OSError as error:
                raise Gone from error
            if not got:
                raise Gone
            ahead += got

    def move(self, sink: Wire, length: int, line: Bandwidth) -> None:
        """Pass `length` bytes of body on to `sink`. Raises Gone."""
        ahead = min(length, len(self._ahead))
        if length - ahead < _SPLICED:
            ahead = length
        for piece in self.pieces(ahead):
            line.take(len(piece))
            sink.send(piece)
        if length > ahead:
            self._splice(sink, length - ahead, line)

    def _splice(self, sink: Wire, length: int, line: Bandwidth) -> None:
        out, into = os.pipe()
        try:
            with contextlib.suppress(OSError):  # a user may have only so many large pipes
                fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, PIECE)
            while length:
                moved = os.splice(self.socket.fileno(), into, min(length, PIECE))
                if not moved:
                    raise Gone
                line.take(moved)
                length -= moved
                while moved:
                    moved -= os.splice(out, sink.socket.fileno(), moved)
        except OSError as error:
            raise Gone from error
        finally:
            os.close(out)
            os.close(into)

    def _line(self) -> bytes:
        while b"\r\n" not in self._ahead:
            self._ahead += self._received(_SPLICED)
        line, _, self._ahead = self._ahead.partition(b"\r\n")
        return line + b"\r\n"

    def _exactly(self, length: int) -> bytes:
        return b"".join(self.pieces(length))

    def _received(self, limit: int) -> bytes:
        try:
            data = self.socket.recv(limit)
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        return data
