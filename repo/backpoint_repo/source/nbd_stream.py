"""The bytes of one NBD connection: time limits, request headers, simple replies.

Decides when a stream counts as lost: whenever an exchange did not end as the protocol says. Every
exchange has a time limit, also against a server that drips single bytes. Refuses to know
what is negotiated (`nbd_handshake`) and what requests mean (`nbd_client`, `target/nbd_writer`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time

from backpoint_repo.errors import SourceError

REQUEST_LIMIT = 32 << 20  # the protocol's default maximum payload

_REQUEST_MAGIC, _SIMPLE_MAGIC = 0x25609513, 0x67446698
_CMD_DISCONNECT = 2
_MESSAGE_LIMIT = 200


class NbdStream:
    """A connected Unix socket. `usable` is false while an exchange is under way or has failed."""

    def __init__(self, address: str, name: str, timeout_s: float) -> None:
        """Connect. `name` is the disk, for messages; `timeout_s` limits each exchange.

        Raises OSError if nobody listens at `address`.
        """
        self._name = name
        self._timeout_s = timeout_s
        self._deadline = 0.0
        self._doing = "handshake"
        self.cookie = 0
        self.usable = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Kernel time limits rather than settimeout(): they leave the socket blocking, so that
            # MSG_WAITALL fetches megabytes in one call.
            seconds, microseconds = divmod(int(timeout_s * 1e6), 1_000_000)
            limit = struct.pack("@ll", seconds, microseconds)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._socket.connect(address)
        except OSError:
            self.close()
            raise

    def begin(self, doing: str) -> None:
        """Start an exchange; until the caller sets `usable`, the stream counts as lost."""
        self._doing = doing
        self._deadline = time.monotonic() + self._timeout_s
        self.usable = False

    def request(self, doing: str, command: int, offset: int, length: int) -> None:
        """Begin an exchange with a request header. Raises SourceError."""
        if not self.usable:
            raise self.broken("a connection that failed before")
        self.begin(f"{doing} of {length} bytes at offset {offset}")
        self.cookie += 1
        self.send(struct.pack(">IHHQQI", _REQUEST_MAGIC, 0, command, self.cookie, offset, length))

    def take_simple_header(self) -> None:
        """The head of a simple reply. Raises SourceError; the server's own costs no stream."""
        magic, code, cookie = struct.unpack(">IIQ", self.receive(16))
        if magic != _SIMPLE_MAGIC or cookie != self.cookie:
            raise self.broken("a reply that answers no request")
        if code:
            self.usable = True
            raise self.failed(os.strerror(code))

    def send(self, data: bytes | memoryview) -> None:
        """All of `data`. Raises SourceError."""
        try:
            self._socket.sendall(data, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise self._lost(error) from error

    def receive(self, length: int) -> bytes:
        """Exactly `length` bytes. Raises SourceError."""
        data = bytearray(length)
        self.receive_into(memoryview(data))
        return bytes(data)

    def receive_into(self, rest: memoryview) -> None:
        """Fill `rest`. Raises SourceError."""
        while rest:
            try:
                count = self._socket.recv_into(rest, 0, socket.MSG_WAITALL)
            except OSError as error:
                raise self._lost(error) from error
            if count == 0:
                raise self.broken("the end of the stream")
            rest = rest[count:]
            if rest and time.monotonic() > self._deadline:
                # A server that drips single bytes never trips the socket's own limit.
                raise self._lost(TimeoutError())

    def interrupt(self) -> None:
        """End whatever another thread is waiting for on this connection."""
        self.usable = False
        # Not connected any more: then nobody is waiting.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say goodbye if the stream allows it, and close. Idempotent."""
        if self.usable:
            goodbye = struct.pack(">IHHQQI", _REQUEST_MAGIC, 0, _CMD_DISCONNECT, 0, 0, 0)
            # A server that is gone needs no goodbye.
            with contextlib.suppress(OSError):
                self._socket.send(goodbye, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        self.usable = False
        self._socket.close()

    def broken(self, got: str) -> SourceError:
        """The error for a server that does not keep to the protocol."""
        return self.failed(f"the NBD server sent {got}")

    def failed(self, reason: str) -> SourceError:
        """The error for what is being done, with its disk, offset and reason."""
        return SourceError(f"{self._name!r}: {self._doing} failed: {reason}")

    def _lost(self, error: OSError) -> SourceError:
        if isinstance(error, BlockingIOError | TimeoutError):
            limit = f"the NBD time limit of {self._timeout_s:g} s"
            return self.failed(f"no complete answer within {limit}")
        return self.failed(f"the NBD connection broke: {error.strerror}")


def readable(message: bytes) -> str:
    """A server's words, safe for a terminal."""
    text = message[:_MESSAGE_LIMIT].decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in text)
