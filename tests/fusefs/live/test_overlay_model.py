"""A session's disk against plain bytes: whatever is done, wherever it is killed or loses power.

The log is made tiny, so that it grows, fills and begins anew within a few operations.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from backpoint_fusefs.live.overlay import top_layer, write_ahead_log
from backpoint_fusefs.live.overlay.block_set import BLOCK
from backpoint_fusefs.live.overlay.overlay_disk import CutDisk, OverlayDisk
from fusefs.live.overlay_bases import BytesBase, numbered
from fusefs.live.overlay_model import DiskModel
from fusefs.live.overlay_power import PowerCut, PoweredFolder, watched

_END = 24 * BLOCK
_WHOLE = st.integers(0, _END // BLOCK - 1).map(lambda number: number * BLOCK)
OFFSETS = st.one_of(_WHOLE, st.integers(0, _END - 1))
LENGTHS = st.one_of(
    st.just(BLOCK), st.integers(1, 6).map(lambda count: count * BLOCK), st.integers(1, 3 * BLOCK)
)
_SIZES = st.one_of(_WHOLE, st.integers(0, _END))


class DiskMachine(RuleBasedStateMachine):
    """One disk of a session, and what a session writes down of it: base, floor and cuts."""

    kind: ClassVar[type[PoweredFolder]] = PoweredFolder

    @initialize(size=_SIZES)
    def begin(self, size: int) -> None:
        self._exit = ExitStack()
        patch = self._exit.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(write_ahead_log, "FIRST_LENGTH", 5 * BLOCK)
        patch.setattr(write_ahead_log, "LENGTH_MAX", 16 * BLOCK)
        patch.setattr(write_ahead_log, "_GROWTH", 2)
        patch.setattr(top_layer, "SMALL_SYNC", 3)
        home = self._exit.enter_context(tempfile.TemporaryDirectory())
        self.folder = self._exit.enter_context(watched(Path(home), self.kind))
        self.base = BytesBase(numbered(size))
        self.model = DiskModel(self.base.content)
        self.cuts: dict[int, bytes] = {}
        self.last_cut = self.floor = self.writes = 0
        self.disk = OverlayDisk(self.folder.path, self.base)

    def teardown(self) -> None:
        if hasattr(self, "_exit"):
            self._exit.close()

    def text(self, length: int) -> bytes:
        """Each block of it says which write it is of."""
        self.writes += 1
        line = f"write {self.writes:6d} ".encode()
        return (line * (length // len(line) + 1))[:length]

    @rule(offset=OFFSETS, length=LENGTHS)
    def write(self, offset: int, length: int) -> None:
        text = self.text(min(length, _END - offset))
        self.model.write(offset, text)
        # What may be written without waiting is; the rest goes the other way.
        if not self.disk.write_at_once(offset, text):
            self.disk.write(offset, text)

    @rule(offset=OFFSETS, length=LENGTHS)
    def zero(self, offset: int, length: int) -> None:
        self.model.zero(offset, length)
        self.disk.zero(offset, length)

    @rule(size=_SIZES)
    def resize(self, size: int) -> None:
        self.model.resize(size)
        self.disk.resize(size)
        self.model.resized()

    @rule()
    def sync(self) -> None:
        self.disk.sync()
        self.model.synced()

    @rule()
    def cut(self) -> None:
        self.disk.cut(self.last_cut + 1)
        self.model.synced()
        self.last_cut += 1
        self.cuts[self.last_cut] = bytes(self.model.content)

    @rule(back=st.integers(0, 2))
    def commit(self, back: int) -> None:
        """Store a cut as another process does, and go on over the new point."""
        whole = [number for number in self.cuts if number <= self.last_cut - back]
        if not whole or (through := max(whole)) <= self.floor:
            return
        cut = CutDisk(self.folder.path, self.base, self.floor, through)
        stored = _stored(cut, self.base.content)
        assert stored == self.cuts[through]
        self.base, self.floor = BytesBase(stored), through
        self.disk.rebase(self.base, through)

    @rule()
    def reopen(self) -> None:
        self.disk.close()
        self.disk = OverlayDisk(self.folder.path, self.base, self.floor)
        # Closing syncs nothing: what was not synced may be gone.
        self.model.found(read_all(self.disk))

    @rule(
        calls=st.integers(0, 12),
        power=st.booleans(),
        seed=st.integers(0, 1 << 32),
        what=st.sampled_from(["write", "zero", "resize", "sync", "cut", "commit", "nothing"]),
        at=OFFSETS,
        length=LENGTHS,
    )
    def crash(self, calls: int, power: bool, seed: int, what: str, at: int, length: int) -> None:
        """In the middle of something, and perhaps in the middle of recovering from that."""
        chance = random.Random(seed)
        doing: dict[str, Callable[[], None]] = {
            "write": lambda: self.write(at, length),
            "zero": lambda: self.zero(at, length),
            "resize": lambda: self.resize(at),
            "sync": self.sync,
            "cut": self.cut,
            "commit": lambda: self.commit(0),
            "nothing": lambda: None,
        }
        self.folder.cut_after(calls, chance)
        with suppress(PowerCut):
            doing[what]()
        self._restart(power, chance)
        self.folder.cut_after(chance.randrange(30), chance)
        try:
            self.disk = OverlayDisk(self.folder.path, self.base, self.floor)
        except PowerCut:
            self._restart(power, chance)
            self.disk = OverlayDisk(self.folder.path, self.base, self.floor)
        self.folder.go_on()
        self.model.found(read_all(self.disk))

    def _restart(self, power: bool, chance: random.Random) -> None:
        self.folder.restart(power=power, chance=chance)

    @invariant()
    def reads_as_it_should(self) -> None:
        if not hasattr(self, "disk"):
            return
        content = bytes(self.model.content)
        assert self.disk.size == len(content)
        assert read_all(self.disk) == content
        at = random.Random(self.writes).randrange(_END)
        assert bytes(self.disk.read(at, 3 * BLOCK)) == content[at : at + 3 * BLOCK]
        cached = self.disk.read_cached(at, 3 * BLOCK)
        assert cached is None or bytes(cached) == content[at : at + 3 * BLOCK]


def read_all(disk: OverlayDisk) -> bytes:
    return bytes(disk.read(0, 2 * _END))


def _stored(cut: CutDisk, before: bytes) -> bytes:
    """The new point's disk: the old one's, and what is told as written; also by extents."""
    whole = bytearray(before[: cut.size].ljust(cut.size, b"\0"))
    by_extents = bytearray(cut.size)
    for offset, length in cut.written():
        cut.read_into(offset, memoryview(whole)[offset : offset + length])
    for extent in cut.extents(0, cut.size):
        if not extent.hole:
            place = memoryview(by_extents)[extent.offset : extent.offset + extent.length]
            cut.read_into(extent.offset, place)
    assert by_extents == whole
    cut.close()
    return bytes(whole)


TestDisk = DiskMachine.TestCase
TestDisk.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
