"""Makes the spares of a group: reads its packs column by column, encodes, stores.

Every pack is held against its directory on the way: one that is damaged, gone or cannot be read is
answered with the reason, and no spare is made. Blobs that are known to be bad may be forgiven: then
the pack is covered as it is, for the sake of the others. Which packs belong together is for
`plan.py`.
Memory: two columns of every pack, and at most 160 MiB of spares; where more are wanted the packs
are read again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from backpoint_repo.errors import ObjectDamaged, RepositoryError
from backpoint_repo.format import object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.parity.blob_watch import BlobWatch
from backpoint_repo.parity.erasure_code import spare_columns
from backpoint_repo.parity.group import (
    SPARE_NAME_SIZE,
    Group,
    Member,
    Spare,
    column_digest,
    columns_of,
    digest_at,
)
from backpoint_repo.parity.spare_object import put_spare, read_column
from backpoint_repo.sealed_store import SealedStore

_SPARE_BYTES_MAX: Final = 160 << 20
_WORKERS: Final = 4 * (os.cpu_count() or 1)
_UNSTEADY: Final = ObjectDamaged("a pack reads differently every time")


class StoredPack(NamedTuple):
    """A pack that is there. size: bytes."""

    pack: PackRef
    size: int

    @property
    def key(self) -> str:
        """Where it is stored."""
        return object_key(self.pack.kind, self.pack.name.hex())


@dataclass(frozen=True)
class Shape:
    """How a group is made. spares: how many; column: bytes of a column."""

    spares: int
    column: int


Copies = Collection[tuple[bytes, PackRef]]
"""Content ids, each with a pack that has a copy."""


@dataclass(frozen=True)
class Made:
    """group: None where nothing was made, because of the `unfit` packs -> why. rotten: those whose
    directory is good, and some blobs are not."""

    group: Group | None = None
    unfit: dict[PackRef, RepositoryError] = field(default_factory=dict)
    rotten: frozenset[PackRef] = frozenset()


def write_group(
    sealed: SealedStore,
    packs: Sequence[StoredPack],
    shape: Shape,
    advance: Callable[[int], None],
    forgiven: Copies = (),
) -> Made:
    """Store the spares of these packs. advance: called with bytes of packs read. forgiven: copies
    that may be bad.

    Raises StoreUnavailable where nothing can be written.
    """
    names = [secrets.token_bytes(SPARE_NAME_SIZE) for _ in range(shape.spares)]
    at_once = max(1, _SPARE_BYTES_MAX // max(pack.size for pack in packs))
    rounds = [range(shape.spares)[start:][:at_once] for start in range(0, shape.spares, at_once)]
    code = _Code(sealed, packs, names, shape.column, forgiven)
    first = code.encode(rounds[0], advance)
    if first.unfit or first.group is None:
        return first
    for kept in rounds:
        # The spares that were not kept at first; packs do not change, but what is read may.
        if kept is not rounds[0]:
            again = code.encode(kept, lambda _: None)
            if again.group != first.group:
                return Made(None, again.unfit or {pack.pack: _UNSTEADY for pack in packs})
        for number in kept:
            put_spare(sealed, first.group, first.group.spares[number], code.bodies[number])
    return first


def problem_of(sealed: SealedStore, group: Group, forgiven: Copies = ()) -> str | None:
    """Why a group cannot be relied on; None where packs and spares are what its record says, and
    belong together. Reads all of them. forgiven: as for `write_group`."""
    packs = [StoredPack(member.pack, member.size) for member in group.members]
    code = _Code(sealed, packs, [spare.name for spare in group.spares], group.column, forgiven)
    made = code.encode(range(0), lambda _: None)
    if made.unfit:
        return str(next(iter(made.unfit.values())))
    if made.group != group:
        return "its record is not that of its packs"
    try:
        for spare in group.spares:
            for at in range(columns_of(group.size, group.column)):
                data = read_column(sealed, group, spare, at)
                if column_digest(data) != digest_at(spare.digests, at):
                    return f"{spare.key}: column {at} is not what was stored"
    except RepositoryError as error:
        return str(error)
    return None


class _Code:
    """The code of some packs. bodies: number of a spare -> its columns, of those last asked for."""

    def __init__(
        self,
        sealed: SealedStore,
        packs: Sequence[StoredPack],
        names: Sequence[bytes],
        column: int,
        forgiven: Copies,
    ) -> None:
        self._sealed = sealed
        self._packs = packs
        self._names = names
        self._column = column
        self._forgiven = forgiven
        self._size = max(pack.size for pack in packs)
        self.bodies: dict[int, list[bytes]] = {}

    def encode(self, kept: Sequence[int], advance: Callable[[int], None]) -> Made:
        """The group; the bodies of the spares `kept` are there afterwards."""
        self.bodies = {number: [] for number in kept}
        watches, unfit = self._watches()
        if unfit:
            return Made(None, unfit)
        member_digests = [bytearray() for _ in self._packs]
        spare_digests = [bytearray() for _ in self._names]
        for at, columns in enumerate(self._read()):
            if unfit := self._unread(at, columns):
                return Made(None, unfit)
            data = [column for column in columns if isinstance(column, bytes)]
            for column, digests, watch in zip(data, member_digests, watches, strict=True):
                if column:
                    digests += column_digest(column)
                    watch.feed(column)
            for number, spare in enumerate(self._spares_of(data, at)):
                spare_digests[number] += column_digest(spare)
                if number in self.bodies:
                    self.bodies[number].append(spare)
            advance(sum(map(len, data)))
        if rotten := self._rotten(watches):
            return Made(None, rotten, frozenset(rotten))
        members = zip(self._packs, member_digests, strict=True)
        group = Group(
            self._column,
            tuple(Member(pack.pack, pack.size, bytes(digests)) for pack, digests in members),
            tuple(map(Spare, self._names, map(bytes, spare_digests))),
        )
        return Made(group)

    def _rotten(self, watches: Sequence[BlobWatch]) -> dict[PackRef, RepositoryError]:
        rotten = dict[PackRef, RepositoryError]()
        for pack, watch in zip(self._packs, watches, strict=True):
            ids = [content_id.tobytes() for content_id in watch.directory.ids[watch.bad()]]
            if any((content_id, pack.pack) not in self._forgiven for content_id in ids):
                problem = f"{len(ids)} of its {len(watch.directory.ids)} blobs are damaged"
                rotten[pack.pack] = ObjectDamaged(f"{pack.key}: {problem}")
        return rotten

    def _watches(self) -> tuple[list[BlobWatch], dict[PackRef, RepositoryError]]:
        watches, unfit = [], dict[PackRef, RepositoryError]()
        for pack in self._packs:
            try:
                directory = self._sealed.directory(pack.pack.kind, pack.pack.name)
                if self._sealed.store.size(pack.key) != pack.size:
                    raise ObjectDamaged(f"{pack.key}: has another size than when it was listed")
                watches.append(BlobWatch(directory))
            except RepositoryError as error:
                unfit[pack.pack] = error
        return watches, unfit

    def _read(self) -> Iterator[list[bytes | RepositoryError]]:
        """Each column of all packs, the next one being read meanwhile."""
        with ThreadPoolExecutor(min(_WORKERS, len(self._packs)), "parity") as workers:

            def asked(at: int) -> list[Future[bytes | RepositoryError]]:
                return [workers.submit(self._fetch, pack, at) for pack in self._packs]

            ahead = asked(0)
            for at in range(columns_of(self._size, self._column)):
                columns = [one.result() for one in ahead]
                ahead = asked(at + 1)
                yield columns

    def _fetch(self, pack: StoredPack, at: int) -> bytes | RepositoryError:
        length = self._length(pack, at)
        try:
            if not length:
                return b""
            return self._sealed.store.get_range(pack.key, at * self._column, length)
        except RepositoryError as error:
            return error

    def _unread(
        self, at: int, columns: Sequence[bytes | RepositoryError]
    ) -> dict[PackRef, RepositoryError]:
        unread = dict[PackRef, RepositoryError]()
        for pack, column in zip(self._packs, columns, strict=True):
            if isinstance(column, RepositoryError):
                unread[pack.pack] = column
            elif len(column) != self._length(pack, at):
                unread[pack.pack] = ObjectDamaged(f"{pack.key}: truncated")
        return unread

    def _spares_of(self, data: Sequence[bytes], at: int) -> list[bytes]:
        length = min(self._column, self._size - at * self._column)
        filled = [column.ljust(length, b"\0") for column in data]
        return spare_columns(filled, len(self._names), range(len(self._names)))

    def _length(self, pack: StoredPack, at: int) -> int:
        return max(0, min(self._column, pack.size - at * self._column))
