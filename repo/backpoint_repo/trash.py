"""Trash: packs that a collector is about to delete, an object for each epoch.

A pack that is in trash never comes back: what is still needed of it is copied out before it goes.
So a decision to delete it stays right, however late it is carried out and by whom. Epochs rise by
one; whoever puts the next one knows that nobody has put trash since they looked. Decides what an
epoch's object says and how all of them are read, not what belongs into one (`collecting/`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from backpoint_repo.errors import ObjectDamaged, ObjectExists, ObjectMissing
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index_segment import PACK_NAME_SIZE, PackRef
from backpoint_repo.record import encode_record
from backpoint_repo.sealed_store import SealedStore

_NAME: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Trash:
    """newest: every epoch up to it is in `epochs`, or was emptied and deleted. epochs: the packs of
    each."""

    newest: int
    epochs: Mapping[int, frozenset[PackRef]]

    @property
    def packs(self) -> frozenset[PackRef]:
        """Of all epochs."""
        return frozenset[PackRef]().union(*self.epochs.values())


def read_trash(sealed: SealedStore) -> Trash:
    """All there is.

    Raises ObjectDamaged, UnknownFormat for what cannot be read: going on could mean to rely on what
    a collector is about to delete.
    """
    # A listing may miss what is put while it runs, and see what is put a moment later. Whatever is
    # older than the newest one seen is there when a second listing begins.
    first = _epochs(sealed)
    found = first | _epochs(sealed)
    contents = {
        epoch: packs for epoch in sorted(found) if (packs := _read(sealed, epoch)) is not None
    }
    return Trash(max(first, default=0), contents)


def put_trash(
    sealed: SealedStore, epoch: int, packs: Collection[PackRef], by: bytes, now: float
) -> bool:
    """Publish an epoch; False where somebody else has it. by: the collector's session id."""
    rows = [bytes([pack.kind]) + pack.name for pack in sorted(packs)]
    payload = encode_record({"epoch": epoch, "packs": rows, "created": now, "by": by})
    try:
        sealed.put(Kind.TRASH, _name(epoch), payload)
    except ObjectExists:
        return False
    return True


def drop_trash(sealed: SealedStore, epoch: int) -> None:
    """To be called when all its packs are gone, and never for the newest epoch."""
    sealed.delete(Kind.TRASH, _name(epoch))


def pack_of(row: bytes, what: str) -> PackRef:
    """A stored reference to a pack. Passing over what is not understood could mean to rely on it,
    so it is damage. what: the object that holds it."""
    if len(row) != 1 + PACK_NAME_SIZE or row[0] not in (Kind.DATA_PACK, Kind.NODE_PACK):
        raise ObjectDamaged(f"{what}: names something that is no pack")
    return PackRef(Kind(row[0]), row[1:])


def _epochs(sealed: SealedStore) -> set[int]:
    return {int(name, 16) for name in sealed.names(Kind.TRASH) if _NAME.fullmatch(name)}


def _read(sealed: SealedStore, epoch: int) -> frozenset[PackRef] | None:
    key = object_key(Kind.TRASH, _name(epoch))
    try:
        record = sealed.get_record(Kind.TRASH, _name(epoch))
    except ObjectMissing:
        return None  # emptied between listing and reading: its packs are gone
    if record.natural("epoch") != epoch:
        raise ObjectDamaged(f"{key}: says another epoch than its name")
    return frozenset(pack_of(row, key) for row in record.items("packs", bytes))


def _name(epoch: int) -> str:
    return f"{epoch:016x}"
