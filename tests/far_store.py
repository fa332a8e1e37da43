"""A store of which each request waits for a network, as far as its callers can tell; without time.

Decides when a ranged get is answered: at once, or only when enough of them wait together. Counts
them all. Keeps objects in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

from backpoint_repo.store.contract import StoredObject, Tail
from backpoint_repo.store.memory import MemoryStore

LANES: Final = 16
_PATIENCE_S: Final = 60.0


class Asked(NamedTuple):
    """One request. length: of a ranged get or a tail, in bytes."""

    verb: str
    key: str
    length: int = 0


class FarStore(MemoryStore):
    """asked: requests since `forget`. at_once, bytes_at_once: of ranged gets, the most of them that
    were under way together."""

    def __init__(self, lanes: int = LANES) -> None:
        super().__init__()
        self._lanes = lanes
        self._changed = threading.Condition()
        self._under_way: list[int] = []
        self._wanted = 0
        self.forget()

    @property
    def lanes(self) -> int:
        return self._lanes

    def forget(self) -> None:
        """Count from now on."""
        self.asked: list[Asked] = []
        self.at_once = self.bytes_at_once = 0

    def hold_until(self, together: int) -> None:
        """Ranged gets are answered as soon as, for once, so many wait together."""
        self.forget()
        self._wanted = together

    def count(self, verb: str, prefix: str = "") -> int:
        """Requests for what begins like this."""
        return sum(asked.verb == verb and asked.key.startswith(prefix) for asked in self.asked)

    def get(self, key: str) -> bytes:
        self.asked.append(Asked("get", key))
        return super().get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.asked.append(Asked("range", key, length))
        with self._changed:
            self._under_way.append(length)
            self.at_once = max(self.at_once, len(self._under_way))
            self.bytes_at_once = max(self.bytes_at_once, sum(self._under_way))
            self._changed.notify_all()
            came = self._changed.wait_for(lambda: self.at_once >= self._wanted, _PATIENCE_S)
        try:
            assert came, f"{self.at_once} ranged gets waited together, not {self._wanted}"
            return super().get(key)[offset : offset + length]
        finally:
            with self._changed:
                self._under_way.remove(length)

    def get_tail(self, key: str, length: int) -> Tail:
        self.asked.append(Asked("tail", key, length))
        data = super().get(key)
        return Tail(len(data), data[max(0, len(data) - length) :])

    def size(self, key: str) -> int:
        self.asked.append(Asked("size", key))
        return len(super().get(key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self.asked.append(Asked("list", prefix))
        return super().list(prefix)
