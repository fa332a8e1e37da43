"""What a machine says while it runs: its console, its firmware and QEMU itself, each kept bounded.

A thread reads as long as QEMU writes, because a console that nobody reads stops its guest. Decides
how much is kept; what it means is for others.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable, Mapping
from typing import Final

KEPT: Final = 256 << 10
_PIECE: Final = 64 << 10


class KeptOutput:
    """The end of a stream, with how much there was. Thread-safe."""

    def __init__(self, listener: Callable[[bytes], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._kept = bytearray()
        self._listener = listener
        self._total = 0

    def add(self, data: bytes) -> None:
        with self._lock:
            self._total += len(data)
            self._kept += data
            if len(self._kept) > 2 * KEPT:
                del self._kept[:-KEPT]
        if self._listener is not None:
            self._listener(data)

    @property
    def tail(self) -> bytes:
        """The last 256 KiB at most."""
        with self._lock:
            return bytes(self._kept[-KEPT:])

    @property
    def total(self) -> int:
        """Bytes there have been."""
        return self._total


class WireReader:
    """Reads descriptors until each has ended, into what keeps it. They stay the caller's."""

    def __init__(self, wires: Mapping[int, KeptOutput]) -> None:
        self._stop, self._stopped = os.pipe()
        self._wires = dict(wires)
        self._thread = threading.Thread(target=self._read, name="machine-wires", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Once QEMU has ended: what it said last is read before."""
        os.close(self._stopped)
        self._thread.join()
        os.close(self._stop)

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop, selectors.EVENT_READ)
            for wire in self._wires:
                selector.register(wire, selectors.EVENT_READ)
            while len(selector.get_map()) > 1:
                ready = [key.fd for key, _ in selector.select()]
                for wire in ready:
                    if wire != self._stop and not self._pass_on(wire):
                        selector.unregister(wire)
                if ready == [self._stop]:
                    return

    def _pass_on(self, wire: int) -> bool:
        try:
            data = os.read(wire, _PIECE)
        except OSError:
            return False  # reset: QEMU has ended
        if data:
            self._wires[wire].add(data)
        return bool(data)
