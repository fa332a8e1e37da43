"""Stores and repositories that several tests of the core share."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo.repository import Repository
from backpoint_repo.store.address import open_store
from backpoint_repo.store.contract import Store
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.memory import MemoryStore
from object_server import ObjectServer, object_server
from small_repository import StandingClock, new_repository


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """An object store over a socket, for the whole run."""
    with object_server(tmp_path_factory.mktemp("objects")) as running:
        yield running


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "s3":
        running: ObjectServer = request.getfixturevalue("server")
        return open_store(f"s3://tests/{secrets.token_hex(8)}", running.environment())
    return LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore()


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def repository(clock: StandingClock) -> Repository:
    """An empty repository in memory, opened as the owner."""
    return new_repository(MemoryStore(), clock)
