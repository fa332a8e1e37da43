"""A store that ends the process, or raises, at the n-th call. Counts calls; decides no more."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from backpoint_repo.store import local
from backpoint_repo.store.contract import Piece, Store, StoredObject, Tail
from backpoint_repo.store.local import LocalStore

BEFORE: Final = "before"
AFTER: Final = "after"
UNLINKED: Final = "unlinked"
"""Written and fsynced under its temporary name, and not linked to its own yet (puts only)."""


class FailingStore:
    """Calls `fail` at call number `at` (from 1), before or after it is done.

    stays: whether every later call fails as well. calls: what was called so far, (method, key).
    """

    def __init__(
        self,
        inner: Store,
        at: int,
        fail: Callable[[], None],
        moment: str = BEFORE,
        *,
        stays: bool = False,
        only: frozenset[str] = frozenset({"put", "get", "get_range", "size", "list", "delete"}),
    ) -> None:
        self._inner = inner
        self._at = at
        self._fail = fail
        self._moment = moment
        self._stays = stays
        self._only = only
        self.calls: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return self._inner.address

    @property
    def lanes(self) -> int:
        return self._inner.lanes

    def put(self, key: str, pieces: list[Piece]) -> None:
        due = self._begin("put", key)
        self._inner.put(key, pieces)
        self._end(due)

    def get(self, key: str) -> bytes:
        due = self._begin("get", key)
        data = self._inner.get(key)
        self._end(due)
        return data

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        due = self._begin("get_range", key)
        data = self._inner.get_range(key, offset, length)
        self._end(due)
        return data

    def get_tail(self, key: str, length: int) -> Tail:
        size = self.size(key)
        return Tail(size, self.get_range(key, max(0, size - length), length))

    def size(self, key: str) -> int:
        due = self._begin("size", key)
        size = self._inner.size(key)
        self._end(due)
        return size

    def list(self, prefix: str) -> Iterator[StoredObject]:
        due = self._begin("list", prefix)
        found = list(self._inner.list(prefix))
        self._end(due)
        yield from found

    def delete(self, key: str) -> None:
        due = self._begin("delete", key)
        self._inner.delete(key)
        self._end(due)

    def _begin(self, method: str, key: str) -> bool:
        if method not in self._only:
            return False
        self.calls.append((method, key))
        number = len(self.calls)
        due = number == self._at or (self._stays and number > self._at)
        if due and self._moment == BEFORE:
            self._fail()
        return due

    def _end(self, due: bool) -> None:
        if due and self._moment == AFTER:
            self._fail()


def die() -> None:
    """As a power switch for this process: no handler, no flush, no `finally`."""
    os.kill(os.getpid(), signal.SIGKILL)


def deadly_store(root: Path, at: int, moment: str) -> Store:
    """A local store in whose n-th changing call the process is killed."""
    if moment == UNLINKED:
        return _DiesBeforeLinking(root, at)
    return FailingStore(LocalStore(root), at, die, moment, only=frozenset({"put", "delete"}))


class _DiesBeforeLinking(LocalStore):
    """For a process of its own: it replaces the link call of the store's module."""

    def __init__(self, root: Path, at: int) -> None:
        super().__init__(root)
        self._left = at
        local.os.link = self._link  # type: ignore[attr-defined]

    def _link(self, source: Path, target: Path) -> None:
        self._left -= 1
        if self._left == 0:
            die()
        os.rename(source, target)
