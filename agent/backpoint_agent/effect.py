"""An outside effect as the ledger has it, and the lines that tell its life.

Decides the form of an entry: one JSON object a line, effects named by number in every one of them,
so that a line means the same in whichever file of the ledger it stands. Knows no files.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

EffectKind = Literal[
    "snapshot",  # of a VM; facts: name (unique, ours), moref once known
    "freeze",  # a pre-freeze script ran; its post-thaw must; facts: program, arguments
    "change-tracking",  # was switched off to be reset, and must be on again
    "hotadd",  # a disk attached to the proxy VM; facts: proxy, file, device_key once known
    "export-lease",  # an HttpNfcLease; facts: moref once known
    "restored-machine",  # a VM that a restore is making; facts: name, folder, moref once known
    "restore-over",  # an existing VM whose disks are being overwritten
    "live-machine",  # a session, and the VM that runs from it; facts: see live/live_facts.py
    "live-datastore",  # an NFS datastore mounted for such VMs; facts: name, remote, host
]

LINE_MAX: Final = 64 << 10
"""Bytes of one line; a longer one is damage, and nobody has to hold more than this to read one."""

NUMBER: Final = re.compile(r"([0-9]{8}T[0-9]{6}Z-[0-9]{1,10}-[0-9a-f]{8})-([0-9]{1,9})")
"""An effect's number: the name of the file that it was intended in, and a count."""

LIVE_STATE: Final = "state"
"""Fact of a live-machine."""
LIVE_WANTED: Final = ("running", "migrating")
"""States in which it outlives its process because somebody wants it."""

_KINDS: Final = frozenset(get_args(EffectKind))


@dataclass(frozen=True)
class Effect:
    """One entry that is open. vm: moref; facts: texts that find the effect again.

    vcenter: `VCenter.uuid`. at: seconds since 1970.
    """

    number: str
    kind: EffectKind
    vcenter: str
    vm: str
    vm_name: str
    facts: dict[str, str]
    at: float

    @property
    def file_stem(self) -> str:
        """Name of the ledger file that it was intended in, without its suffix."""
        return self.number.rpartition("-")[0]

    @property
    def is_wanted(self) -> bool:
        """It is a VM that somebody works with, begun to the end: no leftover."""
        return self.kind == "live-machine" and self.facts.get(LIVE_STATE) in LIVE_WANTED


def left_over(effects: Iterable[Effect]) -> list[Effect]:
    """Those that are not wanted; a datastore is for as long as a VM on it is."""
    known = list(effects)
    used = {(e.vcenter, e.facts.get("datastore")) for e in known if e.is_wanted}
    return [
        effect
        for effect in known
        if not effect.is_wanted
        and not (
            effect.kind == "live-datastore"
            and (effect.vcenter, effect.facts.get("datastore")) in used
        )
    ]


@dataclass(frozen=True)
class Intended:
    """The effect is about to be asked for."""

    effect: Effect

    @property
    def number(self) -> str:
        return self.effect.number


@dataclass(frozen=True)
class Learned:
    """More facts of it became known."""

    number: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Closed:
    """It is gone. how: "removed", "was not there" ..."""

    number: str
    how: str
    at: float


@dataclass(frozen=True)
class LeftBehind:
    """Who made it has given it up: it is the reaper's, though that process may live."""

    number: str
    why: str
    at: float


Entry = Intended | Learned | Closed | LeftBehind


def encode_entry(entry: Entry) -> bytes:
    """The entry's line with its end. ValueError where it would be longer than LINE_MAX."""
    match entry:
        case Intended(effect):
            record: dict[str, Any] = {
                "entry": "intended",
                "number": effect.number,
                "kind": effect.kind,
                "vcenter": effect.vcenter,
                "vm": effect.vm,
                "vm_name": effect.vm_name,
                "facts": effect.facts,
                "at": effect.at,
            }
        case Learned(number, facts):
            record = {"entry": "learned", "number": number, "facts": facts}
        case Closed(number, how, at):
            record = {"entry": "closed", "number": number, "how": how, "at": at}
        case LeftBehind(number, why, at):
            record = {"entry": "left", "number": number, "why": why, "at": at}
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    if len(line) > LINE_MAX:
        raise ValueError(f"an entry of {len(line)} bytes")
    return line


def decode_entry(line: bytes) -> Entry:
    """The entry of a whole line. ValueError where it is none that this version knows."""
    if len(line) > LINE_MAX:
        raise ValueError("the line is too long")
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(record, dict):
        raise ValueError("no object")
    number = _text(record, "number")
    if not NUMBER.fullmatch(number):
        raise ValueError("no number")
    match record.get("entry"):
        case "intended":
            return Intended(_effect(number, record))
        case "learned":
            return Learned(number, _facts(record))
        case "closed":
            return Closed(number, _text(record, "how"), _time(record))
        case "left":
            return LeftBehind(number, _text(record, "why"), _time(record))
        case other:
            raise ValueError(f"an entry {other!r:.40}")


def _effect(number: str, record: dict[str, Any]) -> Effect:
    kind: Any = _text(record, "kind")
    if kind not in _KINDS:
        raise ValueError(f"a kind {kind!r:.40}")
    return Effect(
        number,
        kind,
        _text(record, "vcenter"),
        _text(record, "vm"),
        _text(record, "vm_name"),
        _facts(record),
        _time(record),
    )


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value


def _facts(record: dict[str, Any]) -> dict[str, str]:
    facts = record.get("facts")
    if not isinstance(facts, dict) or not all(isinstance(v, str) for v in facts.values()):
        raise ValueError("facts are no texts")
    return dict(facts)


def _time(record: dict[str, Any]) -> float:
    at = record.get("at")
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
        raise ValueError("at is no time")
    return float(at)
