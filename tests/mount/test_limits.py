"""What a mount costs: memory for its cache and its catalogue, and no more."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from many_points import make_many_points
from mounted_repository import MakePoint, MountedRepository, run

MIB = 1 << 20


def _resident(pid: int) -> int:
    """The most memory the process ever had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_memory_is_bounded_by_the_cache_however_much_is_read(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    back_up_bytes("web", os.urandom(160 * MIB))
    checked_repository.mount("--memory", "16M")
    before = _resident(checked_repository.pid)
    flat = checked_repository.newest("web") / "disk0-flat.vmdk"
    run("dd", f"if={flat}", "of=/dev/null", "bs=1M")
    run("dd", f"if={flat}", "of=/dev/null", "bs=1M", "iflag=direct")
    assert _resident(checked_repository.pid) - before < 110 * MIB


def test_ten_thousand_points_are_listed(checked_repository: MountedRepository) -> None:
    make_many_points(checked_repository.repository, vms=100, points_per_vm=100)
    checked_repository.mount()
    assert len(os.listdir(checked_repository.place / "vms")) == 100
    done = subprocess.run(
        ["find", checked_repository.place, "-maxdepth", "3"], capture_output=True, check=True
    )
    # points, VMs, `latest`, one link a VM and day, days, and the four at the top
    assert len(done.stdout.splitlines()) == 10_000 + 100 + 100 + 100 * 5 + 5 + 4
    assert (checked_repository.newest("vm00042") / "disk0-flat.vmdk").stat().st_size == 1 << 30
    assert _resident(checked_repository.pid) < 150 * MIB
