"""Proofs beside their points: any number for each point, each written once and never changed.

Decides how proofs are named, so that one listing tells the newest of every point. A proof is a
note; its screenshot (for the owner's eyes: it shows the guest) and its boot trace are notes of
their own, so that reading proofs stays cheap.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

from backpoint_repo.boot_trace import RANGES_MAX, TracedRange, decode_trace, encode_trace
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UsageError
from backpoint_repo.format import Kind, object_key
from backpoint_repo.owner_box import check_box, open_as_owner, seal_for_owner
from backpoint_repo.point import is_calendar_time
from backpoint_repo.point_note import PointNote, note_name, put_note, read_note
from backpoint_repo.proof import Proof
from backpoint_repo.proof_facts import decode_proof, proof_facts, tidied
from backpoint_repo.sealed_store import SealedStore

SCREENSHOT_MAX: Final = 4 << 20
HISTORY_MAX: Final = 100
"""Proofs of one point that are read at once: a year of drills twice a week."""
_PROOF: Final = "proof"
_SHOT: Final = "shot"
_TRACE: Final = "trace"
_NAME: Final = re.compile(r"([0-9a-f]{32})-(proof|shot|trace)([0-9a-f]{24})")
"""12 digits of milliseconds since 1970, so that names sort by time, and 12 random ones."""
_TIME_DIGITS: Final = 12
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_READERS: Final = 16


@dataclass(frozen=True)
class ProofNames:
    """What one listing tells: ids of proofs and of what is attached to them, newest first."""

    proofs: Mapping[bytes, Sequence[str]] = field(default_factory=dict)
    screenshots: Mapping[bytes, Sequence[str]] = field(default_factory=dict)
    traces: Mapping[bytes, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Unreadable:
    """A proof that is there and cannot be read. at: when it was made, seconds since 1970."""

    point_id: bytes
    proof_id: str
    at: float
    why: str


@dataclass(frozen=True)
class History:
    """Proofs of one point, newest first; what cannot be read is told beside them."""

    proofs: tuple[Proof, ...]
    unreadable: tuple[Unreadable, ...]


def put_proof(
    sealed: SealedStore,
    proof: Proof,
    screenshot: bytes | None = None,
    trace: Sequence[TracedRange] = (),
) -> Proof:
    """Store it with what belongs to it; the proof as it was stored.

    screenshot: a PNG of at most SCREENSHOT_MAX bytes. trace: behind RANGES_MAX it is cut. Raises
    UsageError for what no proof may hold, and what a store raises.
    """
    if not is_calendar_time(proof.at):
        raise UsageError("a proof of no time that a calendar knows")
    if screenshot is not None and (why := _refusal_of_png(screenshot)):
        raise UsageError(f"a proof's screenshot {why}")
    proof_id = _time_digits(proof.at) + secrets.token_hex(6)
    ranges = trace[:RANGES_MAX]
    size = 0 if screenshot is None else len(screenshot)
    stored = replace(tidied(proof), proof_id=proof_id, screenshot_size=size, ranges=len(ranges))
    # What is attached first: a proof never tells of a screenshot that is not there.
    if screenshot is not None:
        place = _place(proof.point_id, _SHOT + proof_id)
        box = seal_for_owner(sealed, place, screenshot)
        _put(sealed, stored, _SHOT, {"type": "image/png"}, box)
    if ranges:
        _put(sealed, stored, _TRACE, {"ranges": len(ranges)}, encode_trace(ranges))
    _put(sealed, stored, _PROOF, proof_facts(stored))
    return stored


def proof_names(sealed: SealedStore) -> ProofNames:
    """By one listing. Raises what a store raises."""
    found: dict[str, dict[bytes, list[str]]] = {_PROOF: {}, _SHOT: {}, _TRACE: {}}
    for name in sealed.names(Kind.NOTE):
        match = _NAME.fullmatch(name)
        if match is not None:
            point, topic, proof_id = match.groups()
            found[topic].setdefault(bytes.fromhex(point), []).append(proof_id)
    for of_topic in found.values():
        for ids in of_topic.values():
            ids.sort(reverse=True)
    return ProofNames(found[_PROOF], found[_SHOT], found[_TRACE])


def read_proof(sealed: SealedStore, point_id: bytes, proof_id: str) -> Proof:
    """Raises ObjectMissing, ObjectDamaged, UnknownFormat, StoreUnavailable."""
    topic = _PROOF + proof_id
    note = read_note(sealed, point_id, topic)
    if note is None:
        raise ObjectMissing(f"{_place(point_id, topic)} is not there")
    return _decoded(note)


def read_proofs(sealed: SealedStore, point_id: bytes) -> History:
    """The newest HISTORY_MAX of a point. Raises what listing a store raises."""
    ids = proof_names(sealed).proofs.get(point_id, ())
    return read_history(sealed, point_id, ids[:HISTORY_MAX])


def read_history(sealed: SealedStore, point_id: bytes, ids: Iterable[str]) -> History:
    """These proofs of a point, which are in order. Raises nothing: all is told in it."""
    found = _read_all(sealed, [(point_id, proof_id) for proof_id in ids])
    return History(
        tuple(one for one in found if isinstance(one, Proof)),
        tuple(one for one in found if isinstance(one, Unreadable)),
    )


def newest_proofs(
    sealed: SealedStore, among: Container[bytes] | None = None
) -> dict[bytes, Proof | Unreadable]:
    """The newest proof of each point that has one: one listing, one read for each.

    among: ids of points; None for all.

    An older one never stands in for one that cannot be read. Raises what listing a store raises.
    """
    names = [
        (point_id, ids[0])
        for point_id, ids in proof_names(sealed).proofs.items()
        if among is None or point_id in among
    ]
    return {one.point_id: one for one in _read_all(sealed, names)}


def read_screenshot(sealed: SealedStore, point_id: bytes, proof_id: str) -> bytes | None:
    """A PNG; None where the proof has none. Raises OwnerKeyNeeded with the agent credential,
    ObjectDamaged, UnknownFormat, StoreUnavailable."""
    note = read_note(sealed, point_id, _SHOT + proof_id)
    return None if note is None else _opened_screenshot(sealed, note)


def read_trace(sealed: SealedStore, point_id: bytes, proof_id: str) -> list[TracedRange] | None:
    """In reading order; None where the proof has none. Raises as `read_proof`."""
    note = read_note(sealed, point_id, _TRACE + proof_id)
    return None if note is None else decode_trace(note.content, _place_of(note))


def newest_trace(
    sealed: SealedStore, point_ids: Iterable[bytes]
) -> tuple[bytes, list[TracedRange]] | None:
    """The newest boot trace that any of these points has, and whose it is; None without one.

    For points of one VM: disks are known by number, so it fits the others as far as they are alike.
    Raises as `read_proof`.
    """
    traces = proof_names(sealed).traces
    newest = max(
        ((traces[point_id][0], point_id) for point_id in point_ids if point_id in traces),
        default=None,
    )
    if newest is None:
        return None
    proof_id, point_id = newest
    ranges = read_trace(sealed, point_id, proof_id)
    return None if ranges is None else (point_id, ranges)


def verify_proof_note(sealed: SealedStore, note: PointNote) -> None:
    """For a proof, a screenshot or a boot trace: is it one? Other notes are passed over.

    Raises ObjectDamaged. Without the owner's key a screenshot's content is not looked at.
    """
    match = _NAME.fullmatch(note_name(note.point_id, note.topic))
    if match is None:
        return
    if match[2] == _PROOF:
        _decoded(note)
    elif match[2] == _TRACE:
        decode_trace(note.content, _place_of(note))
    elif sealed.keyring.owner_private is not None:
        _opened_screenshot(sealed, note)
    else:
        check_box(_place_of(note), note.content)


def _read_all(sealed: SealedStore, names: Sequence[tuple[bytes, str]]) -> list[Proof | Unreadable]:
    """In their order, without those that vanished since they were listed."""

    def read(name: tuple[bytes, str]) -> Proof | Unreadable | None:
        point_id, proof_id = name
        try:
            return read_proof(sealed, point_id, proof_id)
        except ObjectMissing:
            return None
        except RepositoryError as error:
            return Unreadable(point_id, proof_id, made_at(proof_id), str(error))

    with ThreadPoolExecutor(_READERS) as threads:
        return [one for one in threads.map(read, names) if one is not None]


def made_at(proof_id: str) -> float:
    """Seconds since 1970, by the name alone; 0 where that is a time no calendar shows."""
    at = int(proof_id[:_TIME_DIGITS], 16) / 1000
    return at if is_calendar_time(at) else 0.0


def _put(
    sealed: SealedStore, proof: Proof, topic: str, facts: dict[str, Any], content: bytes = b""
) -> None:
    put_note(sealed, PointNote(proof.point_id, topic + proof.proof_id, proof.at, facts, content))


def _decoded(note: PointNote) -> Proof:
    """Raises ObjectDamaged."""
    what, proof_id = _place_of(note), note.topic.removeprefix(_PROOF)
    if not is_calendar_time(note.at) or _time_digits(note.at) != proof_id[:_TIME_DIGITS]:
        raise ObjectDamaged(f"{what}: is a proof of another time than its name says")
    return decode_proof(note, proof_id, what)


def _time_digits(at: float) -> str:
    return f"{int(at * 1000):0{_TIME_DIGITS}x}"


def _opened_screenshot(sealed: SealedStore, note: PointNote) -> bytes:
    place = _place_of(note)
    png = open_as_owner(sealed, place, note.content)
    if why := _refusal_of_png(png):
        raise ObjectDamaged(f"{place}: the screenshot {why}")
    return png


def _refusal_of_png(screenshot: bytes) -> str | None:
    if not screenshot.startswith(_PNG):
        return "is no PNG"
    if len(screenshot) > SCREENSHOT_MAX:
        return f"is larger than {SCREENSHOT_MAX} bytes"
    return None


def _place(point_id: bytes, topic: str) -> str:
    return object_key(Kind.NOTE, note_name(point_id, topic))


def _place_of(note: PointNote) -> str:
    return _place(note.point_id, note.topic)
