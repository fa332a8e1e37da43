"""What was promised of points: which must stand, which somebody may have removed, what they hold.

A point that a command reported is promised. A removal that runs threatens what it may remove; a
hold that was granted ends all threats. Decides whether a promise is broken; asks nobody else.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from faults.thrash_disks import State


class Broken(Exception):
    """A promise was broken."""


@dataclass
class Promise:
    """A point. holders: whose hold was granted. threats: removals that may have taken it. gone: a
    removal said so."""

    point_id: str
    state: State
    holders: set[str] = field(default_factory=set)
    threats: set[int] = field(default_factory=set)
    gone: bool = False

    @property
    def selector(self) -> str:
        return f"{self.state.vm}@{self.point_id[:16]}"


class Promises:
    """Thread-safe."""

    def __init__(self) -> None:
        self._points: dict[str, Promise] = {}
        self._removals: dict[int, str | None] = {}
        self._killed: dict[int, str | None] = {}
        self._removed_unknown: set[str] = set()
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def published(self, point_id: str, state: State, holder: str = "") -> None:
        """It may have been there for a while: removals may know of it already."""
        with self._lock:
            promise = self._points.setdefault(point_id, Promise(point_id, state))
            if holder:
                promise.holders.add(holder)
            else:
                promise.threats |= self._running(state.vm) | _of(self._killed, state.vm)
            if point_id in self._removed_unknown:
                if holder:
                    raise Broken(f"{promise.selector} was removed, although {holder} holds it")
                promise.gone = True

    def choose(self, rng: random.Random) -> Promise | None:
        """One that may be there."""
        with self._lock:
            there = [promise for promise in self._points.values() if not promise.gone]
            return rng.choice(there) if there else None

    def find(self, point_id: str) -> Promise | None:
        with self._lock:
            return self._points.get(point_id)

    def standing(self) -> list[Promise]:
        """All that may be there."""
        with self._lock:
            return [promise for promise in self._points.values() if not promise.gone]

    def may_be_gone(self, point_id: str) -> bool:
        with self._lock:
            promise = self._points[point_id]
            return promise.gone or bool(promise.threats)

    def begin_removal(self, vm: str | None) -> int:
        """Of points of this VM, or of all; its number."""
        with self._lock:
            number = next(self._numbers)
            self._removals[number] = vm
            for promise in self._points.values():
                if vm in (None, promise.state.vm) and not promise.holders and not promise.gone:
                    promise.threats.add(number)
            return number

    def end_removal(self, number: int, removed: Collection[str] | None) -> None:
        """removed: what it reported; None where it was killed. Raises Broken."""
        with self._lock:
            vm = self._removals.pop(number)
            if removed is None:
                self._killed[number] = vm
            for point_id in removed or ():
                promise = self._points.get(point_id)
                if promise is None:
                    # Its backup has not ended yet, or was killed after it had published.
                    self._removed_unknown.add(point_id)
                    continue
                if number not in promise.threats:
                    raise Broken(f"a prune removed {promise.selector}, which is held")
                promise.gone = True
            if removed is not None:
                for promise in self._points.values():
                    promise.threats.discard(number)

    def held(self, point_id: str, holder: str) -> None:
        """From now on nobody may remove it. Raises Broken."""
        with self._lock:
            promise = self._points[point_id]
            if promise.gone:
                raise Broken(f"{promise.selector} was held after it had been removed")
            promise.holders.add(holder)
            promise.threats.clear()

    def let_go(self, point_id: str, holder: str) -> None:
        """A hold is about to be dropped."""
        with self._lock:
            promise = self._points[point_id]
            promise.holders.discard(holder)
            if not promise.holders:
                promise.threats |= self._running(promise.state.vm)

    def settle(self, listed: Mapping[str, str], states: Mapping[str, State]) -> Iterable[State]:
        """Nobody works now, and these points are there, id -> label: what is known becomes certain.

        The states of points that are gone. Raises Broken.
        """
        with self._lock:
            for point_id, label in listed.items():
                if point_id not in self._points:
                    self._points[point_id] = Promise(point_id, states[label])
            dropped = []
            for point_id, promise in list(self._points.items()):
                if point_id in listed and promise.gone:
                    raise Broken(f"{promise.selector} was removed and is there again")
                if point_id not in listed:
                    if not promise.gone and not promise.threats:
                        raise Broken(f"{promise.selector} is gone, and nobody may have removed it")
                    dropped.append(self._points.pop(point_id).state)
                promise.threats.clear()
            self._killed.clear()
            self._removed_unknown.clear()
            return dropped

    def _running(self, vm: str) -> set[int]:
        return _of(self._removals, vm)


def _of(removals: Mapping[int, str | None], vm: str) -> set[int]:
    return {number for number, of in removals.items() if of in (None, vm)}
