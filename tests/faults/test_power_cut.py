"""The power goes at every system call of every operation: nothing that was promised is lost.

At each cut all that POSIX allows may become of what was not synced. BACKPOINT_POWER=N tries N
random fates at each cut, beside the simple ones, instead of two, and every kill.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.power_cut_scenes import try_scene, try_two_processes
from faults.power_cut_writing import BY_ANOTHER, KILLED, SCENES


@pytest.mark.parametrize("name", SCENES)
def test_power_cut(name: str, tmp_path: Path) -> None:
    try_scene(SCENES[name], tmp_path)


@pytest.mark.parametrize("name", KILLED)
def test_a_process_is_killed_then_another_goes_on_then_the_power_goes(
    name: str, tmp_path: Path
) -> None:
    """What the first had made and not synced, the second saw and built upon."""
    try_two_processes(SCENES[name], BY_ANOTHER, tmp_path)
