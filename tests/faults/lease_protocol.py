"""The protocol of leases and trash (FORMAT.md 12, 13) as a model, and every interleaving of it.

Backups, collectors, a mount and who removes points take their steps in every order there is; a
lease may be taken for expired at any moment, and who stops for ever is the order in which others go
on alone. What is explored is what FORMAT.md says, not what the program does: that is for
`interleaving.py`. `without` names one rule that is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from faults.protocol_collector import Collector
from faults.protocol_reader import Mount
from faults.protocol_remover import Holder, Pruner
from faults.protocol_store import VOID, Store


class Actor(Protocol):
    """Somebody who uses the store. A value; hashable."""

    @property
    def over(self) -> bool: ...

    def steps(self, store: Store, without: str) -> Iterator[tuple[str, Store, Self]]: ...


class State(NamedTuple):
    """The store, and how far everybody is."""

    store: Store
    actors: tuple[Actor, ...]


@dataclass(frozen=True)
class Outcome:
    """problem: the promise that was broken first, "" for none; trace: the steps that led there."""

    states: int
    problem: str = ""
    trace: tuple[str, ...] = ()


def explore(first: State, without: str = "", states_max: int = 1 << 60) -> Outcome:
    """Every state that can be reached. Stops at the first that breaks a promise.

    Raises RuntimeError after `states_max` states: a model that grew beyond what was planned.
    """
    return _Exploration(without).run(first, states_max)


# A state by numbers: of the store, then of each actor. Few stores and few states of one actor make
# many states together, so what an actor does with a store is worked out once for all of them.
_Numbers = tuple[int, ...]
_Moves = list[tuple[str, int, int]]


class _Exploration:
    def __init__(self, without: str) -> None:
        self._without = without
        self._values: list[Store | Actor] = []
        self._numbers: dict[tuple[type, Store | Actor], int] = {}
        self._moves: dict[tuple[int, int], _Moves] = {}
        self._problems: dict[tuple[int, int], list[tuple[int, str]]] = {}

    def run(self, first: State, states_max: int) -> Outcome:
        """Depth first: broken rules show soon."""
        values: tuple[Store | Actor, ...] = (first.store, *first.actors)
        start = tuple(self._number(value) for value in values)
        came_from: dict[_Numbers, tuple[_Numbers, str]] = {start: (start, "")}
        todo = [start]
        while todo:
            state = todo.pop()
            for at in range(1, len(state)):
                for what, store, moved in self._moves_of(state[0], state[at]):
                    after = (store, *state[1:at], moved, *state[at + 1 :])
                    if after in came_from:
                        continue
                    came_from[after] = (state, f"{at}: {what}")
                    if problem := self._problem(after):
                        return Outcome(len(came_from), problem, _trace(came_from, after))
                    todo.append(after)
            if len(came_from) > states_max:
                raise RuntimeError(f"more than {states_max} states")
        return Outcome(len(came_from))

    def _number(self, value: Store | Actor) -> int:
        # Values of two classes may be equal as tuples.
        number = self._numbers.setdefault((type(value), value), len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def _moves_of(self, store_number: int, actor_number: int) -> _Moves:
        moves = self._moves.get((store_number, actor_number))
        if moves is None:
            store, actor = self._values[store_number], self._values[actor_number]
            assert isinstance(store, Store)
            assert not isinstance(actor, Store)
            moves = [
                (what, self._number(after), self._number(moved))
                for what, after, moved in actor.steps(store, self._without)
            ]
            self._moves[store_number, actor_number] = moves
        return moves

    def _problem(self, state: _Numbers) -> str:
        found = self._once(state[0], state[0])
        if found:
            # What is being removed was promised to nobody; it must be gone in the end.
            actors = [self._values[number] for number in state[1:]]
            removing = [actor.chosen for actor in actors if isinstance(actor, Pruner)]
            found = [row for row in found if row[0] not in removing]
        for number in state[1:]:
            found = found or self._once(state[0], number)
        return found[0][1] if found else ""

    def _once(self, store_number: int, number: int) -> list[tuple[int, str]]:
        problems = self._problems.get((store_number, number))
        if problems is None:
            store, value = self._values[store_number], self._values[number]
            assert isinstance(store, Store)
            if isinstance(value, Store):
                problems = [*_lost(store), *_left_over(store, self._without)]
            else:
                problems = _missed(store, value)
            self._problems[store_number, number] = problems
        return problems


def _lost(store: Store) -> list[tuple[int, str]]:
    """What points need and is not there."""
    there = {letter for pack in store.packs for letter in pack.holds}
    return [
        (session, f"point {session} has lost {''.join(sorted(set(letters) - there))}")
        for session, letters in sorted(store.points)
        if letters != VOID and not there.issuperset(letters)
    ]


def _missed(store: Store, actor: Actor) -> list[tuple[int, str]]:
    """What an actor was promised and is not there."""
    there = {letter for pack in store.packs for letter in pack.holds}
    if isinstance(actor, Mount) and not there.issuperset(actor.holds(store)):
        return [(0, f"what mount {actor.session} has open is gone")]
    if isinstance(actor, Holder) and not there.issuperset(actor.letters):
        return [(0, f"point {actor.point} was promised, and is gone")]
    return []


def _left_over(store: Store, without: str) -> list[tuple[int, str]]:
    """If all stopped for ever now: would two collectors, one after the other, leave what nobody
    needs? They take every lease for expired first."""
    for lease in store.leases:
        store = store.without_lease(lease.session).with_point(lease.session, VOID)
    for session in (90, 91):
        store = _collected(store, session, without)
    live = set(store.published())
    left = [pack.name for pack in store.packs if not live & set(pack.holds)]
    return [(0, f"pack {name} is never collected") for name in left]


def _collected(store: Store, session: int, without: str) -> Store:
    """By one collector that is alone, until it finds no epoch that it has not swept."""
    collector, swept = Collector(session, passes=8), set[int]()
    while not collector.over:
        steps = list(collector.steps(store, without))
        fresh = [step for step in steps if step[2].pc != "wait" or step[2].epoch not in swept]
        _, store, after = fresh[0] if fresh else ("", store, collector._replace(pc="finish"))
        if after.pc == "wait":
            swept.add(after.epoch)
        collector = after
    return store


def _trace(came_from: dict[_Numbers, tuple[_Numbers, str]], last: _Numbers) -> tuple[str, ...]:
    """The steps, each with the number of who took it, from 1."""
    steps, state = [], last
    while (step := came_from[state])[1]:
        steps.append(step[1])
        state = step[0]
    return tuple(reversed(steps))
