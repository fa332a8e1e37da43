"""What a machine reads of its session while it boots is recorded; what the last one read is there
before it is asked for."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from backpoint_fusefs.live.boot_trace.trace_files import (
    ask_for_trace,
    put_ranges_ahead,
    recorded_trace,
)
from backpoint_repo.boot_trace import TracedRange
from mounted_repository import MakePoint, MountedRepository

UNIT = 64 << 10
CONTENT = random.Random(8).randbytes(64 * UNIT)
LIMIT_S = 30.0


def _read_without_packs(repository: MountedRepository, disk: Path) -> bytes | None:
    """Units 8, 40 and 41; None where they would have to be fetched."""
    packs, away = repository.root / "packs", repository.root / "away"
    packs.rename(away)
    try:
        with disk.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            first = os.pread(file.fileno(), UNIT, 8 * UNIT)
            return first + os.pread(file.fileno(), 2 * UNIT, 40 * UNIT)
    except OSError:
        return None
    finally:
        away.rename(packs)


def test_what_the_last_boot_read_is_fetched_before_it_is_asked_for(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """With the packs away it reads, where a session that knows of no boot does not."""
    back_up_bytes("web", CONTENT)
    strange = checked_repository.start_session("web", "strange") / "disk0-flat.vmdk"
    disk = checked_repository.start_session("web", "trial") / "disk0-flat.vmdk"
    ahead = [TracedRange(0, 40 * UNIT, 2 * UNIT), TracedRange(0, 8 * UNIT, UNIT)]
    put_ranges_ahead(checked_repository.sessions / "trial", ahead)
    checked_repository.mount_live()
    assert _read_without_packs(checked_repository, strange) is None
    assert disk.stat().st_size == len(CONTENT)  # now the mount has opened it
    found, deadline = None, time.monotonic() + LIMIT_S
    while found is None and time.monotonic() < deadline:
        found = _read_without_packs(checked_repository, disk)
    assert found == CONTENT[8 * UNIT : 9 * UNIT] + CONTENT[40 * UNIT : 42 * UNIT]


def test_what_is_read_is_written_down_in_order(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """By the time the mount is gone; what was written by the guest is not read of the point."""
    back_up_bytes("web", CONTENT)
    disk = checked_repository.start_session("web", "trial") / "disk0-flat.vmdk"
    folder = checked_repository.sessions / "trial"
    ask_for_trace(folder)
    checked_repository.mount_live()
    with disk.open("r+b", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pwrite(file.fileno(), bytes(UNIT), 20 * UNIT)
        for unit in (50, 3, 20):
            assert len(os.pread(file.fileno(), 4096, unit * UNIT)) == 4096
    checked_repository.umount()
    assert recorded_trace(folder) == [
        TracedRange(0, 50 * UNIT, UNIT),
        TracedRange(0, 3 * UNIT, UNIT),
    ]
