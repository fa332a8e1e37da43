"""Puts to a real object store whose answers get lost on their way back."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from backpoint_repo.errors import ObjectExists
from backpoint_repo.store.address import open_store
from backpoint_repo.store.contract import Store
from object_server import ObjectServer
from paced_proxy import Harm, PacedProxy, paced_proxy


@pytest.fixture(scope="module")
def line(server: ObjectServer) -> Iterator[PacedProxy]:
    with paced_proxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def far(server: ObjectServer, line: PacedProxy) -> Store:
    """A store at the other end of the line."""
    environment = server.environment() | {"AWS_ENDPOINT": line.endpoint}
    return open_store(f"s3://tests/{secrets.token_hex(8)}", environment)


def test_a_put_whose_answer_was_lost_has_been_done(far: Store, line: PacedProxy) -> None:
    """Once: it is found to be there, as ours."""
    data = secrets.token_bytes(1 << 20)
    before = line.counts().harmed
    line.harm(Harm("lose-answer", "PUT", "/packs/"))
    far.put("packs/aa/a", [data[:9], data[9:]])
    assert line.counts().harmed == before + 1
    assert far.get("packs/aa/a") == data
    with pytest.raises(ObjectExists):
        far.put("packs/aa/a", [data])


def test_racers_whose_answers_are_lost_have_one_winner(far: Store, line: PacedProxy) -> None:
    """Each of them loses its first answer; who won knows that it won, and nobody else thinks so."""
    contents = [bytes([me]) * 5000 for me in range(4)]
    before = line.counts().harmed
    line.harm(Harm("lose-answer", "PUT", "/points/", times=len(contents)))

    def race(content: bytes) -> bool:
        try:
            far.put("points/a", [content])
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(len(contents)) as racers:
        won = list(racers.map(race, contents))
    winners = [content for content, mine in zip(contents, won, strict=True) if mine]
    assert winners == [far.get("points/a")]
    assert line.counts().harmed == before + len(contents)
