"""The content of one node of a session: as its disk or plain file has it, written by the rules.

Decides only that a write passes the session's gate: not in the middle of a cut, not when frozen.
"""

from __future__ import annotations

from backpoint_fusefs.live.overlay.overlay_disk import OverlayDisk
from backpoint_fusefs.live.plain_file import PlainFile
from backpoint_fusefs.live.write_gate import WriteGate


class SessionFile:
    """A `LiveFile`. `write`, `zero` and `resize` raise SessionFrozen while the session is."""

    def __init__(self, content: OverlayDisk | PlainFile, gate: WriteGate) -> None:
        self._content = content
        self._gate = gate
        self.read_cached = content.read_cached
        self.read = content.read
        self.sync = content.sync

    @property
    def size(self) -> int:
        return self._content.size

    @property
    def allocated(self) -> int:
        return self._content.allocated

    def write(self, offset: int, data: bytes | memoryview) -> None:
        with self._gate.writing():
            self._content.write(offset, data)

    def write_at_once(self, offset: int, data: bytes | memoryview) -> bool:
        if not self._gate.enter_at_once():
            return False
        try:
            return self._content.write_at_once(offset, data)
        finally:
            self._gate.leave()

    def zero(self, offset: int, length: int) -> None:
        """Zeros that take no room; nothing gets longer."""
        with self._gate.writing():
            self._content.zero(offset, length)

    def resize(self, size: int) -> None:
        with self._gate.writing():
            self._content.resize(size)
