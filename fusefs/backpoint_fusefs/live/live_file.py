"""What a file of a session offers, whatever keeps its bytes: an overlaid disk or a plain file.

A contract; decides nothing. Offsets and lengths in bytes.
"""

from __future__ import annotations

from typing import Protocol


class BaseContent(Protocol):
    """What lies below a session's writes: a stored disk. Thread-safe, never changes."""

    @property
    def size(self) -> int: ...

    def read_cached(self, offset: int, length: int) -> bytes | memoryview | None:
        """As `read`, or None where anything would have to be fetched: for the event loop."""
        ...

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Fewer bytes at the end, none behind it. Raises what a repository raises."""
        ...


class LiveFile(Protocol):
    """Thread-safe. Every method but `read_cached` and `write_at_once` may wait, so it belongs on a
    worker.

    What cannot be written raises OSError with the system's errno (ENOSPC); nothing else that was
    written is hurt by that. Reads raise what a repository raises, and OSError.
    """

    @property
    def size(self) -> int: ...

    @property
    def allocated(self) -> int:
        """Bytes not hole, as `st_blocks` tells them."""
        ...

    def read_cached(self, offset: int, length: int) -> bytes | memoryview | None: ...

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Fewer bytes at the end, none behind it."""
        ...

    def write_at_once(self, offset: int, data: bytes | memoryview) -> bool:
        """As `write`, for the event loop: False, and nothing is written, where anything would have
        to be waited for."""
        ...

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """All of it; makes the file longer where it reaches behind the end."""
        ...

    def resize(self, size: int) -> None:
        """Durable when it returns. What is added is zeros, whatever was there before."""
        ...

    def sync(self) -> None:
        """All that was written before is durable when it returns."""
        ...
