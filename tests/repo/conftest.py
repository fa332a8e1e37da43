"""Stores and repositories that several tests of the core share."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Store
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.memory import MemoryStore
from small_repository import StandingClock, new_repository


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    return LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore()


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def repository(clock: StandingClock) -> Repository:
    """An empty repository in memory, opened as the owner."""
    return new_repository(MemoryStore(), clock)
