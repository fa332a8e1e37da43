"""One object server for all fault tests of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from object_server import ObjectServer, object_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """An object store over a socket, for the whole run."""
    with object_server(tmp_path_factory.mktemp("objects")) as running:
        yield running
