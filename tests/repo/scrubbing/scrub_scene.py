"""A repository whose packs are scrubbed in tests, with stores that misbehave on demand.

Decides what lies in it: points of several VMs that share nothing, so that each pack hurts one VM.
What a scrub must find is the test's business.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

from backpoint_repo.errors import StoreUnavailable
from backpoint_repo.format import Kind
from backpoint_repo.index import pack_sizes
from backpoint_repo.index_segment import PackRef
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.scrubbing.scrub import Scrub
from backpoint_repo.scrubbing.scrub_report import ScrubReport, ScrubTerms
from backpoint_repo.store.contract import Piece, Store, StoredObject, Tail
from small_repository import PASSPHRASE, back_up, keys_of
from synthetic_disk import SyntheticDisk

DISK_SIZE = 1 << 20


def disk_of(vm: str) -> SyntheticDisk:
    """Always the same for a name."""
    disk = SyntheticDisk(DISK_SIZE, name=vm)
    disk.write(64 << 10, random.Random(vm).randbytes(200_000))
    return disk


def fill(repository: Repository, *vms: str) -> list[Point]:
    """A point of each VM: one data pack and one node pack more."""
    return [back_up(repository, vm, disk_of(vm)) for vm in vms]


def data_pack_of(repository: Repository, point: Point) -> str:
    """The key of the pack that holds a point's data."""
    for key in keys_of(repository.sealed.store, Kind.DATA_PACK):
        name = bytes.fromhex(key.rpartition("/")[2])
        if repository.sealed.directory(Kind.DATA_PACK, name).session == point.point_id:
            return key
    raise AssertionError("a point without a pack")


def pack_of(key: str) -> PackRef:
    """Whose key it is."""
    kind = Kind.NODE_PACK if key.startswith("nodes/") else Kind.DATA_PACK
    return PackRef(kind, bytes.fromhex(key.rpartition("/")[2]))


def bytes_in_packs(repository: Repository) -> int:
    return sum(size for _, size in pack_sizes(repository.sealed))


def scrubbed(repository: Repository, **terms: Any) -> ScrubReport:
    """One run to its end."""
    scrub = Scrub(repository, ScrubTerms(**terms))
    scrub.read()
    return scrub.report()


def over(store: Store, clock: Any = None) -> Repository:
    """The owner's repository in a store that misbehaves."""
    return (
        open_repository(store, PASSPHRASE, clock) if clock else open_repository(store, PASSPHRASE)
    )


class WatchedStore:
    """Counts what is read of packs, and lets some keys fail.

    unavailable: keys of which no byte can be read now. once: keys that read wrong the first time a
    byte of a blob is asked for. vanishing: keys that are gone as soon as their blobs are read.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.unavailable: set[str] = set()
        self.once: set[str] = set()
        self.vanishing: set[str] = set()
        self.refuses_deletes = False
        self.refuses_puts = False
        self.asked: list[tuple[str, int, int]] = []

    @property
    def address(self) -> str:
        return self.inner.address

    def blob_reads(self) -> Counter[str]:
        """How often the first blob of each pack was read."""
        return Counter(key for key, offset, length in self.asked if offset == 8 and length > 8)

    @property
    def lanes(self) -> int:
        return self.inner.lanes

    def put(self, key: str, pieces: list[Piece]) -> None:
        if self.refuses_puts:
            raise StoreUnavailable(f"cannot write {key}: Read-only file system")
        self.inner.put(key, pieces)

    def get(self, key: str) -> bytes:
        return self.inner.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.asked.append((key, offset, length))
        if key in self.unavailable:
            raise StoreUnavailable(f"cannot read {key}: Input/output error")
        data = self.inner.get_range(key, offset, length)
        if offset == 8 and key in self.vanishing:
            self.inner.delete(key)
            return self.inner.get_range(key, offset, length)
        if offset == 8 and key in self.once:
            self.once.discard(key)
            return data[:50] + bytes([data[50] ^ 1]) + data[51:]
        return data

    def get_tail(self, key: str, length: int) -> Tail:
        size = self.size(key)
        return Tail(size, self.get_range(key, max(0, size - length), length))

    def size(self, key: str) -> int:
        return self.inner.size(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        if self.refuses_deletes:
            raise StoreUnavailable(f"cannot delete {key}: Operation not permitted")
        self.inner.delete(key)


def altered(store: Store, key: str, offset: int) -> None:
    """Flip one bit; a negative offset counts from the end."""
    data = bytearray(store.get(key))
    data[offset] ^= 0x04
    store.delete(key)
    store.put(key, [data])
