"""A disk served over NBD, read by many threads at once.

Decides how threads share the server: a small fixed pool of connections, each lent to one thread for
one request, so that no reply ever has to find its reader. Refuses to know the wire (`nbd_client`)
and who runs the server (`qemu_nbd`).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

from backpoint_repo.errors import SourceError
from backpoint_repo.source.contract import Extent
from backpoint_repo.source.nbd_client import NbdConnection
from backpoint_repo.source.nbd_stream import REQUEST_LIMIT

# A status request covers at most this much, so that one answer about a fragmented disk stays small.
_STATUS_STEP = 1 << 30


class NbdImage:
    """`ImageSource` over `connections` NBD connections to one export."""

    def __init__(
        self, name: str, connect: Callable[[], NbdConnection], connections: int = 4
    ) -> None:
        """`connect` opens one more connection; one is opened now, the others when they are needed.

        Raises SourceError, and whatever `connect` raises.
        """
        self._name = name
        self._connect = connect
        self._lock = threading.Lock()
        self._lent: set[NbdConnection] = set()
        self._closed = False
        first = connect()
        self._size = first.size
        # Last in, first out: open connections are used before unopened places.
        self._free: queue.LifoQueue[NbdConnection | None] = queue.LifoQueue()
        for _ in range(connections - 1):
            self._free.put(None)
        self._free.put(first)

    @property
    def name(self) -> str:
        """What the user called the disk."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes, as the server announced them to the first connection."""
        return self._size

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Runs the server calls zero are holes; neighbours of one kind are merged.

        Raises SourceError.
        """
        end = offset + length
        pending = Extent(offset, 0, hole=False)
        while offset < end:
            with self._borrowed() as connection:
                runs = connection.block_status(offset, min(end - offset, _STATUS_STEP))
            for run in runs:
                if run.zero == pending.hole or pending.length == 0:
                    pending = Extent(pending.offset, pending.length + run.length, run.zero)
                else:
                    yield pending
                    pending = Extent(offset, run.length, run.zero)
                offset += run.length
        if pending.length:
            yield pending

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`. Raises SourceError."""
        target = buffer.cast("B")
        for start in range(0, len(target), REQUEST_LIMIT):
            with self._borrowed() as connection:
                connection.read_into(offset + start, target[start : start + REQUEST_LIMIT])

    def close(self) -> None:
        """Close all connections; reads under way in other threads fail. Idempotent."""
        with self._lock:
            self._closed = True
            for connection in self._lent:
                # Not closed here: its number could be given to another file under that thread.
                connection.interrupt()
        places = 0
        with contextlib.suppress(queue.Empty):
            while True:
                idle = self._free.get_nowait()
                places += 1
                if idle:
                    idle.close()
        # Whoever waits for a place must wake up to find us closed.
        for _ in range(places):
            self._free.put(None)

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[NbdConnection]:
        # Waits without a limit: every borrower ends within the connection's own time limit.
        connection = self._free.get()
        try:
            connection = connection or self._another()
            with self._lock:
                if self._closed:
                    raise SourceError(f"{self._name!r} was closed while it was read")
                self._lent.add(connection)
            yield connection
        finally:
            with self._lock:
                closed = self._closed
                if connection:
                    self._lent.discard(connection)
            if connection and (closed or not connection.usable):
                connection.close()
                connection = None
            self._free.put(connection)

    def _another(self) -> NbdConnection:
        if self._closed:
            raise SourceError(f"{self._name!r} is closed")
        try:
            connection = self._connect()
        except OSError as error:
            raise SourceError(
                f"{self._name!r}: the NBD server is gone: {error.strerror}"
            ) from error
        if connection.size != self._size:
            connection.close()
            raise SourceError(
                f"{self._name!r} changed its size from {self._size} to {connection.size} bytes"
            )
        return connection
