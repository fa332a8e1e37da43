"""A disk that a guest never stops writing, and the proof that a copy of it is of one moment.

Pages are written in turn, for ever; each holds the number of its write. So a copy says which write
was the last in it, and what every other page must then hold: one that is newer or older betrays a
copy that was read while the disk changed. Knows nothing of Backpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

from vcsim import Simulator, SimulatorError

SIZE = 16 << 20
_PAGE = 4096
_PAGES = 256
# Far enough apart that change tracking tells them one by one.
_STRIDE = SIZE // _PAGES
_PAUSE_S = 0.002
_END_S = 20


class BusyDisk:
    """One VM's first disk; `count` writes were made."""

    def __init__(self, simulator: Simulator, vm: str) -> None:
        """The disk must be `make_image`'s."""
        self._simulator = simulator
        self._vm = vm
        self._failure: SimulatorError | None = None
        self.count = _PAGES

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Write while the block runs. Raises RuntimeError where the guest could not write."""
        end = threading.Event()
        guest = threading.Thread(target=self._write_until, args=(end,), daemon=True)
        guest.start()
        try:
            yield
        finally:
            end.set()
            guest.join(_END_S)
        if self._failure:
            raise RuntimeError(f"the guest could not write: {self._failure}")

    def write_unreported(self) -> None:
        """One write of which change tracking will tell nothing."""
        self._simulator.lie(self._vm, _offset(self.count), _STRIDE)
        self._simulator.write(self._vm, _offset(self.count), _page(self.count))
        self.count += 1

    def _write_until(self, end: threading.Event) -> None:
        try:
            while not end.wait(_PAUSE_S):
                self._simulator.write(self._vm, _offset(self.count), _page(self.count))
                self.count += 1
        except SimulatorError as error:
            self._failure = error


def make_image(path: Path) -> None:
    """The disk when each page was written once."""
    with path.open("wb") as disk:
        disk.truncate(SIZE)
        for number in range(_PAGES):
            disk.seek(_offset(number))
            disk.write(_page(number))


def last_write(copy: Path) -> int:
    """Which write was the last one in a copy. Raises RuntimeError if it is not of one moment."""
    with copy.open("rb") as disk:
        pages = []
        for place in range(_PAGES):
            disk.seek(_offset(place))
            pages.append(disk.read(_PAGE))
    last = max(int.from_bytes(page[:8]) for page in pages)
    for place, page in enumerate(pages):
        due = last - (last - place) % _PAGES
        if page != _page(due):
            found = int.from_bytes(page[:8])
            raise RuntimeError(f"{copy}: page {place} is of write {found} and not {due}: torn")
    return last


def _offset(number: int) -> int:
    return number % _PAGES * _STRIDE


def _page(number: int) -> bytes:
    head = number.to_bytes(8)
    return head + hashlib.shake_128(head).digest(_PAGE - len(head))
