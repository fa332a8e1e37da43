"""Which requests a backup, a pruning and a collection make: counted, on a real small repository.

What they read and list of each kind is the same on a large one; how many pages a listing has there
is for `requests.py`.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectTerms
from backpoint_repo.phase_progress import Silent
from backpoint_repo.repository import Repository
from backpoint_repo.retention.prune import apply_prune, plan_prune
from backpoint_repo.retention.rules import Rules
from backpoint_repo.store.contract import Piece, StoredObject, Tail
from backpoint_repo.store.memory import MemoryStore
from small_repository import new_repository, reopened
from synthetic_disk import SyntheticDisk, random_disk

Requests = Counter[tuple[str, str]]
"""How often (`get`, `put`, `list`, `head` or `delete`; folder)."""
_DISK: Final = 1 << 20
_POINTS: Final = 4


@dataclass(frozen=True)
class Measured:
    """backup: of an increment. collect: of one that deletes something."""

    backup: Requests
    prune: Requests
    collect: Requests


class CountingStore(MemoryStore):
    """Counts what a bucket would be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Requests = Counter()

    def put(self, key: str, pieces: list[Piece]) -> None:
        self._count("put", key)
        super().put(key, pieces)

    def get(self, key: str) -> bytes:
        self._count("get", key)
        return super().get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self._count("get", key)
        return super().get_range(key, offset, length)

    def get_tail(self, key: str, length: int) -> Tail:
        self._count("get", key)
        return super().get_tail(key, length)

    def size(self, key: str) -> int:
        self._count("head", key)
        return super().size(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self._count("list", prefix)
        return super().list(prefix)

    def delete(self, key: str) -> None:
        self._count("delete", key)
        super().delete(key)

    def taken(self) -> Requests:
        """What was counted since the last call."""
        found, self.asked = self.asked, Counter()
        return found

    def _count(self, verb: str, key: str) -> None:
        self.asked[verb, key.partition("/")[0]] += 1


def measure() -> Measured:
    """In a second, in memory."""
    store = CountingStore()
    repository = new_repository(store)
    disk = random_disk(_DISK, 1)
    for _ in range(_POINTS):
        _back_up(repository, disk)
    store.taken()
    # Opened before: an agent opens it once for all VMs.
    _back_up(repository, disk)
    backup = store.taken()
    maintainer = reopened(repository)
    store.taken()
    plan = plan_prune(maintainer, {"vm": [Rules(last=1)]})
    apply_prune(maintainer, plan)
    pruned = store.taken()
    collect(maintainer, CollectTerms(), Silent(), lambda _: None)
    return Measured(backup, pruned, store.taken())


def _back_up(repository: Repository, disk: SyntheticDisk) -> None:
    disk.write(_DISK // 2, secrets.token_bytes(4096))
    with repository.begin_backup("vm") as session:
        session.store_disk(DiskJob("disk0", disk, [(_DISK // 2, 4096)]), lambda _: None)
        session.publish(time=None, label="")
