"""The power goes while points are removed and space is given back: see `test_power_cut.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backpoint_repo import segment_cache
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


def test_a_cache_of_the_index_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where its files were never synced, so that anything may be in them."""

    def write(path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(descriptor, data)
        os.close(descriptor)

    monkeypatch.setattr(segment_cache, "write_durably", write)
    try_scene(SCENES["index cache"], tmp_path)
