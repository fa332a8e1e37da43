"""A folder whose system calls can fail, beside all that `overlay_power` can do to it.

A flush that fails is as Linux has it: what it should have written stays to be read, counts as
written, and is not on the disk; a later flush does not write it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from fusefs.live.overlay_power import PoweredFolder

_PAGE = 4096
_WRITE = os.pwrite


class FaultyFolder(PoweredFolder):
    """As `PoweredFolder`."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self._lost: dict[int, bytes] = {}
        """By our number of a file: what it held when a flush of it failed."""
        self._failing: tuple[int, int] | None = None
        super().__init__(home, patch)

    def fail_after(self, calls: int, number: int) -> None:
        """Let so many more calls through; the next one fails with errno `number`."""
        self._failing = calls, number

    def go_on(self) -> None:
        super().go_on()
        self._failing = None

    def _begin(self, contents: dict[str, bytes]) -> None:
        super()._begin(contents)
        self._lost = {}

    def _call(self) -> bool:
        if super()._call():
            return True
        if self._failing is not None:
            left, number = self._failing
            self._failing = (left - 1, number) if left else None
            if not left:
                raise OSError(number, os.strerror(number))
        return False

    def _patch_all(self, patch: pytest.MonkeyPatch) -> None:
        super()._patch_all(patch)
        patch.setattr(os, "posix_fadvise", self._forget_cached)

    def _flusher(self, real: Any) -> Any:
        flush = super()._flusher(real)

        def flush_or_fail(descriptor: int) -> None:
            found = os.fstat(descriptor)
            is_file = self._ours(descriptor) and stat.S_ISREG(found.st_mode)
            now = _content(descriptor) if is_file else b""
            try:
                before = self._flushed.get(self._files[found.st_ino], b"") if is_file else b""
                flush(descriptor)
            except OSError as error:
                if is_file and error.errno == errno.EIO:
                    self._lost[self._files[found.st_ino]] = now
                raise
            if is_file and (lost := self._lost.get(file := self._files[found.st_ino])) is not None:
                self._flushed[file] = _on_disk(now, lost, before)

        return flush_or_fail

    def _forget_cached(self, descriptor: int, *_: int) -> None:
        """POSIX_FADV_DONTNEED."""
        if not self._ours(descriptor):
            return
        file = self._files[os.fstat(descriptor).st_ino]
        if (lost := self._lost.pop(file, None)) is not None:
            now = _content(descriptor)
            on_disk = _on_disk(now, lost, self._flushed.get(file, b""))
            writable = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)
            _WRITE(writable, on_disk, 0)
            os.close(writable)


def _content(descriptor: int) -> bytes:
    return Path(f"/proc/self/fd/{descriptor}").read_bytes()


def _on_disk(now: bytes, lost: bytes, before: bytes) -> bytes:
    """Pages that are as they were when their flush failed have what was flushed before."""
    lost, before = (content.ljust(len(now), b"\0") for content in (lost, before))
    pages = (slice(at, min(at + _PAGE, len(now))) for at in range(0, len(now), _PAGE))
    return b"".join(before[page] if now[page] == lost[page] else now[page] for page in pages)
