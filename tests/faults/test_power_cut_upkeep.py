"""The power goes while points are removed and space is given back: see `test_power_cut.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.power_cut_scenes import try_scene, try_two_processes
from faults.power_cut_upkeep import KILLED, SCENES


@pytest.mark.parametrize("name", SCENES)
def test_power_cut(name: str, tmp_path: Path) -> None:
    try_scene(SCENES[name], tmp_path)


@pytest.mark.parametrize("name", KILLED)
def test_a_process_is_killed_then_another_goes_on_then_the_power_goes(
    name: str, tmp_path: Path
) -> None:
    try_two_processes(*KILLED[name], tmp_path)
