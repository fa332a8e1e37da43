"""One object server for all fault tests of a run, a line to it that does harm, what is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.bucket_scene import BucketScene, Template, make_template
from object_server import ObjectServer, object_server
from paced_proxy import PacedProxy, paced_proxy


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """An object store over a socket, for the whole run."""
    with object_server(tmp_path_factory.mktemp("objects")) as running:
        yield running


@pytest.fixture(scope="session")
def proxy(server: ObjectServer) -> Iterator[PacedProxy]:
    """The one behind `line`; for what lives longer than a test."""
    with paced_proxy(server.endpoint) as running:
        yield running


@pytest.fixture
def line(proxy: PacedProxy) -> Iterator[PacedProxy]:
    """Between clients and `server`; does no harm until it is told to."""
    proxy.clear()
    yield proxy
    proxy.calm()


@pytest.fixture(scope="session")
def template() -> Template:
    return make_template()


@pytest.fixture
def scene(server: ObjectServer, line: PacedProxy, template: Template) -> BucketScene:
    """A small repository of its own."""
    return BucketScene(server, line, template)
