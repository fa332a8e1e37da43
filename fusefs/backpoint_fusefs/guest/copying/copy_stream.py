"""One guest file into a stream, which has no holes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final

from backpoint_fusefs.guest.file_pieces import read_pieces, threads_for
from backpoint_fusefs.guest.guest_tree import Found

_ZEROS: Final = memoryview(bytes(1 << 20))


def copy_to_stream(found: Found, out: BinaryIO, advance: Callable[[int], None]) -> None:
    """Of a regular file, all bytes. Raises GuestError, OSError, and what reading disks raises."""
    with ThreadPoolExecutor(threads_for([found.on]), "cp") as ahead:
        for _, length, content in read_pieces(found.on, found.stat, ahead):
            if content is None:
                for start in range(0, length, len(_ZEROS)):
                    out.write(_ZEROS[: length - start])
            else:
                out.write(content)
            advance(length)
    out.flush()
