"""What a repository asks of everybody who works on it: how long points must stay, and its parity.

Policy objects are only ever added. The longest minimum age of all of them counts, so it can be
raised and never lowered; of the parity schemes the one set last. What a minimum age means for a
point is for `retention/`, what a scheme means for packs is for `parity/`.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat, UsageError
from backpoint_repo.format import Kind, object_key
from backpoint_repo.point import is_calendar_time
from backpoint_repo.record import Record, encode_record
from backpoint_repo.sealed_store import SealedStore

MIN_AGE_MAX_S: Final = 100 * 365 * 86400.0
"""A century: whatever is longer was a slip or malice, and could never be taken back."""
DATA_MAX: Final = 100
SPARE_MAX: Final = 20
_STUCK: Final = (
    "it may ask that points stay, so none is removed before it is put back from a copy of the "
    "repository, or deleted and `backpoint protect` told anew"
)
_NAME: Final = re.compile(r"[0-9a-f]{32}")
_PARITY: Final = re.compile(r"(\d{1,3})\+(\d{1,3})", re.ASCII)


@dataclass(frozen=True)
class Policy:
    """min_age_s: seconds that a point must stay. parity: packs of a group with data, and spare ones
    made for it; None without parity."""

    min_age_s: float = 0.0
    parity: tuple[int, int] | None = None


@dataclass(frozen=True)
class PolicyObject:
    """One that is stored. set: by the clock of who put it, seconds since 1970."""

    name: str
    policy: Policy
    set: float


def read_policy(sealed: SealedStore) -> Policy:
    """What holds now; without any object nothing is asked.

    Raises ObjectDamaged and UnknownFormat where one object cannot be read: it might ask for more.
    """
    return _joined(read_policy_objects(sealed))


def read_policy_objects(sealed: SealedStore) -> list[PolicyObject]:
    """All of them, by the time they were set. Raises as `read_policy`."""
    found = []
    for name in sealed.names(Kind.POLICY):
        if not _NAME.fullmatch(name):
            continue
        try:
            record = sealed.get_record(Kind.POLICY, name)
        except ObjectMissing:
            continue  # by somebody's own hand: no program deletes one
        except (ObjectDamaged, UnknownFormat) as error:
            raise type(error)(f"{error}; {_STUCK}") from error
        found.append(_decoded(record, name))
    return sorted(found, key=lambda one: (one.set, one.name))


def put_policy(sealed: SealedStore, policy: Policy, clock: Callable[[], float]) -> Policy:
    """Add one; what holds then: its parity, and the longest minimum age of all.

    Raises UsageError for what no policy may say, and as `read_policy` and `SealedStore.put`.
    """
    checked(policy)
    there = read_policy_objects(sealed)
    # After all others whatever the clocks did: the one set last decides on parity.
    at = max([clock(), *(math.nextafter(one.set, math.inf) for one in there)])
    parity = None if policy.parity is None else list(policy.parity)
    fields = {"min_age_s": float(policy.min_age_s), "parity": parity, "set": at}
    sealed.put(Kind.POLICY, secrets.token_hex(16), encode_record(fields))
    return _joined([*there, PolicyObject("", policy, at)])


def parse_parity(text: str) -> tuple[int, int]:
    """`10+2`: 10 packs with data, 2 spare. Raises UsageError."""
    match = _PARITY.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no parity; write it like 10+2: packs with data + spare")
    parity = int(match[1]), int(match[2])
    checked(Policy(parity=parity))
    return parity


def checked(policy: Policy) -> Policy:
    """The same. Raises UsageError for what no policy may say."""
    if why := _refusal(policy):
        raise UsageError(why)
    return policy


def age_text(seconds: float) -> str:
    """`14d`, `36h`, `90s`: as `sizes.parse_duration` reads it, where it is whole."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


def _joined(objects: Sequence[PolicyObject]) -> Policy:
    """objects: by the time they were set."""
    if not objects:
        return Policy()
    return Policy(max(one.policy.min_age_s for one in objects), objects[-1].policy.parity)


def _refusal(policy: Policy) -> str:
    if not 0 <= policy.min_age_s <= MIN_AGE_MAX_S:  # also what is not a number
        return "a minimum age is from 0 to 100 years"
    if policy.parity is not None:
        data, spare = policy.parity
        if not (1 <= data <= DATA_MAX and 1 <= spare <= SPARE_MAX):
            return f"parity is 1 to {DATA_MAX} packs with data and 1 to {SPARE_MAX} spare ones"
    return ""


def _decoded(record: Record, name: str) -> PolicyObject:
    what = object_key(Kind.POLICY, name)
    parity: tuple[int, int] | None = None
    if record.optional("parity", list) is not None:
        packs = record.items("parity", int)
        if len(packs) != 2:
            raise ObjectDamaged(f"{what}: a parity of {len(packs)} numbers")
        parity = packs[0], packs[1]
    policy = Policy(record.get("min_age_s", float), parity)
    if why := _refusal(policy):
        raise ObjectDamaged(f"{what}: {why}")
    at = record.get("set", float)
    if not is_calendar_time(at + 1):  # or nothing could be set after it
        raise ObjectDamaged(f"{what}: was set at no time that a calendar knows")
    return PolicyObject(name, policy, at)
