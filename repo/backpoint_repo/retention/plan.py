"""Which points are kept and which go, each with the reason: a pure function of points and rules.

Backups and what live sessions committed are judged apart, each VM by itself, so that no branch
takes a backup's place. Never to go: a point in the future, the newest of its VM, one that is held
or younger than the minimum age, the newest with a good proof. Knows no store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Final

from backpoint_repo.catalog import PointSummary
from backpoint_repo.policy import age_text
from backpoint_repo.retention.rules import Rules
from backpoint_repo.retention.succession import LATER, Succession, is_future

FUTURE: Final = "its time is in the future"
NEWEST: Final = "newest of its VM"
NEWEST_PROVEN: Final = "newest proven"
NO_RULE: Final = "no rule keeps it"
MADE: Final = attrgetter("generation", "created", "point_id")
"""By who stands on whom: the order that clocks cannot spoil."""

Reasons = Iterator[tuple[bytes, str]]
"""Ids of points, each with one reason to keep it."""


@dataclass(frozen=True)
class Verdict:
    """reasons: why it is kept, all of them; or why it is not."""

    point: PointSummary
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Guards:
    """What else is known. proven: ids of points whose newest proof is good. spared: by id, why
    points must stay whatever the rules say."""

    proven: Collection[bytes] = frozenset()
    spared: Mapping[bytes, Sequence[str]] = field(default_factory=dict)


def plan_retention(
    points: Iterable[PointSummary],
    rules: Rules,
    now: float,
    min_age_s: float,
    guards: Guards | None = None,
) -> list[Verdict]:
    """A verdict on each point, by VM, backups before branches, by time.

    now: seconds since 1970. With a clock that is slow more is kept; one that is fast makes the
    minimum age shorter and changes nothing else, because no rule counts from it.
    """
    groups: dict[tuple[str, bool], list[PointSummary]] = {}
    for point in sorted(points, key=LATER):
        groups.setdefault((point.vm, point.branch), []).append(point)
    guards = guards or Guards()
    verdicts = []
    for (vm, branch), group in sorted(groups.items()):
        past = [point for point in group if not is_future(point, now)]
        has_backups = branch and (vm, False) in groups
        found: dict[bytes, list[str]] = {point.point_id: [] for point in group}
        for point_id, reason in chain(
            ((point.point_id, FUTURE) for point in group if is_future(point, now)),
            _by_rules(past, rules),
            () if has_backups else _newest(past),
            _newest_proven(past, guards.proven),
            _spared(group, guards.spared),
            _too_young(past, now, min_age_s),
        ):
            found[point_id].append(reason)
        verdicts += [_verdict(point, found[point.point_id]) for point in group]
    return verdicts


def kept_by_any(plans: Sequence[Sequence[Verdict]]) -> list[Verdict]:
    """One plan of several for the same points: what one of them keeps is kept."""
    joined = []
    for verdicts in zip(*plans, strict=True):
        kept = [reason for one in verdicts if one.keep for reason in one.reasons]
        joined.append(_verdict(verdicts[0].point, list(dict.fromkeys(kept))))
    return joined


def newest_first(points: Iterable[PointSummary], now: float) -> list[PointSummary]:
    """Those that are not in the future: in this order a good proof is looked for."""
    return sorted((p for p in points if not is_future(p, now)), key=LATER, reverse=True)


def _verdict(point: PointSummary, kept: list[str]) -> Verdict:
    return Verdict(point, bool(kept), tuple(kept) or (NO_RULE,))


def _by_rules(past: list[PointSummary], rules: Rules) -> Reasons:
    succession = Succession(past)
    calendar = [
        (name, wanted, succession.buckets(bucket)) for name, wanted, bucket in rules.buckets
    ]
    within = f"within {age_text(rules.within_s)} of the newest"
    for point in past:
        first_after = succession.first_after(point)
        rank: int | None = succession.count_from(first_after) + 1
        if rank is not None and rank <= rules.last:
            yield point.point_id, f"last {rank} of {rules.last}"
        for name, wanted, places in calendar:
            rank = places.rank(point, first_after)
            if rank is not None and rank <= wanted:
                yield point.point_id, f"{name} {rank} of {wanted}"
        # Counted from the newest point, not from now: where backups have stopped, or a clock is
        # fast, time alone makes nothing go.
        since = succession.newest_time - rules.within_s
        unfollowed = succession.count_from(first_after) == 0
        if rules.within_s and (unfollowed or max(point.time, point.created) >= since):
            yield point.point_id, within


def _newest(past: list[PointSummary]) -> Reasons:
    """The one that shows the latest moment, and the one that was made last: the next backup stands
    on it. They differ only where a clock was wrong, and nobody can tell which."""
    if past:
        for point_id in dict.fromkeys((past[-1].point_id, max(past, key=MADE).point_id)):
            yield point_id, NEWEST


def _newest_proven(past: list[PointSummary], proven: Collection[bytes]) -> Reasons:
    found = [point.point_id for point in past if point.point_id in proven]
    yield from ((point_id, NEWEST_PROVEN) for point_id in found[-1:])


def _spared(group: list[PointSummary], spared: Mapping[bytes, Sequence[str]]) -> Reasons:
    for point in group:
        yield from ((point.point_id, reason) for reason in spared.get(point.point_id, ()))


def _too_young(past: list[PointSummary], now: float, min_age_s: float) -> Reasons:
    for point in past:
        if max(0.0, now - max(point.time, point.created)) < min_age_s:
            yield point.point_id, f"younger than {age_text(min_age_s)}, the minimum age"
