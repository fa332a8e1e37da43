"""What became known of a point after it was published: a note beside it, one for each topic.

A point never changes; what its maker learns later (how long removing the snapshot took) is put
beside it, once. Costs nothing to readers who do not ask. A note of a point that is gone has no
meaning and may be deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from backpoint_repo.capture import Capture, refusal
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UsageError
from backpoint_repo.format import Kind, object_key
from backpoint_repo.record import Record, encode_record
from backpoint_repo.sealed_store import SealedStore

AFTERMATH: Final = "aftermath"
"""Of the agent: what removing the snapshot came to."""
_TOPIC: Final = re.compile(r"[a-z][a-z0-9]{0,31}")


@dataclass(frozen=True)
class PointNote:
    """at: when it was written, seconds since 1970. facts: as `Point.capture`. content: what belongs
    to the topic and is no plain data, mostly nothing."""

    point_id: bytes
    topic: str
    at: float
    facts: Capture
    content: bytes = b""


def put_note(sealed: SealedStore, note: PointNote) -> None:
    """Raises ObjectExists where the point has a note on this topic, UsageError, and what a store
    raises."""
    if not _TOPIC.fullmatch(note.topic):
        raise UsageError(f"{note.topic!r} is no topic of a note")
    if why := refusal(note.facts):
        raise UsageError(f"a note's facts: what is given {why}")
    record = {
        "point": note.point_id,
        "topic": note.topic,
        "at": note.at,
        "facts": note.facts,
        **({"content": note.content} if note.content else {}),
    }
    sealed.put(Kind.NOTE, note_name(note.point_id, note.topic), encode_record(record))


def read_note(sealed: SealedStore, point_id: bytes, topic: str) -> PointNote | None:
    """None where there is none. Raises ObjectDamaged, UnknownFormat, StoreUnavailable."""
    name = note_name(point_id, topic)
    try:
        record = sealed.get_record(Kind.NOTE, name)
    except ObjectMissing:
        return None
    return _decoded(record, name)


def verify_note(sealed: SealedStore, name: str) -> PointNote:
    """The note of this name. Raises ObjectDamaged where the object is no whole one, and as
    `SealedStore.get`."""
    return _decoded(sealed.get_record(Kind.NOTE, name), name)


def note_name(point_id: bytes, topic: str) -> str:
    """Of the object."""
    return f"{point_id.hex()}-{topic}"


def _decoded(record: Record, name: str) -> PointNote:
    what = object_key(Kind.NOTE, name)
    point_id, topic = record.get("point", bytes), record.get("topic", str)
    facts = record.get("facts", dict)
    if note_name(point_id, topic) != name:
        raise ObjectDamaged(f"{what}: is a note on something else")
    if why := refusal(facts):
        raise ObjectDamaged(f"{what}: what it says {why}")
    content = record.optional("content", bytes) or b""
    return PointNote(point_id, topic, record.get("at", float), facts, content)
