"""Which interleavings are run: all with few preemptions, or random ones by a seed.

A preemption takes the turn from an actor that could go on; whoever pauses or ends gives it away for
nothing. Most races need one or two (that is what is known of real programs), and their number stays
small. Knows no actors.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from faults.interleaving import PAUSE, Chooser, Decision

Preemptions = tuple[tuple[int, str], ...]
"""(number of the step, who takes the turn), rising."""


@dataclass
class Preempting:
    """Goes on with whoever went last, but at the steps named. At a pause the next one in the order
    of `ready` has its turn."""

    preemptions: Preemptions
    step: int = 0

    def __call__(self, ready: Mapping[str, str], last: str) -> tuple[str, bool]:
        forced = dict(self.preemptions).get(self.step)
        self.step += 1
        if forced is not None:
            return forced, False
        return usual(ready, last), False


def usual(ready: Mapping[str, str], last: str) -> str:
    """Whoever goes on when nobody interferes."""
    names = list(ready)
    if last in ready and ready[last] != PAUSE:
        return last
    awake = [name for name in names if name != last and ready[name] != PAUSE]
    return (awake or [name for name in names if name != last] or names)[0]


def all_preemptions(
    run: Callable[[Chooser], Sequence[Decision]],
    most: int,
    matters: Callable[[str], bool],
) -> int:
    """Run every schedule with at most so many preemptions; returns how many there are.

    matters: calls before which a switch can make a difference. Also every order in which actors
    begin, which costs no preemption.
    """
    todo: list[Preemptions] = [()]
    count = 0
    while todo:
        preemptions = todo.pop()
        decisions = run(Preempting(preemptions))
        count += 1
        if _costs(preemptions) < most:
            todo.extend(_children(preemptions, decisions, matters))
    return count


def _costs(preemptions: Preemptions) -> int:
    return sum(1 for step, _ in preemptions if step)


def _children(
    preemptions: Preemptions, decisions: Sequence[Decision], matters: Callable[[str], bool]
) -> Iterator[Preemptions]:
    first = preemptions[-1][0] + 1 if preemptions else 0
    for step in range(first, len(decisions)):
        decision = decisions[step]
        if step and not matters(decision.ready[decision.chosen]):
            continue
        for name in decision.ready:
            if name != decision.chosen:
                yield (*preemptions, (step, name))


@dataclass
class Wandering:
    """Random, by a seed. restless: how likely a switch is at each step. deaths: who may crash, each
    with this likelihood at each step. choices: what it did, to be replayed."""

    seed: int
    restless: float = 0.1
    deaths: Mapping[str, float] = field(default_factory=dict)
    choices: list[tuple[str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def __call__(self, ready: Mapping[str, str], last: str) -> tuple[str, bool]:
        stays = last in ready and ready[last] != PAUSE and self._random.random() > self.restless
        name = last if stays else self._random.choice(list(ready))
        crash = self._random.random() < self.deaths.get(name, 0.0)
        self.choices.append((name, crash))
        return name, crash


@dataclass
class Replayed:
    """The choices of an earlier run; then the usual."""

    choices: Sequence[tuple[str, bool]]
    step: int = 0

    def __call__(self, ready: Mapping[str, str], last: str) -> tuple[str, bool]:
        self.step += 1
        if self.step <= len(self.choices) and self.choices[self.step - 1][0] in ready:
            return self.choices[self.step - 1]
        return usual(ready, last), False
