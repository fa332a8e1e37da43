"""A repository that is collected."""

from __future__ import annotations

import pytest

from backpoint_repo.store.memory import MemoryStore
from repo.collecting.collect_scene import Scene
from small_repository import new_repository


@pytest.fixture
def scene() -> Scene:
    return Scene(new_repository(MemoryStore()))
