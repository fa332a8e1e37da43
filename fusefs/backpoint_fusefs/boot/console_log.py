"""A guest's serial console in a file, as it came: for who looks later, or follows it meanwhile.

Decides how much of it: a guest that never stops talking must not fill the disk.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SIZE_MAX: Final = 64 << 20
_CUT: Final = b"\n[no more of it is kept]\n"


class ConsoleLog:
    """A context manager. What is written is there for others at once."""

    def __init__(self, path: Path, size_max: int = SIZE_MAX) -> None:
        """In place of what was there. Only its owner may read it. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self.path = path
        self._left = size_max
        self._descriptor = os.open(path, flags, 0o600)

    def __enter__(self) -> ConsoleLog:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def write(self, data: bytes) -> None:
        """On the thread that reads the machine's wires, which must have ended before we do."""
        if self._left <= 0:
            return
        data, self._left = data[: self._left], self._left - len(data)
        if self._left <= 0:
            data += _CUT
        with suppress(OSError):  # a full disk: the guest goes on, which matters more
            while data:
                data = data[os.write(self._descriptor, data) :]
