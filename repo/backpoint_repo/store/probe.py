"""Whether a store gives what a repository stands on: found out before anything is written to it.

Of two puts to one key the second must be refused, and what was put must be read and listed at once.
Some servers take the condition of a put and ignore it; with such a one two writers would overwrite
each other's points, and neither would know. So before the first change that a process makes, one
put to a key that is taken must be refused (`probe/guard`; FORMAT.md 1.1). Before a repository is
made all guarantees are tried under random keys. Reading needs none of this.

Never wrong about a good store, however many try it at once: an object that only one process knows
is taken for what it was put as, and of the one that all know nothing is asked but that it is taken.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from backpoint_repo.errors import ObjectExists, ObjectMissing, StoreUnavailable, StoreUnfit
from backpoint_repo.store.contract import Piece, Store, StoredObject, Tail

PROBES: Final = "probe/"
GUARD: Final = f"{PROBES}guard"
CONTENT_SIZE: Final = 32
"""Bytes of a probe, random."""
RACERS: Final = 4


class GuardedStore:
    """A store that is found fit before it is changed for the first time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._fit = False

    @property
    def address(self) -> str:
        return self._store.address

    @property
    def lanes(self) -> int:
        return self._store.lanes

    def put(self, key: str, pieces: list[Piece]) -> None:
        self.require_fit()
        self._store.put(key, pieces)

    def get(self, key: str) -> bytes:
        return self._store.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return self._store.get_range(key, offset, length)

    def get_tail(self, key: str, length: int) -> Tail:
        return self._store.get_tail(key, length)

    def size(self, key: str) -> int:
        return self._store.size(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Probes are ours, and no part of what is kept here."""
        return (found for found in self._store.list(prefix) if not found.key.startswith(PROBES))

    def delete(self, key: str) -> None:
        self.require_fit()
        self._store.delete(key)

    def require_fit(self, *, new: bool = False) -> None:
        """Once in a process; others wait meanwhile. new: nothing is there yet.

        Raises StoreUnfit, and what a store raises.
        """
        if self._fit:
            return
        with self._lock:
            if self._fit:
                return
            if new:
                try_guarantees(self._store)
                _put(self._store, GUARD, secrets.token_bytes(CONTENT_SIZE))
            else:
                try_guard(self._store)
            self._fit = True


def probe_new(store: Store) -> None:
    """Before a repository is made. Raises StoreUnfit, and then leaves nothing in the store."""
    if isinstance(store, GuardedStore):
        store.require_fit(new=True)


def try_guard(store: Store) -> None:
    """The guard must be taken. Where it is not, this makes it, and tries what one process can.

    Raises StoreUnfit, having changed nothing but the guard.
    """
    first, second = (secrets.token_bytes(CONTENT_SIZE) for _ in range(2))
    if not _put(store, GUARD, first):
        return
    # There was none, or the store pays no heed to the condition.
    if _put(store, GUARD, second):
        raise _unfit(store, _PUT_IF_ABSENT)
    if _read(store, GUARD) != first:
        raise _unfit(store, _READ_AFTER_WRITE)
    with _probe_key(store) as key:
        _try_in_turn(store, key)


def try_guarantees(store: Store) -> None:
    """All, under keys that nobody else knows, which are removed where that is allowed.

    Raises StoreUnfit naming the first that is missing, and what a store raises.
    """
    with _probe_key(store) as key:
        _try_in_turn(store, key)
    with _probe_key(store) as key:
        _try_at_once(store, key)


@contextlib.contextmanager
def _probe_key(store: Store) -> Iterator[str]:
    key = f"{PROBES}{secrets.token_hex(16)}"
    try:
        yield key
    finally:
        with contextlib.suppress(StoreUnavailable):
            store.delete(key)


def _try_in_turn(store: Store, key: str) -> None:
    first, second = (secrets.token_bytes(CONTENT_SIZE) for _ in range(2))
    if not _put(store, key, first):
        raise _unfit(store, _NEW_KEY)
    if _put(store, key, second):
        raise _unfit(store, _PUT_IF_ABSENT)
    if _read(store, key) != first:
        raise _unfit(store, _READ_AFTER_WRITE)
    half = CONTENT_SIZE // 2
    tail = store.get_tail(key, half)
    if store.get_range(key, 1, half) != first[1 : half + 1] or tail != (CONTENT_SIZE, first[half:]):
        raise _unfit(store, _RANGES)
    if StoredObject(key, CONTENT_SIZE) not in store.list(PROBES):
        raise _unfit(store, _LISTING)


def _try_at_once(store: Store, key: str) -> None:
    contents = [secrets.token_bytes(CONTENT_SIZE) for _ in range(RACERS)]
    with ThreadPoolExecutor(RACERS) as racers:
        won = list(racers.map(lambda content: _put(store, key, content), contents))
    winners = [content for content, is_mine in zip(contents, won, strict=True) if is_mine]
    if len(winners) != 1:
        raise _unfit(store, _ATOMIC)
    if _read(store, key) != winners[0]:
        raise _unfit(store, _READ_AFTER_WRITE)


def _put(store: Store, key: str, content: bytes) -> bool:
    """False where the key is taken."""
    try:
        store.put(key, [content])
    except ObjectExists:
        return False
    return True


def _read(store: Store, key: str) -> bytes | None:
    try:
        return store.get(key)
    except ObjectMissing:
        return None


def _unfit(store: Store, missing: str) -> StoreUnfit:
    return StoreUnfit(
        f"{store.address} cannot be written to as a repository: it lacks {missing}; nothing was "
        "written to it"
    )


_PUT_IF_ABSENT: Final = (
    "put-if-absent (it overwrote an object although the request said If-None-Match, so two backups "
    "at once could destroy each other's points)"
)
_ATOMIC: Final = "atomic put-if-absent (of several puts to one new key at once not exactly one won)"
_NEW_KEY: Final = "put-if-absent (it says that a key is taken which nobody has used)"
_READ_AFTER_WRITE: Final = "read-after-write (it does not give back what was just put)"
_RANGES: Final = "ranged reads (it does not give back the part that was asked for)"
_LISTING: Final = "listing after write (it does not list what was just put)"
