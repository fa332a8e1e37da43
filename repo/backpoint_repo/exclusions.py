"""What must not be deduplicated onto: trashed packs, and copies of chunks known to be damaged.

Trash objects are written by a collector (FORMAT.md, "Trash"), damage marks by `check`. Both only
grow stricter: reading them late costs a backup a second pass, never a chunk.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import ID_SIZE, Kind
from backpoint_repo.index_segment import PACK_NAME_SIZE, PackRef
from backpoint_repo.record import encode_record
from backpoint_repo.sealed_store import SealedStore


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


def read_exclusions(sealed: SealedStore) -> Exclusions:
    """All trash and damage objects of a repository.

    Raises ObjectDamaged for a trash object that cannot be read: going on could mean to rely on
    what a collector is about to delete.
    """
    epoch, trashed = 0, set[PackRef]()
    for name in sealed.names(Kind.TRASH):
        try:
            record = sealed.get_record(Kind.TRASH, name)
        except ObjectMissing:
            continue  # swept between listing and reading: its packs are gone or rescued
        epoch = max(epoch, record.natural("epoch"))
        trashed.update(_pack(row, name) for row in record.items("packs", bytes))
    damaged, unreadable = set[tuple[bytes, PackRef]](), []
    for name in sealed.names(Kind.DAMAGE):
        try:
            copies = sealed.get_record(Kind.DAMAGE, name).items("copies", bytes)
            damaged.update((copy[:ID_SIZE], _pack(copy[ID_SIZE:], name)) for copy in copies)
        except ObjectMissing:
            continue
        except (ObjectDamaged, UnknownFormat) as error:
            unreadable.append(str(error))
            continue
    return Exclusions(epoch, frozenset(trashed), frozenset(damaged), tuple(unreadable))


def mark_damaged(sealed: SealedStore, copies: Iterable[tuple[bytes, PackRef]], now: float) -> None:
    """Record copies as damaged, so that the next backup stores these chunks anew."""
    rows = [content_id + bytes([pack.kind]) + pack.name for content_id, pack in copies]
    payload = encode_record({"marked": now, "copies": rows})
    sealed.put(Kind.DAMAGE, secrets.token_hex(16), payload)


def _pack(row: bytes, name: str) -> PackRef:
    """Passing over what is not understood could mean to rely on it, so it is damage."""
    if len(row) != 1 + PACK_NAME_SIZE or row[0] not in (Kind.DATA_PACK, Kind.NODE_PACK):
        raise ObjectDamaged(f"{name}: names something that is no pack")
    return PackRef(Kind(row[0]), row[1:])
