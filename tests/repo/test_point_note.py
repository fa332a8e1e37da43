"""Notes beside points: once for each topic, found by point and topic, damage is told."""

from __future__ import annotations

from typing import Any

import pytest

from backpoint_repo.errors import ObjectDamaged, ObjectExists, UsageError
from backpoint_repo.format import Kind
from backpoint_repo.point_note import AFTERMATH, PointNote, put_note, read_note
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import as_agent, assert_clean, back_up, new_repository, reopened
from synthetic_disk import random_disk


@pytest.fixture
def repository() -> Repository:
    return new_repository(MemoryStore())


def test_a_note_comes_back_once_written(repository: Repository) -> None:
    """By the agent's credential too; a second one on the topic is refused."""
    point = back_up(repository, "vm", random_disk(1 << 20, 1))
    note = PointNote(point.point_id, AFTERMATH, 5.0, {"stun_s": 0.25, "alarms": ["x"]})
    agent = as_agent(repository)
    assert read_note(agent.sealed, point.point_id, AFTERMATH) is None
    put_note(agent.sealed, note)
    with pytest.raises(ObjectExists):
        put_note(agent.sealed, note)
    assert read_note(reopened(repository).sealed, point.point_id, AFTERMATH) == note
    assert_clean(repository)


@pytest.mark.parametrize("topic", ["", "Upper", "a/b", "a-b", "x" * 33, "1a"])
def test_odd_topics(repository: Repository, topic: str) -> None:
    """Are refused before they are written."""
    with pytest.raises(UsageError):
        put_note(repository.sealed, PointNote(bytes(16), topic, 0.0, {}))


@pytest.mark.parametrize(
    "change", [{"point": b"\1" * 16}, {"topic": "other"}, {"facts": {"x": b"y"}}, {"at": "now"}]
)
def test_a_note_that_lies_is_damage(repository: Repository, change: dict[str, Any]) -> None:
    """Whoever holds the keys may write nonsense; nobody believes it, and check tells it."""
    record = {"point": bytes(16), "topic": AFTERMATH, "at": 1.0, "facts": {}, **change}
    name = f"{bytes(16).hex()}-{AFTERMATH}"
    repository.sealed.put(Kind.NOTE, name, encode_record(record))
    with pytest.raises(ObjectDamaged):
        read_note(repository.sealed, bytes(16), AFTERMATH)
    with pytest.raises(AssertionError):
        assert_clean(repository)
