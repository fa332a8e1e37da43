"""One NBD connection over a Unix socket, used by one thread at a time.

Decides the wire: newstyle handshake, structured replies, `base:allocation` block status, reads that
land in the caller's buffer without a copy. Trusts nothing the server says: every length,
offset, cookie and magic is checked and every exchange has a time limit. Refuses to know who runs
the server, how many connections there are, or what a failed one means for the disk (`nbd_image`).

Block sizes are deliberately not negotiated: a server that was not asked must serve any offset, and
32 MiB is the largest request it must accept.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from backpoint_repo.errors import SourceError

REQUEST_LIMIT = 32 << 20  # the protocol's default maximum payload

_GREETING_MAGIC, _OPTION_MAGIC, _OPTION_REPLY_MAGIC = (
    0x4E42444D41474943,
    0x49484156454F5054,
    0x0003E889045565A9,
)
_REQUEST_MAGIC, _SIMPLE_MAGIC, _CHUNK_MAGIC = 0x25609513, 0x67446698, 0x668E33EF
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_GO, _OPT_STRUCTURED_REPLY, _OPT_SET_META_CONTEXT = 7, 8, 10
_REP_ACK, _REP_INFO, _REP_META_CONTEXT, _REP_ERROR = 1, 3, 4, 1 << 31
_INFO_EXPORT = 0
_CMD_READ, _CMD_DISCONNECT, _CMD_BLOCK_STATUS = 0, 2, 7
_DONE = 1
_CHUNK_NONE, _CHUNK_DATA, _CHUNK_HOLE, _CHUNK_STATUS, _CHUNK_ERROR = 0, 1, 2, 5, 1 << 15
_STATUS_ZERO = 2

# A sane server stays far below these; a hostile one must not make us allocate or loop for more.
_OPTION_REPLY_LIMIT = 64 << 10
_OPTION_REPLIES_LIMIT = 64
_CHUNKS_LIMIT = 1 << 16
_STATUS_LIMIT = 2 << 20
_ERROR_LIMIT = 8 << 10
_MESSAGE_LIMIT = 200


class Run(NamedTuple):
    """A stretch of the export, `length` bytes; `zero` promises it reads as zeros."""

    length: int
    zero: bool


class _Chunk(NamedTuple):
    done: bool
    kind: int
    length: int


class NbdConnection:
    """A negotiated connection. `usable` is false once the stream can no longer be trusted."""

    def __init__(self, address: str, name: str, timeout_s: float) -> None:
        """Connect to the Unix socket `address` and negotiate the default export.

        `name` is the disk, for messages; `timeout_s` limits each exchange. Raises OSError if nobody
        listens there, SourceError if whoever does is no NBD server we can use.
        """
        self._name = name
        self._timeout_s = timeout_s
        self._deadline = 0.0
        self._doing = "handshake"
        self._cookie = 0
        self._structured = False
        self._context: int | None = None
        self.size = 0
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
            self._handshake()
        except (OSError, SourceError):
            self.close()
            raise

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (at most REQUEST_LIMIT bytes) from `offset`. Raises SourceError."""
        self._request("read", _CMD_READ, offset, len(buffer))
        if self._structured:
            self._take_read_chunks(offset, buffer)
        else:
            self._take_simple_header()
            self._receive_into(buffer)
        self.usable = True

    def block_status(self, offset: int, length: int) -> list[Run]:
        """Runs that begin at `offset` and cover some or all of `length` bytes, at least one byte.

        One data run of `length` if the server cannot tell. Raises SourceError.
        """
        if self._context is None:
            return [Run(length, zero=False)]
        self._request("block status", _CMD_BLOCK_STATUS, offset, length)
        runs: list[Run] = []
        for chunk in self._chunks():
            if chunk.kind == _CHUNK_STATUS and not runs:
                runs = self._take_status(chunk.length, length)
            elif chunk.kind != _CHUNK_NONE or chunk.length:
                raise self._broken(f"unexpected reply of type {chunk.kind}")
        if not runs:
            raise self._broken("a reply that covers nothing")
        self.usable = True
        return runs

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

    # Handshake

    def _handshake(self) -> None:
        self._begin("handshake")
        magic, option_magic, flags = struct.unpack(">QQH", self._receive(18))
        if (magic, option_magic) != (_GREETING_MAGIC, _OPTION_MAGIC) or not flags & _FIXED_NEWSTYLE:
            raise self._broken("a greeting that is not NBD's")
        self._send(struct.pack(">I", flags & (_FIXED_NEWSTYLE | _NO_ZEROES)))
        self._structured = any(
            kind == _REP_ACK for kind, _ in self._option(_OPT_STRUCTURED_REPLY, b"")
        )
        export = struct.pack(">I", 0)  # the default export has an empty name
        if self._structured:
            query = b"base:allocation"
            wanted = export + struct.pack(">II", 1, len(query)) + query
            for kind, body in self._option(_OPT_SET_META_CONTEXT, wanted):
                if kind == _REP_META_CONTEXT and body[4:] == query:
                    (self._context,) = struct.unpack(">I", body[:4])
        size: int | None = None
        for kind, body in self._option(_OPT_GO, export + struct.pack(">H", 0)):
            if kind & _REP_ERROR:
                raise self._broken(f"a refusal of the export: {_readable(body)}")
            if (
                kind == _REP_INFO
                and len(body) == 12
                and body[:2] == struct.pack(">H", _INFO_EXPORT)
            ):
                (size,) = struct.unpack(">Q", body[2:10])
        if size is None or size >= 1 << 63:
            raise self._broken(f"no credible size of the export: {size}")
        self.size = size
        self.usable = True

    def _option(self, option: int, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._send(struct.pack(">QII", _OPTION_MAGIC, option, len(data)) + data)
        for _ in range(_OPTION_REPLIES_LIMIT):
            magic, answered, kind, length = struct.unpack(">QIII", self._receive(20))
            if magic != _OPTION_REPLY_MAGIC or answered != option or length > _OPTION_REPLY_LIMIT:
                raise self._broken(f"a malformed answer to option {option}")
            yield kind, self._receive(length)
            if kind == _REP_ACK or kind & _REP_ERROR:
                return
        raise self._broken(f"endless answers to option {option}")

    # Requests and replies

    def _request(self, doing: str, command: int, offset: int, length: int) -> None:
        if not self.usable:
            raise self._broken("a connection that failed before")
        self._begin(f"{doing} of {length} bytes at offset {offset}")
        self._cookie += 1
        self._send(struct.pack(">IHHQQI", _REQUEST_MAGIC, 0, command, self._cookie, offset, length))

    def _chunks(self) -> Iterator[_Chunk]:
        """Headers of one structured reply; the caller takes each body before it asks for the next.

        Takes error chunks itself and raises them once the reply is complete, so that a bad sector
        costs one request and not the connection.
        """
        failure: SourceError | None = None
        for _ in range(_CHUNKS_LIMIT):
            magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self._receive(20))
            if magic != _CHUNK_MAGIC or cookie != self._cookie:
                raise self._broken("a reply that answers no request")
            if kind & _CHUNK_ERROR:
                failure = failure or self._take_error(length)
            else:
                yield _Chunk(bool(flags & _DONE), kind, length)
            if flags & _DONE:
                if failure:
                    self.usable = True
                    raise failure
                return
        raise self._broken("an endless reply")

    def _take_read_chunks(self, offset: int, buffer: memoryview) -> None:
        filled: list[tuple[int, int]] = []
        count = 0
        for chunk in self._chunks():
            if chunk.kind == _CHUNK_NONE and chunk.length == 0:
                continue
            if chunk.kind == _CHUNK_DATA and chunk.length > 8:
                (at,) = struct.unpack(">Q", self._receive(8))
                length = chunk.length - 8
            elif chunk.kind == _CHUNK_HOLE and chunk.length == 12:
                at, length = struct.unpack(">QI", self._receive(12))
            else:
                raise self._broken(f"malformed reply of type {chunk.kind}")
            start = at - offset
            count += length
            if start < 0 or length == 0 or start + length > len(buffer) or count > len(buffer):
                raise self._broken(f"{length} bytes at {at}, which were not asked for")
            part = buffer[start : start + length]
            if chunk.kind == _CHUNK_DATA:
                self._receive_into(part)
            else:
                part[:] = bytes(length)
            filled.append((start, length))
        position = 0
        for start, length in sorted(filled):
            if start != position:
                raise self._broken(f"a reply with a gap or an overlap at {offset + position}")
            position += length
        if position != len(buffer):
            raise self._broken(f"a reply that ends at {offset + position}")

    def _take_simple_header(self) -> None:
        magic, code, cookie = struct.unpack(">IIQ", self._receive(16))
        if magic != _SIMPLE_MAGIC or cookie != self._cookie:
            raise self._broken("a reply that answers no request")
        if code:
            self.usable = True
            raise SourceError(f"{self._name!r}: {self._doing} failed: {os.strerror(code)}")

    def _take_status(self, body_length: int, asked: int) -> list[Run]:
        if body_length > _STATUS_LIMIT or body_length < 12 or body_length % 8 != 4:
            raise self._broken("a malformed block status")
        body = self._receive(body_length)
        if struct.unpack_from(">I", body)[0] != self._context:
            raise self._broken("block status of something else")
        runs: list[Run] = []
        rest = asked
        for length, flags in struct.iter_unpack(">II", body[4:]):
            if length == 0 or rest == 0:
                raise self._broken("a malformed block status")
            # The last run may reach past what was asked for.
            runs.append(Run(min(length, rest), bool(flags & _STATUS_ZERO)))
            rest -= runs[-1].length
        return runs

    def _take_error(self, length: int) -> SourceError:
        if not 6 <= length <= _ERROR_LIMIT:
            raise self._broken("a malformed error")
        body = self._receive(length)
        code, message_length = struct.unpack_from(">IH", body)
        message = _readable(body[6 : 6 + message_length])
        reason = os.strerror(code) + (f" ({message})" if message else "")
        return SourceError(f"{self._name!r}: {self._doing} failed: {reason}")

    # Bytes

    def _begin(self, doing: str) -> None:
        """Start an exchange; until it has ended well, the stream counts as lost."""
        self._doing = doing
        self._deadline = time.monotonic() + self._timeout_s
        self.usable = False

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise self._lost(error) from error

    def _receive(self, length: int) -> bytes:
        data = bytearray(length)
        self._receive_into(memoryview(data))
        return bytes(data)

    def _receive_into(self, rest: memoryview) -> None:
        while rest:
            try:
                count = self._socket.recv_into(rest, 0, socket.MSG_WAITALL)
            except OSError as error:
                raise self._lost(error) from error
            if count == 0:
                raise self._broken("the end of the stream")
            rest = rest[count:]
            if rest and time.monotonic() > self._deadline:
                # A server that drips single bytes never trips the socket's own limit.
                raise self._lost(TimeoutError())

    def _lost(self, error: OSError) -> SourceError:
        if isinstance(error, BlockingIOError | TimeoutError):
            reason = f"no complete answer within the NBD time limit of {self._timeout_s:g} s"
        else:
            reason = f"the NBD connection broke: {error.strerror}"
        return SourceError(f"{self._name!r}: {self._doing} failed: {reason}")

    def _broken(self, got: str) -> SourceError:
        return SourceError(f"{self._name!r}: {self._doing} failed: the NBD server sent {got}")


def _readable(message: bytes) -> str:
    text = message[:_MESSAGE_LIMIT].decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in text)
