"""One NBD connection to read a disk, used by one thread at a time.

Decides how replies are understood: structured ones, `base:allocation` block status, reads that land
in the caller's buffer without a copy. Trusts nothing the server says: every length, offset, cookie
and magic is checked. Refuses to know who runs the server, how many connections there are, or what
a failed one means for the disk (`nbd_image`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from backpoint_repo.errors import SourceError
from backpoint_repo.source.nbd_handshake import negotiate
from backpoint_repo.source.nbd_stream import NbdStream, readable

_CHUNK_MAGIC = 0x668E33EF
_CMD_READ, _CMD_BLOCK_STATUS = 0, 7
_DONE = 1
_CHUNK_NONE, _CHUNK_DATA, _CHUNK_HOLE, _CHUNK_STATUS, _CHUNK_ERROR = 0, 1, 2, 5, 1 << 15
_STATUS_ZERO = 2

# A sane server stays far below these; a hostile one must not make us allocate or loop for more.
_CHUNKS_LIMIT = 1 << 16
_STATUS_LIMIT = 2 << 20
_ERROR_LIMIT = 8 << 10


class Run(NamedTuple):
    """A stretch of the export, `length` bytes; `zero` promises it reads as zeros."""

    length: int
    zero: bool


class _Chunk(NamedTuple):
    done: bool
    kind: int
    length: int


class NbdConnection:
    """A negotiated connection."""

    def __init__(self, address: str, name: str, timeout_s: float) -> None:
        """Connect to the Unix socket `address` and negotiate the default export.

        `name` is the disk, for messages; `timeout_s` limits each exchange. Raises OSError if nobody
        listens there, SourceError if whoever does is no NBD server we can use.
        """
        self._stream = NbdStream(address, name, timeout_s)
        try:
            self._export = negotiate(self._stream, structured=True)
        except SourceError:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of the export."""
        return self._export.size

    @property
    def usable(self) -> bool:
        """False once the stream can no longer be trusted."""
        return self._stream.usable

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (at most REQUEST_LIMIT bytes) from `offset`. Raises SourceError."""
        self._stream.request("read", _CMD_READ, offset, len(buffer))
        if self._export.structured:
            self._take_read_chunks(offset, buffer)
        else:
            self._stream.take_simple_header()
            self._stream.receive_into(buffer)
        self._stream.usable = True

    def block_status(self, offset: int, length: int) -> list[Run]:
        """Runs that begin at `offset` and cover some or all of `length` bytes, at least one byte.

        One data run of `length` if the server cannot tell. Raises SourceError.
        """
        if self._export.context is None:
            return [Run(length, zero=False)]
        self._stream.request("block status", _CMD_BLOCK_STATUS, offset, length)
        runs: list[Run] = []
        for chunk in self._chunks():
            if chunk.kind == _CHUNK_STATUS and not runs:
                runs = self._take_status(chunk.length, length)
            elif chunk.kind != _CHUNK_NONE or chunk.length:
                raise self._stream.broken(f"unexpected reply of type {chunk.kind}")
        if not runs:
            raise self._stream.broken("a reply that covers nothing")
        self._stream.usable = True
        return runs

    def interrupt(self) -> None:
        """End whatever another thread is waiting for on this connection."""
        self._stream.interrupt()

    def close(self) -> None:
        """Say goodbye if the stream allows it, and close. Idempotent."""
        self._stream.close()

    def _chunks(self) -> Iterator[_Chunk]:
        """Headers of one structured reply; the caller takes each body before it asks for the next.

        Takes error chunks itself and raises them once the reply is complete, so that a bad sector
        costs one request and not the connection.
        """
        failure: SourceError | None = None
        for _ in range(_CHUNKS_LIMIT):
            magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self._stream.receive(20))
            if magic != _CHUNK_MAGIC or cookie != self._stream.cookie:
                raise self._stream.broken("a reply that answers no request")
            if kind & _CHUNK_ERROR:
                failure = failure or self._take_error(length)
            else:
                yield _Chunk(bool(flags & _DONE), kind, length)
            if flags & _DONE:
                if failure:
                    self._stream.usable = True
                    raise failure
                return
        raise self._stream.broken("an endless reply")

    def _take_read_chunks(self, offset: int, buffer: memoryview) -> None:
        filled: list[tuple[int, int]] = []
        count = 0
        for chunk in self._chunks():
            if chunk.kind == _CHUNK_NONE and chunk.length == 0:
                continue
            if chunk.kind == _CHUNK_DATA and chunk.length > 8:
                (at,) = struct.unpack(">Q", self._stream.receive(8))
                length = chunk.length - 8
            elif chunk.kind == _CHUNK_HOLE and chunk.length == 12:
                at, length = struct.unpack(">QI", self._stream.receive(12))
            else:
                raise self._stream.broken(f"malformed reply of type {chunk.kind}")
            start = at - offset
            count += length
            if start < 0 or length == 0 or start + length > len(buffer) or count > len(buffer):
                raise self._stream.broken(f"{length} bytes at {at}, which were not asked for")
            part = buffer[start : start + length]
            if chunk.kind == _CHUNK_DATA:
                self._stream.receive_into(part)
            else:
                part[:] = bytes(length)
            filled.append((start, length))
        position = 0
        for start, length in sorted(filled):
            if start != position:
                raise self._stream.broken(
                    f"a reply with a gap or an overlap at {offset + position}"
                )
            position += length
        if position != len(buffer):
            raise self._stream.broken(f"a reply that ends at {offset + position}")

    def _take_status(self, body_length: int, asked: int) -> list[Run]:
        if body_length > _STATUS_LIMIT or body_length < 12 or body_length % 8 != 4:
            raise self._stream.broken("a malformed block status")
        body = self._stream.receive(body_length)
        if struct.unpack_from(">I", body)[0] != self._export.context:
            raise self._stream.broken("block status of something else")
        runs: list[Run] = []
        rest = asked
        for length, flags in struct.iter_unpack(">II", body[4:]):
            if length == 0 or rest == 0:
                raise self._stream.broken("a malformed block status")
            # The last run may reach past what was asked for.
            runs.append(Run(min(length, rest), bool(flags & _STATUS_ZERO)))
            rest -= runs[-1].length
        return runs

    def _take_error(self, length: int) -> SourceError:
        if not 6 <= length <= _ERROR_LIMIT:
            raise self._stream.broken("a malformed error")
        body = self._stream.receive(length)
        code, message_length = struct.unpack_from(">IH", body)
        message = readable(body[6 : 6 + message_length])
        reason = os.strerror(code) + (f" ({message})" if message else "")
        return self._stream.failed(reason)
