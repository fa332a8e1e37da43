"""Which point a user means by `VM@POINT`: latest, a time prefix, an index or an id prefix.

Pure: decides over a list of summaries. An ambiguous selector is refused with its candidates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import UsageError

LATEST: Final = "latest"
_SHOWN_MAX: Final = 10
_INDEX: Final = re.compile(r"[+-]?\d{1,3}")
_TIME: Final = re.compile(r"\d{4}(-\d{2}(-\d{2}([T ].*)?)?)?")
_ID: Final = re.compile(r"[0-9a-f]{4,32}")


def format_time(seconds: float) -> str:
    """`2026-11-20T02-00-00Z`: UTC, sortable, and a file name on every system."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")


def select_point(points: Sequence[PointSummary], selector: str) -> PointSummary:
    """The one point that `VM@POINT` names; without `@` the latest of the VM.

    `points` as the catalogue sorts them. Raises UsageError where none or several match.
    """
    names = {point.vm for point in points}
    vm, at, which = selector.rpartition("@")
    if not at or (vm not in names and selector in names):  # a VM's own name may hold an @
        vm, which = selector, LATEST
    # Points of one moment have the order in which they were made, whatever the clock did.
    own = sorted((p for p in points if p.vm == vm), key=lambda p: (p.time, p.generation, p.created))
    if not own:
        known = ", ".join(sorted(names)[:_SHOWN_MAX]) + (", ..." if len(names) > _SHOWN_MAX else "")
        raise UsageError(f"no points of a VM named {vm!r}; there are: {known or 'none at all'}")
    return _pick(own, which, vm)


def _pick(own: Sequence[PointSummary], which: str, vm: str) -> PointSummary:
    if which in ("", LATEST):
        return own[-1]
    found = _by_index(own, which) or _by_time(own, which) + [
        point for point in own if _ID.fullmatch(which) and point.point_id.hex().startswith(which)
    ]
    unique = list(dict.fromkeys(found))
    if len(unique) == 1:
        return unique[0]
    shown = unique or list(own)
    lines = "; ".join(
        f"{format_time(point.time)} ({point.point_id.hex()[:8]})" for point in shown[-_SHOWN_MAX:]
    )
    problem = "is ambiguous" if unique else "names no point"
    raise UsageError(f"{vm}@{which} {problem}; candidates: {lines}")


def _by_index(own: Sequence[PointSummary], which: str) -> list[PointSummary]:
    """-1 is the newest, 0 the oldest."""
    if not _INDEX.fullmatch(which):
        return []
    index = int(which)
    return [own[index]] if -len(own) <= index < len(own) else []


def _by_time(own: Sequence[PointSummary], which: str) -> list[PointSummary]:
    if not _TIME.fullmatch(which):
        return []
    # 2026-11-20 02:00 and 2026-11-20T02-00 mean the same.
    wanted = which.replace(" ", "T").replace(":", "-")
    return [point for point in own if format_time(point.time).startswith(wanted)]
