"""A lost or damaged pack from the rest of its parity group, verified by the pack's own directory.

Repairs nothing in the repository: it answers bytes. Copy what is needed of them into *new* packs,
also where the pack is missing: under its old name it must not come back. A collector may have
deleted it on purpose, and one that still carries out the same deletion, however late, would take
it again together with what was deduplicated onto it meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    StoreUnavailable,
    UnknownFormat,
)
from backpoint_repo.format import object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.pack import PackDirectory, blob_digest, read_directory
from backpoint_repo.parity.erasure_code import restored_columns
from backpoint_repo.parity.group import (
    Group,
    Member,
    column_digest,
    column_ranges,
    digest_at,
)
from backpoint_repo.parity.group_book import Groups, read_groups
from backpoint_repo.parity.spare_object import read_column
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.store.memory import MemoryStore

__all__ = ["Groups", "RecoveredPack", "read_groups", "recover_blobs", "recover_pack"]

_WORKERS: Final = 4 * (os.cpu_count() or 1)


@dataclass(frozen=True)
class RecoveredPack:
    """data: the pack's bytes; where `good` says so of a blob, its digest is the directory's.

    good: (n,) of the directory's n blobs. Chunks still have to prove their ids, as everywhere.
    """

    pack: PackRef
    directory: PackDirectory
    data: memoryview
    good: NDArray[np.bool_]

    @property
    def whole(self) -> bool:
        """Every blob is good."""
        return bool(self.good.all())

    def blob(self, at: int) -> memoryview:
        """Blob number `at` as it was sealed."""
        start = int(self.directory.offsets[at])
        return self.data[start : start + int(self.directory.lengths[at])]


def recover_pack(sealed: SealedStore, groups: Groups, pack: PackRef) -> bytes | None:
    """The pack bit for bit as it was stored, or None where no group gives it back whole.

    Raises StoreUnavailable where it failed because something could not be read now. Holds up to
    200 MiB in memory.
    """
    recovered = recover_blobs(sealed, groups, pack)
    return bytes(recovered.data) if recovered is not None and recovered.whole else None


def recover_blobs(sealed: SealedStore, groups: Groups, pack: PackRef) -> RecoveredPack | None:
    """What can be had of a pack by all groups that cover it: None where not even its directory.

    Raises and holds as `recover_pack`.
    """
    best: RecoveredPack | None = None
    blocked: StoreUnavailable | None = None
    for group in groups.of(pack):
        columns = _Columns(sealed, group)
        found = _verified(sealed, pack, columns.rebuild(pack))
        if found is not None and found.whole:
            return found
        blocked = blocked or columns.blocked
        if found is not None and (best is None or found.good.sum() > best.good.sum()):
            best = found
    if blocked is not None:
        raise blocked
    return best


class _Columns:
    """The columns of one group that are what their digests say."""

    def __init__(self, sealed: SealedStore, group: Group) -> None:
        self._sealed = sealed
        self._group = group
        self._gone: set[int] = set()
        self.blocked: StoreUnavailable | None = None
        """Why some column could not be read now, if so."""

    def rebuild(self, pack: PackRef) -> bytearray:
        """A member; bytes that nobody can restore are those that are there, or zeros."""
        number = [member.pack for member in self._group.members].index(pack)
        member = self._group.members[number]
        data = bytearray()
        with ThreadPoolExecutor(_WORKERS, "repair") as workers:
            for at, (_, length) in enumerate(column_ranges(member.size, self._group.column)):
                column = self._good(number, at) or self._restored(number, at, workers)
                if column is None:
                    column = self._fetch(number, at).ljust(length, b"\0")
                data += column[:length]
        return data

    def _restored(self, number: int, at: int, workers: ThreadPoolExecutor) -> bytes | None:
        """A member's column from any others, as many as there are members; None if too few."""
        members, spares = len(self._group.members), len(self._group.spares)
        others = (other for other in range(members + spares) if other != number)
        good: dict[int, bytes] = {}
        while len(good) < members:
            asked = list(islice(others, members - len(good)))
            if not asked:
                return None
            answers = workers.map(lambda other: self._good(other, at), asked)
            good |= {
                other: column
                for other, column in zip(asked, answers, strict=True)
                if column is not None
            }
        column = restored_columns(good, members, spares)[number]
        return column if self._is_right(number, at, column) else None

    def _good(self, number: int, at: int) -> bytes | None:
        """A column, filled with zeros behind its object's end; None where it is not right."""
        column = self._fetch(number, at)
        if not self._is_right(number, at, column):
            return None
        return column.ljust(self._group.column_length(at), b"\0")

    def _is_right(self, number: int, at: int, column: bytes) -> bool:
        """Behind a member's end there is nothing to compare: zeros, whatever is there."""
        length, digests = self._extent(number, at)
        if len(column) < length:
            return False
        return not length or column_digest(column[:length]) == digest_at(digests, at)

    def _fetch(self, number: int, at: int) -> bytes:
        """The bytes that are there; empty where there is nothing to be had."""
        length, _ = self._extent(number, at)
        if number in self._gone or not length:
            return b""
        try:
            if number >= len(self._group.members):
                spare = self._group.spares[number - len(self._group.members)]
                return read_column(self._sealed, self._group, spare, at)
            key = _key(self._group.members[number])
            return self._sealed.store.get_range(key, at * self._group.column, length)
        except ObjectMissing:
            self._gone.add(number)
        except StoreUnavailable as error:
            self.blocked = error
        return b""

    def _extent(self, number: int, at: int) -> tuple[int, bytes]:
        """Bytes of a column that its object has, and the object's digests."""
        if number >= len(self._group.members):
            spare = self._group.spares[number - len(self._group.members)]
            return self._group.column_length(at), spare.digests
        member = self._group.members[number]
        left = member.size - at * self._group.column
        return max(0, min(self._group.column, left)), member.digests


def _verified(sealed: SealedStore, pack: PackRef, data: bytearray) -> RecoveredPack | None:
    """What its own directory says of a rebuilt pack; None where that cannot be believed."""
    alone = MemoryStore()
    alone.put(object_key(pack.kind, pack.name.hex()), [data])
    try:
        directory = read_directory(
            alone, pack.kind, pack.name, sealed.keyring.meta_key, sealed.packer
        )
    except (ObjectDamaged, UnknownFormat):
        return None
    view = memoryview(data)
    good = [
        blob_digest(blob) == digest.tobytes()
        for blob, digest in zip(_blobs(view, directory), directory.digests, strict=True)
    ]
    return RecoveredPack(pack, directory, view, np.array(good, np.bool_))


def _blobs(data: memoryview, directory: PackDirectory) -> Iterator[memoryview]:
    lengths = directory.lengths.tolist()
    for offset, length in zip(directory.offsets.tolist(), lengths, strict=True):
        yield data[offset : offset + length]


def _key(member: Member) -> str:
    return object_key(member.pack.kind, member.pack.name.hex())
