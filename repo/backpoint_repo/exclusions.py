"""What must not be deduplicated onto: trashed packs, and copies of chunks known to be damaged.

Both only grow stricter: reading them late costs a backup a second pass, never a chunk. Knows no
index.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError, UnknownFormat
from backpoint_repo.format import ID_SIZE, Kind
from backpoint_repo.in_threads import side_by_side
from backpoint_repo.index_segment import PackRef
from backpoint_repo.record import encode_record
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.trash import pack_of, read_trash


@dataclass(frozen=True)
class Exclusions:
    """A reading of trash and damage marks.

    epoch: the newest trash epoch seen, 0 where there is none.
    damaged: (content id, pack) of every copy that is marked. unreadable: damage objects that are
    damaged themselves; what they marked is not known.
    """

    epoch: int = 0
    trashed: frozenset[PackRef] = frozenset()
    damaged: frozenset[tuple[bytes, PackRef]] = frozenset()
    unreadable: tuple[str, ...] = ()
    damaged_ids: frozenset[bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "damaged_ids", frozenset(found for found, _ in self.damaged))

    def after(self, earlier: Exclusions) -> Exclusions:
        """With what was excluded before: a trash object goes when its packs are gone, and an index
        that still lists those must not take them for good again."""
        return replace(
            self,
            epoch=max(self.epoch, earlier.epoch),
            trashed=self.trashed | earlier.trashed,
            damaged=self.damaged | earlier.damaged,
        )


def read_exclusions(sealed: SealedStore) -> Exclusions:
    """All trash and damage objects of a repository. Raises as `read_trash`."""
    trash, marks = side_by_side(
        sealed.store.lanes, partial(read_trash, sealed), partial(read_marks, sealed)
    )
    return replace(marks, epoch=trash.newest, trashed=trash.packs)


def read_marks(sealed: SealedStore) -> Exclusions:
    """All damage objects alone: for who reads, and refers to nothing of it."""
    damaged, unreadable = set[tuple[bytes, PackRef]](), []
    for name, rows in sealed.each(sealed.names(Kind.DAMAGE), partial(_marks, sealed)):
        try:
            if isinstance(rows, RepositoryError):
                raise rows
            # Those before a bad one count.
            damaged.update((row[:ID_SIZE], pack_of(row[ID_SIZE:], name)) for row in rows)
        except ObjectMissing:
            continue
        except (ObjectDamaged, UnknownFormat) as error:
            unreadable.append(str(error))
    return Exclusions(damaged=frozenset(damaged), unreadable=tuple(unreadable))


def mark_damaged(sealed: SealedStore, copies: Iterable[tuple[bytes, PackRef]], now: float) -> None:
    """Record copies as damaged, so that the next backup stores these chunks anew."""
    rows = [content_id + bytes([pack.kind]) + pack.name for content_id, pack in copies]
    payload = encode_record({"marked": now, "copies": rows})
    sealed.put(Kind.DAMAGE, secrets.token_hex(16), payload)


def _marks(sealed: SealedStore, name: str) -> list[bytes]:
    return sealed.get_record(Kind.DAMAGE, name).items("copies", bytes)
