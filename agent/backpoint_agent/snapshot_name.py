"""How our snapshots are named, so that they are told from everybody else's.

The name carries the ledger's number of the effect, which no other snapshot ever has; the
description says whose it is to people, and to an agent whose ledger is lost. Both come back from
vCenter, where anybody may have written them: neither proves anything alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Final

from backpoint_agent.effect import NUMBER

_PREFIX: Final = "backpoint-"
_MAKER: Final = "backpoint"
_DESCRIPTION_MAX: Final = 4096
_TEXT_MAX: Final = 128


@dataclass(frozen=True)
class SnapshotMark:
    """What a description says. at: seconds since 1970 by the clock of `host`."""

    host: str
    run: str
    at: float


def make_name(number: str) -> str:
    """Name of the snapshot whose ledger entry has this number."""
    return _PREFIX + number


def parse_name(name: str) -> str | None:
    """The ledger's number, or None where the name is not one of ours."""
    number = name.removeprefix(_PREFIX)
    return number if number != name and NUMBER.fullmatch(number) else None


def make_description(mark: SnapshotMark) -> str:
    """The description of a snapshot of ours."""
    host, run = mark.host[:_TEXT_MAX], mark.run[:_TEXT_MAX]
    return json.dumps({"by": _MAKER, "host": host, "run": run, "at": mark.at})


def parse_description(text: str) -> SnapshotMark | None:
    """What the description says, or None where it is not one of ours."""
    if len(text) > _DESCRIPTION_MAX:
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("by") != _MAKER:
        return None
    host, run, at = record.get("host"), record.get("run"), record.get("at")
    if not isinstance(host, str) or not isinstance(run, str):
        return None
    if isinstance(at, bool) or not isinstance(at, int | float):
        return None
    try:
        at = float(at)
    except OverflowError:
        return None
    if not math.isfinite(at):
        return None
    return SnapshotMark(host[:_TEXT_MAX], run[:_TEXT_MAX], at)
