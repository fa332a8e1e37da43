"""Several actors on one store, one at a time: who goes on is chosen before every call of the store.

Each actor is a function in a thread of its own, on a store that asks for its turn first. A run is
told by its choices and repeats itself. Decides nothing about what actors do (`actors.py`) or which
runs are worth it (`schedules.py`).
"""

from __future__ import annotations

import random
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from backpoint_repo.errors import StoreUnavailable
from backpoint_repo.store.contract import Piece, Store, StoredObject, Tail

_HANGS_S: Final = 120.0
PAUSE: Final = "pause"


class Listing(Enum):
    """How a folder is listed: in one step; or in two, from the first name on or from the last."""

    WHOLE = "whole"
    HALVES = "halves"
    BACKWARDS = "backwards"


class Crashed(BaseException):
    """Ends the threads of an actor that is never scheduled again; no handler stands in its way."""


@dataclass
class _Seat:
    """arrived: released by the actor when it wants a turn, or has ended."""

    waiting: deque[tuple[str, threading.Semaphore]] = field(default_factory=deque)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    dead: bool = False
    result: object = None


class Turns:
    """Hands out turns. calls: what was called so far, (actor, call)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._seats = {name: _Seat() for name in names}
        self.calls: list[tuple[str, str]] = []

    def take(self, name: str, call: str) -> None:
        """Wait for the next turn. Raises Crashed once the actor has crashed."""
        seat = self._seats[name]
        if not seat.dead:
            granted = threading.Semaphore(0)
            seat.waiting.append((call, granted))
            seat.arrived.release()
            granted.acquire()
        if seat.dead:
            if threading.current_thread().name == "lease":
                # It has no caller who could end it; to it the store is just gone.
                raise StoreUnavailable("its actor has crashed")
            raise Crashed

    def start(self, name: str, work: Callable[[], object]) -> threading.Thread:
        """An actor that waits for its first turn."""
        seat = self._seats[name]

        def run() -> None:
            try:
                self.take(name, "begin")
                seat.result = work()
            except Crashed as crash:
                seat.result = crash
            except Exception as error:  # judged by whoever looks at the results
                seat.result = error
            finally:
                seat.arrived.release()

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self._await(seat)
        return thread

    def ready(self) -> dict[str, str]:
        """Actors that have not ended: the call each is about to make."""
        return {name: seat.waiting[0][0] for name, seat in self._seats.items() if seat.waiting}

    def step(self, name: str) -> None:
        """Let the actor make its call, and go on until it wants to make the next."""
        call, granted = self._seats[name].waiting.popleft()
        self.calls.append((name, call))
        granted.release()
        self._await(self._seats[name])

    def crash(self, name: str) -> None:
        """Its call is not made, nor any other."""
        seat = self._seats[name]
        self.calls.append((name, "crash"))
        seat.dead = True
        while seat.waiting:
            seat.waiting.popleft()[1].release()
            self._await(seat)

    def results(self) -> dict[str, object]:
        """What each actor returned or raised; None of one that still runs."""
        return {name: seat.result for name, seat in self._seats.items()}

    def _await(self, seat: _Seat) -> None:
        if not seat.arrived.acquire(timeout=_HANGS_S):
            raise TimeoutError(f"an actor hangs after {self.calls[-5:]}")


class TurnStore:
    """One actor's view of a store: each call is a turn."""

    def __init__(self, inner: Store, turns: Turns, name: str, listing: Listing) -> None:
        self._inner = inner
        self._turns = turns
        self._name = name
        self._listing = listing

    @property
    def address(self) -> str:
        return self._inner.address

    @property
    def lanes(self) -> int:
        return self._inner.lanes

    def put(self, key: str, pieces: list[Piece]) -> None:
        self._turns.take(self._name, f"put {key}")
        self._inner.put(key, pieces)

    def get(self, key: str) -> bytes:
        self._turns.take(self._name, f"get {key}")
        return self._inner.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self._turns.take(self._name, f"get_range {key}")
        return self._inner.get_range(key, offset, length)

    def get_tail(self, key: str, length: int) -> Tail:
        size = self.size(key)
        return Tail(size, self.get_range(key, max(0, size - length), length))

    def size(self, key: str) -> int:
        self._turns.take(self._name, f"size {key}")
        return self._inner.size(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self._turns.take(self._name, f"list {prefix}")
        found = list(self._inner.list(prefix))
        if self._listing is Listing.WHOLE:
            yield from found
            return
        back = self._listing is Listing.BACKWARDS
        found.sort(reverse=back)
        seen = found[: (len(found) + 1) // 2]
        yield from seen
        self._turns.take(self._name, f"list on {prefix}")
        for later in sorted(self._inner.list(prefix), reverse=back):
            if not seen or (later.key < seen[-1].key if back else later.key > seen[-1].key):
                yield later

    def delete(self, key: str) -> None:
        self._turns.take(self._name, f"delete {key}")
        self._inner.delete(key)


@contextmanager
def chosen_randomness(seed: int) -> Iterator[None]:
    """Session ids and names of packs decide in which order things are listed and read; so they must
    be the same when a run is repeated."""
    before = secrets.token_bytes, secrets.token_hex
    source = random.Random(seed)
    secrets.token_bytes = lambda nbytes=None: source.randbytes(nbytes or 32)
    secrets.token_hex = lambda nbytes=None: source.randbytes(nbytes or 32).hex()
    try:
        yield
    finally:
        secrets.token_bytes, secrets.token_hex = before


@dataclass(frozen=True)
class Decision:
    """Before one step: who could go on and with which call, who did. crash: instead of the call."""

    ready: Mapping[str, str]
    chosen: str
    crash: bool = False


Chooser = Callable[[Mapping[str, str], str], tuple[str, bool]]
"""(who is ready, who went last or "") -> who goes on, and whether they crash instead."""


def run_to_end(
    turns: Turns, actors: Mapping[str, Callable[[], object]], choose: Chooser
) -> list[Decision]:
    """Run all actors until each has ended or crashed."""
    threads = [turns.start(name, work) for name, work in actors.items()]
    decisions, last = [], ""
    while ready := turns.ready():
        name, crash = choose(ready, last)
        decisions.append(Decision(ready, name, crash))
        if crash:
            turns.crash(name)
        else:
            turns.step(name)
        last = name
    for thread in threads:
        thread.join(_HANGS_S)
    return decisions
