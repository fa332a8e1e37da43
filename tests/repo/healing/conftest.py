"""A scene with something to lose, made once: a test spoils a copy of its own."""

from __future__ import annotations

import pytest

from backpoint_repo.store.memory import MemoryStore
from repo.healing.damage_scene import DamageScene


@pytest.fixture(scope="session")
def pristine() -> DamageScene:
    """Not to be changed."""
    return DamageScene(MemoryStore())


@pytest.fixture
def scene(pristine: DamageScene) -> DamageScene:
    """In memory."""
    return pristine.on(MemoryStore())
