"""A proof as the facts of a note, and back: what must be there before anyone believes it.

Knows no store; when a proof was made and which one it is, its note's name says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from backpoint_repo.capture import Capture
from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.point_note import PointNote
from backpoint_repo.proof import Level, Proof, Step
from backpoint_repo.record import Record

_TEXT_MAX: Final = 4096
_TEXTS_MAX: Final = 32
_DURATION_MAX_S: Final = 1e9


def tidied(proof: Proof) -> Proof:
    """As it can be stored. Texts come from guests and programs: bounded, and text in any case."""
    steps = tuple(
        replace(step, detail=_text(step.detail), notes=_texts(step.notes)) for step in proof.steps
    )
    return replace(
        proof,
        steps=steps,
        sign=_text(proof.sign),
        host=_text(proof.host),
        accelerator=_text(proof.accelerator),
        tool=_text(proof.tool),
        warnings=_texts(proof.warnings),
    )


def proof_facts(proof: Proof) -> Capture:
    """The facts of the note."""
    return {
        "steps": [
            {
                "level": step.level.value,
                "ok": step.ok,
                "duration_s": float(step.duration_s),
                "detail": step.detail,
                "notes": list(step.notes),
            }
            for step in proof.steps
        ],
        "duration_s": float(proof.duration_s),
        "sign": proof.sign,
        "sign_s": None if proof.sign_s is None else float(proof.sign_s),
        "accelerator": proof.accelerator,
        "warnings": list(proof.warnings),
        "tool": proof.tool,
        "host": proof.host,
        "screenshot_size": proof.screenshot_size,
        "ranges": proof.ranges,
    }


def decode_proof(note: PointNote, proof_id: str, what: str) -> Proof:
    """Undo `proof_facts`. what: names the object. Raises ObjectDamaged."""
    facts = Record(note.facts, what)
    try:
        proof = Proof(
            note.point_id,
            note.at,
            tuple(_decoded_step(step) for step in facts.records("steps")),
            facts.get("tool", str),
            facts.get("host", str),
            _duration(facts.get("duration_s", float)),
            facts.get("sign", str),
            None if (sign_s := facts.optional("sign_s", float)) is None else _duration(sign_s),
            facts.get("accelerator", str),
            tuple(facts.items("warnings", str)),
            proof_id,
            facts.natural("screenshot_size"),
            facts.natural("ranges"),
        )
        if tidied(proof) != proof:
            raise ValueError("it is longer than any")
    except ValueError as error:
        raise ObjectDamaged(f"{what}: is no proof: {error}") from error
    return proof


def _decoded_step(record: Record) -> Step:
    """Raises ObjectDamaged; ValueError for a level that there is not."""
    return Step(
        Level(record.get("level", str)),
        record.get("ok", bool),
        _duration(record.get("duration_s", float)),
        record.get("detail", str),
        tuple(record.items("notes", str)),
    )


def _duration(seconds: float) -> float:
    if not 0 <= seconds <= _DURATION_MAX_S:
        raise ValueError("a duration that no proof has")
    return seconds


def _text(text: str) -> str:
    return text[:_TEXT_MAX].encode("utf-8", "backslashreplace").decode()[:_TEXT_MAX]


def _texts(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(_text(text) for text in texts[:_TEXTS_MAX])
