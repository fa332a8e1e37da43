"""A disk that comes as one stream of grains, read by several threads nearly in order.

No thread of its own: whichever reader needs more of the stream moves it on, one at a time, and
hands each grain to the readers that wait for it. Decides how readers wait, and that no two of them
can wait for each other. Refuses to know HTTP and leases.

The ingest reads leaf after leaf, a few at once, so that a reader is at most some leaves behind the
foremost. What that one passes is held in a window for the others; when the window is full it waits
for them, but not for ever: then the oldest grain is dropped, and whoever wants it after all gets a
SourceError. So a changed-block list can be read, and nobody is waited for who will never come.

The stream proves itself only at its end: that no grain was missing or misplaced is told by tables
there. A read that touches the disk's end returns only when the whole stream is proven, so a disk
read in full is right. Who reads less must call `finish` before a point is published.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.grain_window import GrainWindow, Request
from backpoint_agent.transport.stream_optimized import Grain, StreamOptimized
from backpoint_repo.errors import BackpointError, SourceError
from backpoint_repo.source.contract import Extent

WINDOW: Final = 4 * (32 << 20)
"""Bytes held for readers behind the foremost: four leaves."""

PATIENCE_S: Final = 10.0
"""How long a full window waits, once, for a reader to take something out of it."""

_ZEROS: Final = bytes(1 << 20)


class ForwardDisk:
    """`ImageSource` of one stream. Each byte can be read once; order within the window is free."""

    def __init__(
        self,
        name: str,
        size: int,
        open_stream: Callable[[], StreamOptimized],
        stop: Stop,
        *,
        on_whole: Callable[[], None],
        hang_up: Callable[[], None],
        window: int = WINDOW,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """size: that the stream must announce. open_stream: called once, at the first read.

        on_whole: called once, by a reader's thread, when the stream came to a good end; hang_up:
        ends the stream, also while another thread reads it. Both raise nothing.
        """
        self._name = name
        self._size = size
        self._open_stream = open_stream
        self._grains: Iterator[Grain] | None = None
        self._stop = stop
        self._on_whole = on_whole
        self._hang_up = hang_up
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._window = GrainWindow(window)
        self._waiting: list[Request] = []
        self._moving = False
        self._draining = False
        self._whole = False
        self._failure: BackpointError | None = None

    @property
    def name(self) -> str:
        """The frozen file."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data: what is zero shows only when it comes."""
        if length:
            yield Extent(offset, length, hole=False)

    def begin(self) -> None:
        """Ask for the stream now and not at the first read, before others have the disk.

        Raises SourceError, and TransportUnusable where the stream is of a disk of another size.
        """
        stream = self._open_stream()
        if stream.size != self._size:
            raise TransportUnusable(
                f"the export of {self._name} is of a disk of {stream.size} bytes, not {self._size}"
            )
        self._grains = stream.grains()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`. Raises SourceError, also for bytes that were read before or passed by."""
        target = buffer.cast("B")
        _clear(target)
        request = Request(offset, target)
        with self._changed:
            self._check_usable()
            if not self._window.serve(request):
                raise SourceError(
                    f"{self._name!r} at offset {offset} has been read or passed by already, and "
                    "an export is sent only once; back the VM up again"
                )
            self._changed.notify_all()
            self._waiting.append(request)
        try:
            self._move_to(request.end)
        finally:
            with self._changed:
                self._waiting.remove(request)

    def finish(self) -> None:
        """Take the rest of the stream, unread, and know that all of it was right.

        Harmless where it is at its end. Raises SourceError.
        """
        with self._changed:
            self._draining = True
            self._window.drop_all()
            self._changed.notify_all()
        self._move_to(self._size)

    def close(self) -> None:
        """Hang up; readers that wait get a SourceError. Idempotent."""
        with self._changed:
            self._fail(SourceError(f"{self._name!r} is closed"))
        self._hang_up()

    def _move_to(self, end: int) -> None:
        """Until the disk is known below `end`, by this thread or by others."""
        while True:
            with self._changed:
                # The last byte is not known before the stream is proven.
                if self._whole or self._window.position >= end < self._size:
                    self._changed.notify_all()
                    return
                self._check_usable()
                if self._moving:
                    # Ends: who moves the stream has a time limit for each read of it.
                    self._changed.wait()
                    continue
                self._moving = True
            try:
                grain = self._next()
                with self._changed:
                    self._arrived(grain)
            except BackpointError as error:
                with self._changed:
                    self._fail(error)
                raise
            except BaseException:
                # Whatever it is, nobody may go on with a stream that was left half way.
                with self._changed:
                    self._fail(SourceError(f"{self._name!r}: reading was broken off"))
                raise
            finally:
                with self._changed:
                    self._moving = False
            if grain is None:
                self._on_whole()

    def _next(self) -> Grain | None:
        """Without the lock; None when the stream has come to a good end."""
        self._stop.check()
        if self._grains is None:
            self.begin()
        assert self._grains is not None
        return next(self._grains, None)

    def _arrived(self, grain: Grain | None) -> None:
        if grain is None:
            self._whole = True
            self._window.position = self._size
            self._changed.notify_all()
            return
        offset, data = grain
        if sum(request.wants(offset, len(data)) for request in self._waiting) < len(data):
            self._wait_for_room(len(data))
        # From here on the lock is not let go, so that no reader can miss the grain.
        given = sum(request.deliver(offset, data) for request in self._waiting)
        self._window.add(offset, data, len(data) if self._draining else given)
        if any(request.end <= self._window.position for request in self._waiting):
            self._changed.notify_all()

    def _wait_for_room(self, count: int) -> None:
        """Once nobody came for what is held, it is taken for unwanted from then on."""
        if self._patience_s and not self._changed.wait_for(
            lambda: self._window.has_room(count) or self._draining or self._failure is not None,
            self._patience_s,
        ):
            self._patience_s = 0.0

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))

    def _fail(self, why: BackpointError) -> None:
        if self._failure is None:
            self._failure = why
        self._window.drop_all()
        self._changed.notify_all()


def _clear(target: memoryview) -> None:
    for start in range(0, len(target), len(_ZEROS)):
        piece = target[start : start + len(_ZEROS)]
        piece[:] = _ZEROS[: len(piece)]
