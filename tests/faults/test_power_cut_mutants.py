"""Each fsync of the local store carries weight: without it the power cut tests find what is lost.

So they can fail, and an fsync that one day looks superfluous is not taken away in silence.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from backpoint_repo.durable_file import fsync_folder
from backpoint_repo.errors import BackpointError
from backpoint_repo.store import local
from faults.power_cut_scenes import try_scene, try_two_processes
from faults.power_cut_writing import BY_ANOTHER, SCENES


class _WithoutFsync(ModuleType):
    """`os`, whose fsync does nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        pass


def _without(called_from: str, when: Callable[[FrameType], bool]) -> Callable[[Path], None]:
    """`fsync_folder`, which does nothing when this function of the store calls it."""

    def sync(folder: Path) -> None:
        caller = sys._getframe(1)
        if caller.f_code.co_name != called_from or not when(caller):
            fsync_folder(folder)

    return sync


def assert_found(run: Callable[[], None]) -> None:
    """Something is lost, or broken, or gone, after a cut."""
    try:
        run()
    except (AssertionError, BackpointError) as error:
        told = getattr(error, "__notes__", [])
    else:
        told = []
    assert any("cut after step" in note for note in told), "nobody misses it"


def test_of_an_objects_content(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "os", _WithoutFsync("os"))
    assert_found(lambda: try_scene(SCENES["increment"], tmp_path))


@pytest.mark.parametrize(
    ("called_from", "scene"),
    [("_put_through", "increment"), ("_make_folder", "init"), ("delete", "key change")],
)
def test_of_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, called_from: str, scene: str
) -> None:
    """Of a new name, a new folder, a deletion."""
    monkeypatch.setattr(local, "fsync_folder", _without(called_from, lambda _: True))
    assert_found(lambda: try_scene(SCENES[scene], tmp_path))


def test_of_folders_that_were_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever made them was killed before the sync."""
    there = _without("_make_folder", lambda caller: not caller.f_locals["made"])
    monkeypatch.setattr(local, "fsync_folder", there)
    assert_found(lambda: try_two_processes(SCENES["init"], BY_ANOTHER, tmp_path, thorough=True))


def test_of_what_was_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pack that was linked by a process killed before the sync is used by another."""
    monkeypatch.setattr(local, "fsync_folder", _without("_settle", lambda _: True))
    assert_found(
        lambda: try_two_processes(SCENES["increment"], BY_ANOTHER, tmp_path, thorough=True)
    )
