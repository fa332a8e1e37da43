"""Proofs beside their points: any number for each point, each written once and never changed.

Decides how proofs are named, so that one listing tells the newest of every point. A proof is a
note; its screenshot (for the owner's eyes: it shows the guest) and its boot trace are notes of
their own, so that reading proofs stays cheap.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

from backpoint_repo.boot_trace import TracedRange, decode_trace, encode_trace
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UsageError
from backpoint_repo.format import Kind, object_key
from backpoint_repo.owner_box import check_box, open_as_owner, seal_for_owner
from backpoint_repo.point import POINT_ID_SIZE, is_calendar_time
from backpoint_repo.point_note import PointNote, note_name, put_note, read_note
from backpoint_repo.proof import Level, Proof, Step
from backpoint_repo.record import Record
from backpoint_repo.sealed_store import SealedStore

SCREENSHOT_MAX: Final = 4 << 20
HISTORY_MAX: Final = 100
"""Proofs of one point that are read at once: a year of drills twice a week."""
_PROOF: Final = "proof"
_SHOT: Final = "shot"
_TRACE: Final = "trace"
_NAME: Final = re.compile(r"([0-9a-f]{32})-(proof|shot|trace)([0-9a-f]{24})")
_TIME_DIGITS: Final = 12
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_TEXT_MAX: Final = 4096
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

    screenshot: a PNG of at most SCREENSHOT_MAX bytes. Raises UsageError, and what a store raises.
    """
    raise NotImplementedError


def proof_names(sealed: SealedStore) -> ProofNames:
    """By one listing. Raises what a store raises."""
    raise NotImplementedError


def read_proof(sealed: SealedStore, point_id: bytes, proof_id: str) -> Proof:
    """Raises ObjectMissing, ObjectDamaged, UnknownFormat, StoreUnavailable."""
    raise NotImplementedError


def read_proofs(sealed: SealedStore, point_id: bytes) -> History:
    """The newest HISTORY_MAX of a point. Raises what listing a store raises."""
    raise NotImplementedError


def newest_proofs(sealed: SealedStore) -> dict[bytes, Proof | Unreadable]:
    """The newest proof of each point that has one: one listing, one read for each.

    An older one never stands in for one that cannot be read. Raises what listing a store raises.
    """
    raise NotImplementedError


def read_screenshot(sealed: SealedStore, point_id: bytes, proof_id: str) -> bytes | None:
    """A PNG; None where the proof has none. Raises OwnerKeyNeeded with the agent credential,
    ObjectDamaged, UnknownFormat, StoreUnavailable."""
    raise NotImplementedError


def read_trace(sealed: SealedStore, point_id: bytes, proof_id: str) -> list[TracedRange] | None:
    """In reading order; None where the proof has none. Raises as `read_proof`."""
    raise NotImplementedError


def newest_trace(
    sealed: SealedStore, point_ids: Iterable[bytes]
) -> tuple[bytes, list[TracedRange]] | None:
    """The newest boot trace that any of these points has, and whose it is; None without one.

    For points of one VM: disks are known by number, so it fits the others as far as they are alike.
    Raises as `read_proof`.
    """
    raise NotImplementedError
