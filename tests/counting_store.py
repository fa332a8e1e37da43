"""A store in memory that is far away: several requests at once pay off, and each is counted."""

from __future__ import annotations

from backpoint_repo.store.contract import Tail
from backpoint_repo.store.memory import MemoryStore


class CountingStore(MemoryStore):
    """asked: key, offset and length in bytes of each request for content. looks: keys whose size
    was asked for. fault: what each request raises."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int, int]] = []
        self.looks: list[str] = []
        self.fault: Exception | None = None

    @property
    def lanes(self) -> int:
        return 4

    def get(self, key: str) -> bytes:
        if self.fault is not None:
            raise self.fault
        found = super().get(key)
        self.asked.append((key, 0, len(found)))
        return found

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        if self.fault is not None:
            raise self.fault
        found = MemoryStore.get(self, key)[offset : offset + length]
        self.asked.append((key, offset, length))
        return found

    def get_tail(self, key: str, length: int) -> Tail:
        if self.fault is not None:
            raise self.fault
        whole = super().get(key)
        self.asked.append((key, max(0, len(whole) - length), length))
        return Tail(len(whole), whole[max(0, len(whole) - length) :])

    def size(self, key: str) -> int:
        self.looks.append(key)
        return len(super().get(key))
