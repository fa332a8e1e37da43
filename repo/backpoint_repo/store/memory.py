"""A store in a dictionary: for tests and for models of concurrency. Keeps nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from backpoint_repo.errors import ObjectExists, ObjectMissing
from backpoint_repo.store.contract import Piece, StoredObject, Tail


class MemoryStore:
    """The contract, fulfilled trivially."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return "memory"

    @property
    def lanes(self) -> int:
        return 1

    def put(self, key: str, pieces: list[Piece]) -> None:
        data = b"".join(pieces)
        with self._lock:
            if key in self._objects:
                raise ObjectExists(f"{key} exists")
            self._objects[key] = data

    def get(self, key: str) -> bytes:
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectMissing(f"{key} is missing in {self.address}") from None

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return self.get(key)[offset : offset + length]

    def get_tail(self, key: str, length: int) -> Tail:
        size = self.size(key)
        return Tail(size, self.get_range(key, max(0, size - length), length))

    def size(self, key: str) -> int:
        return len(self.get(key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for key, data in sorted(self._objects.items()):
            if key.startswith(prefix):
                yield StoredObject(key, len(data))

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)
