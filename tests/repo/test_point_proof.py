"""Proofs beside points: what they claim, that they come back, who may see which part."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpoint_repo.boot_trace import RANGES_MAX, TracedRange, decode_trace, encode_trace
from backpoint_repo.errors import ObjectDamaged, OwnerKeyNeeded, UsageError
from backpoint_repo.format import Kind
from backpoint_repo.owner_box import BOX_OVERHEAD, open_as_owner, seal_for_owner
from backpoint_repo.point_note import PointNote, put_note, read_note
from backpoint_repo.point_proof import (
    SCREENSHOT_MAX,
    Unreadable,
    made_at,
    newest_proofs,
    newest_trace,
    proof_names,
    put_proof,
    read_proofs,
    read_screenshot,
    read_trace,
)
from backpoint_repo.proof import LEVELS, Level, Proof, Step, proof_record
from backpoint_repo.proof_facts import proof_facts
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import NOON, as_agent, assert_clean, back_up, new_repository, reopened
from synthetic_disk import random_disk

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


@pytest.fixture
def repository() -> Repository:
    return new_repository(MemoryStore())


@pytest.fixture
def point_id(repository: Repository) -> bytes:
    return back_up(repository, "vm", random_disk(1 << 20, 1)).point_id


def proof_of(point_id: bytes, *good: bool, at: float = NOON) -> Proof:
    """One whose lowest steps ended like this."""
    steps = tuple(
        Step(level, ok, 1.5, f"{level.value} looked at", ("a note",))
        for level, ok in zip(LEVELS, good, strict=False)
    )
    return Proof(
        *(point_id, at, steps, "backpoint 1", "host", 6.25, "login:", 4.5, "tcg", ("slow",))
    )


@given(st.lists(st.booleans(), min_size=1, max_size=len(LEVELS)))
def test_a_proof_claims_no_more_than_was_done(good: list[bool]) -> None:
    """A level is proved only with all below it; one failed step makes a failed proof."""
    proof = proof_of(bytes(16), *good)
    assert proof.ok == all(good)
    assert proof.level is LEVELS[len(good) - 1]
    first_bad = good.index(False) if False in good else len(good)
    assert proof.proved_level is (LEVELS[first_bad - 1] if first_bad else None)
    assert proof.failed_level is (None if proof.ok else LEVELS[first_bad])
    assert ("FAILED" in proof.words) == (not proof.ok)


@pytest.mark.parametrize("levels", [(), ("data",), ("structure", "boot"), ("structure",) * 2])
def test_steps_left_out(levels: tuple[str, ...]) -> None:
    """Are refused: nobody can make a proof that skips a level."""
    steps = tuple(Step(Level(level), True, 0.0) for level in levels)
    with pytest.raises(ValueError, match="lowest up"):
        Proof(bytes(16), NOON, steps, "", "", 0.0)


def test_proofs_come_back_newest_first(repository: Repository, point_id: bytes) -> None:
    """Many of one point, good and failed alike; the newest of every point by one look."""
    other = back_up(repository, "other", random_disk(1 << 20, 2)).point_id
    put = [
        put_proof(repository.sealed, proof_of(of, *good, at=NOON + at))
        for at, of, good in (
            (3.0, point_id, (True, False)),
            (1.0, point_id, (True, True, True, True)),
            (2.0, other, (True,)),
            (2.0, point_id, (False,)),
        )
    ]
    sealed = reopened(repository).sealed
    assert read_proofs(sealed, point_id).proofs == (put[0], put[3], put[1])
    assert newest_proofs(sealed) == {point_id: put[0], other: put[2]}
    assert read_proofs(sealed, bytes(16)).proofs == ()
    assert made_at(put[0].proof_id) == NOON + 3.0
    assert_clean(repository)


def test_what_is_attached(repository: Repository, point_id: bytes) -> None:
    """Comes back; the agent credential reads the trace, and never the screenshot."""
    trace = [TracedRange(0, 4096 * at, 4096) for at in (7, 3, 5)]
    proof = put_proof(as_agent(repository).sealed, proof_of(point_id, True), PNG, trace)
    bare = put_proof(repository.sealed, proof_of(point_id, True, at=NOON + 1))
    sealed, agent = reopened(repository).sealed, as_agent(repository).sealed
    assert (proof.screenshot_size, proof.ranges) == (len(PNG), 3)
    assert (bare.screenshot_size, bare.ranges) == (0, 0)
    assert read_screenshot(sealed, point_id, proof.proof_id) == PNG
    assert read_trace(agent, point_id, proof.proof_id) == trace
    assert read_screenshot(agent, point_id, bare.proof_id) is None
    assert read_trace(sealed, point_id, bare.proof_id) is None
    assert newest_trace(sealed, [bytes(16), point_id]) == (point_id, trace)
    assert newest_trace(sealed, [bytes(16)]) is None
    with pytest.raises(OwnerKeyNeeded):
        read_screenshot(agent, point_id, proof.proof_id)
    note = read_note(agent, point_id, f"shot{proof.proof_id}")
    assert note is not None
    assert PNG[:16] not in note.content
    assert_clean(repository)


@pytest.mark.parametrize("png", [b"", b"GIF89a", PNG + bytes(SCREENSHOT_MAX)])
def test_odd_screenshots(repository: Repository, point_id: bytes, png: bytes) -> None:
    """Are refused before anything is written."""
    with pytest.raises(UsageError):
        put_proof(repository.sealed, proof_of(point_id, True), png)
    assert proof_names(repository.sealed).screenshots == {}


def test_texts_of_guests(repository: Repository, point_id: bytes) -> None:
    """Whatever a serial console says is stored, cut and as text."""
    wild = dataclasses.replace(proof_of(point_id, True), sign="\udc80" + "x" * 100_000)
    put_proof(repository.sealed, wild)
    [proof] = read_proofs(repository.sealed, point_id).proofs
    assert proof.sign.startswith("\\udc80xxx")
    assert len(proof.sign) < 10_000
    assert_clean(repository)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": []},
        {"steps": [{"level": "boot", "ok": True}]},
        {"steps": [{"level": "magic", "ok": True, "duration_s": 1.0, "detail": "", "notes": []}]},
        {"duration_s": -1.0},
        {"sign_s": 1e300},
        {"ranges": -1},
        {"screenshot_size": True},
        {"sign": "x" * 4097},
        {"warnings": ["x"] * 33},
        {"tool": None},
    ],
)
def test_a_proof_that_lies_is_told(
    repository: Repository, point_id: bytes, change: dict[str, Any]
) -> None:
    """It stands for the newest of its point as unreadable, hides no other one, and check tells."""
    old = put_proof(repository.sealed, proof_of(point_id, True))
    facts = proof_facts(proof_of(point_id, True)) | change
    name = f"{int(NOON * 1000) + 5:012x}" + "ab" * 6
    put_note(repository.sealed, PointNote(point_id, f"proof{name}", NOON + 0.005, facts))
    history = read_proofs(repository.sealed, point_id)
    assert history.proofs == (old,)
    assert [one.proof_id for one in history.unreadable] == [name]
    assert isinstance(newest_proofs(repository.sealed)[point_id], Unreadable)
    with pytest.raises(AssertionError):
        assert_clean(repository)


def test_a_moved_time(repository: Repository, point_id: bytes) -> None:
    """An old good proof under a newer name is damage."""
    facts = proof_facts(proof_of(point_id, True))
    name = f"{int(NOON * 1000) + 5000:012x}" + "ab" * 6
    put_note(repository.sealed, PointNote(point_id, f"proof{name}", NOON, facts))
    [told] = read_proofs(repository.sealed, point_id).unreadable
    assert "another time" in told.why


@pytest.mark.parametrize(
    ("topic", "content"),
    [("shot", b""), ("shot", bytes(BOX_OVERHEAD + 9)), ("trace", b"x"), ("trace", bytes(14))],
)
def test_attachments_that_lie(
    repository: Repository, point_id: bytes, topic: str, content: bytes
) -> None:
    """Check tells them."""
    put_note(
        repository.sealed, PointNote(point_id, f"{topic}{'0' * 24}", NOON, {}, content=content)
    )
    with pytest.raises(AssertionError):
        assert_clean(repository)


def test_a_moved_screenshot(repository: Repository, point_id: bytes) -> None:
    """The picture of one proof does not open as that of another."""
    first = put_proof(repository.sealed, proof_of(point_id, True), PNG)
    note = read_note(repository.sealed, point_id, f"shot{first.proof_id}")
    assert note is not None
    second = "0" * 24
    put_note(repository.sealed, dataclasses.replace(note, topic=f"shot{second}"))
    with pytest.raises(ObjectDamaged):
        read_screenshot(repository.sealed, point_id, second)


def test_other_notes_are_left_alone(repository: Repository, point_id: bytes) -> None:
    """Topics that only look alike, or that a later program knows, are no damage and no proofs."""
    for topic in ("proof", "proofs", "proofabc", "trace1", "mystery", "shot" + "g" * 24):
        put_note(repository.sealed, PointNote(point_id, topic, NOON, {"x": 1}, b"bytes"))
    assert newest_proofs(repository.sealed) == {}
    assert_clean(repository)


@settings(max_examples=50)
@given(
    st.lists(
        st.builds(
            TracedRange,
            st.integers(0, 65535),
            st.integers(0, (1 << 60) - (1 << 31)),
            st.integers(1, 1 << 31),
        )
    )
)
def test_traces_come_back(ranges: list[TracedRange]) -> None:
    """In their order."""
    assert decode_trace(encode_trace(ranges), "x") == ranges


def test_a_long_trace(repository: Repository, point_id: bytes) -> None:
    """Is cut, and small: a million bytes for 200,000 ranges."""
    trace = [TracedRange(0, at * 69632, 65536) for at in range(RANGES_MAX + 5)]
    proof = put_proof(repository.sealed, proof_of(point_id, True), trace=trace)
    assert read_trace(repository.sealed, point_id, proof.proof_id) == trace[:RANGES_MAX]
    sizes = [found.size for found in repository.sealed.store.list("notes/")]
    assert max(sizes) < 1 << 20


def test_boxes(repository: Repository) -> None:
    """An altered one does not open; none opens at another place."""
    box = seal_for_owner(repository.sealed, "here", b"content")
    assert open_as_owner(repository.sealed, "here", box) == b"content"
    for place, altered in (("there", box), ("here", box[:-1] + bytes([box[-1] ^ 1]))):
        with pytest.raises(ObjectDamaged):
            open_as_owner(repository.sealed, place, altered)


def test_the_record_tells_failure(point_id: bytes) -> None:
    """JSON says what was tried, what is proved and what failed."""
    record = proof_record(proof_of(point_id, True, True, False, True))
    assert (record["level"], record["proved_level"]) == ("boot", "data")
    assert (record["failed_level"], record["ok"]) == ("trees", False)
    assert [step["ok"] for step in record["steps"]] == [True, True, False, True]


def test_kinds_are_untouched(repository: Repository, point_id: bytes) -> None:
    """Proofs are notes: no object of another kind appears."""
    before = {found.key for found in repository.sealed.store.list("")}
    put_proof(repository.sealed, proof_of(point_id, True), PNG, [TracedRange(0, 0, 1)])
    new = {found.key for found in repository.sealed.store.list("")} - before
    assert len(new) == 3
    assert all(key.startswith("notes/") for key in new)
    assert len(list(repository.sealed.names(Kind.NOTE))) == 3
