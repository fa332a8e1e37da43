"""A session's disk where system calls fail: what was promised stays, what is lost is told for good.

As `test_overlay_model`, with errors of the disk between kills and power cuts.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule

from backpoint_fusefs.live.overlay.overlay_disk import OverlayDisk
from fusefs.live.overlay_faults import FaultyFolder
from fusefs.live.test_overlay_model import LENGTHS, OFFSETS, DiskMachine, read_all


class FailingMachine(DiskMachine):
    """A disk of a session in a folder whose disk fails or is full at times."""

    kind = FaultyFolder

    @rule(
        calls=st.integers(0, 8),
        number=st.sampled_from([errno.EIO, errno.ENOSPC]),
        what=st.sampled_from(["write", "zero", "resize", "sync", "cut", "commit"]),
        after=st.sampled_from(["sync", "reopen", "kill", "power"]),
        seed=st.integers(0, 1 << 32),
        at=OFFSETS,
        length=LENGTHS,
    )
    def fail(
        self, calls: int, number: int, what: str, after: str, seed: int, at: int, length: int
    ) -> None:
        """A call of an operation, and something that shows what is left."""
        doing: dict[str, Callable[[], None]] = {
            "write": lambda: self.write(at, length),
            "zero": lambda: self.zero(at, length),
            "resize": lambda: self.resize(at),
            "sync": self.sync,
            "cut": self.cut,
            "commit": lambda: self.commit(0),
        }
        assert isinstance(self.folder, FaultyFolder)
        last_cut = self.last_cut
        self.folder.fail_after(calls, number)
        try:
            doing[what]()
        except OSError:
            # A session uses a number up before it cuts.
            self.last_cut = last_cut + (what == "cut")
            self.model.failed(read_all(self.disk))
        self.folder.go_on()
        if after != "sync" or not self._synced():
            self._open_anew(after, random.Random(seed))

    def _synced(self) -> bool:
        """Else writes were lost, and whoever asks again is told so again."""
        try:
            self.disk.sync()
        except OSError:
            for asked in (self.disk.sync, lambda: self.disk.write(0, b"more")):
                with pytest.raises(OSError, match="writes were lost"):
                    asked()
            return False
        self.model.synced()
        return True

    def _open_anew(self, how: str, chance: random.Random) -> None:
        self.disk.close()
        if how in ("kill", "power"):
            self.folder.restart(power=how == "power", chance=chance)
        self.disk = OverlayDisk(self.folder.path, self.base, self.floor)
        self.model.found(read_all(self.disk))


TestFailingDisk = FailingMachine.TestCase
TestFailingDisk.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
