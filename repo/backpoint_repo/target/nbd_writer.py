"""One NBD connection to write a disk; simple replies only.

Decides how writes and flushes are asked for and answered. Trusts nothing the server says. Refuses
to know who runs the server.
"""

from __future__ import annotations

from typing import Final

from backpoint_repo.errors import SourceError
from backpoint_repo.source.nbd_handshake import negotiate
from backpoint_repo.source.nbd_stream import REQUEST_LIMIT, NbdStream
from backpoint_repo.target.contract import Content

_CMD_WRITE: Final = 1
_CMD_FLUSH: Final = 3


class NbdWriter:
    """A negotiated writable connection, used by one thread at a time."""

    def __init__(self, address: str, name: str, timeout_s: float) -> None:
        """Connect to the Unix socket `address`; `timeout_s` limits each exchange.

        Raises OSError if nobody listens there, SourceError if whoever does lets nobody write.
        """
        self._stream = NbdStream(address, name, timeout_s)
        try:
            export = negotiate(self._stream, structured=False)
            if not export.writable:
                raise self._stream.broken("an export that cannot be written and flushed")
        except SourceError:
            self.close()
            raise
        self.size = export.size

    def write_at(self, offset: int, data: Content) -> None:
        """All of `data`, not yet durable. Raises SourceError."""
        rest = memoryview(data)
        while rest:
            part = rest[:REQUEST_LIMIT]
            self._stream.request("write", _CMD_WRITE, offset, len(part))
            self._stream.send(part)
            self._stream.take_simple_header()
            self._stream.usable = True
            offset, rest = offset + len(part), rest[len(part) :]

    def flush(self) -> None:
        """Make durable what was written. Raises SourceError."""
        self._stream.request("flush", _CMD_FLUSH, 0, 0)
        self._stream.take_simple_header()
        self._stream.usable = True

    def close(self) -> None:
        """Say goodbye and close. Idempotent."""
        self._stream.close()
