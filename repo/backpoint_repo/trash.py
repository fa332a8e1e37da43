"""Trash: packs that a collector is about to delete, an object for each epoch.

A pack that is in trash never comes back: what is still needed of it is copied out before it goes.
So a decision to delete it stays right, however late it is carried out and by whom. Epochs rise by
one; whoever puts the next one knows that nobody has put trash since they looked, or finds out that
they were too slow. Decides what an
epoch's object says and how all of them are read, not what belongs into one (`collecting/`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    RepositoryError,
    UnknownFormat,
)
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index_segment import PACK_NAME_SIZE, PackRef
from backpoint_repo.record import encode_record
from backpoint_repo.sealed_store import SealedStore

STUCK: Final = (
    "nothing can be backed up or collected before it is put back from a copy of the repository, "
    "or is deleted while nobody is at work (see `backpoint leases`)"
)
"""What to do about trash that cannot be read: for want of it somebody could use what goes."""
_EPOCH_MAX: Final = 1 << 62
"""No honest collector comes near; one that is forged so high must not leave room for none."""
_NAME: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Trash:
    """newest: every epoch up to it is in `epochs`, or was emptied and deleted. epochs: the packs of
    each, also of such that were forged far ahead of it. swept: epochs up to this one are over, as
    the newest says: whatever an object of such an epoch names, nobody sweeps it, and anybody may
    delete it."""

    newest: int
    epochs: Mapping[int, frozenset[PackRef]]
    swept: int = 0

    @property
    def waiting(self) -> list[int]:
        """Epochs that may still have packs to delete, oldest first."""
        return sorted(epoch for epoch in self.epochs if epoch > self.swept)

    @property
    def over(self) -> list[int]:
        """Epochs whose objects can be deleted."""
        return sorted(epoch for epoch in self.epochs if epoch <= self.swept)

    @property
    def packs(self) -> frozenset[PackRef]:
        """Of all epochs."""
        return frozenset[PackRef]().union(*self.epochs.values())


def read_trash(sealed: SealedStore) -> Trash:
    """All there is.

    Raises ObjectDamaged, UnknownFormat for what cannot be read: going on could mean to rely on what
    a collector is about to delete.
    """
    before: Mapping[int, _Epoch] = {}
    while True:
        # A listing may miss what is put while it runs, and see what is put a moment later. Whatever
        # is older than the newest one seen is there when a second listing begins.
        first = _epochs(sealed)
        there = _contents(sealed, first | _epochs(sealed))
        newest = max(_followed(there), default=0)
        if newest == max(there, default=0) or there.keys() == before.keys():
            break
        before = there  # epochs went while they were read, or somebody forged one
    packs = {epoch: found.packs for epoch, found in there.items()}
    swept = there[newest].swept if newest else 0
    return Trash(max((epoch for epoch in first if epoch <= newest), default=0), packs, swept)


def newest_epoch(sealed: SealedStore) -> int:
    """The highest number, forged or not, from one listing: for who refers to no pack of its own
    accord."""
    return max(_epochs(sealed), default=0)


def put_trash(
    sealed: SealedStore, epoch: int, packs: Collection[PackRef], swept: int, by: bytes, now: float
) -> bool:
    """Publish an epoch; False where somebody else has it. by: the collector's session id.

    swept: the epoch up to which none of the packs in trash is there any more (found by listing
    packs after all trash was read), at least that of the newest one before. Who was slow may take
    the number of an epoch that came and went: so read all trash again before sweeping, and sweep
    only what is `waiting`.
    """
    rows = [bytes([pack.kind]) + pack.name for pack in sorted(packs)]
    record = {"epoch": epoch, "packs": rows, "swept": swept, "created": now, "by": by}
    payload = encode_record(record)
    try:
        sealed.put(Kind.TRASH, _name(epoch), payload)
    except ObjectExists:
        return False
    return True


def drop_trash(sealed: SealedStore, epoch: int) -> None:
    """To be called for what is `over`, and for nothing else: then nobody who is slow can take a
    number that leases have seen and that still means something."""
    sealed.delete(Kind.TRASH, _name(epoch))


def pack_of(row: bytes, what: str) -> PackRef:
    """A stored reference to a pack. Passing over what is not understood could mean to rely on it,
    so it is damage. what: the object that holds it."""
    if len(row) != 1 + PACK_NAME_SIZE or row[0] not in (Kind.DATA_PACK, Kind.NODE_PACK):
        raise ObjectDamaged(f"{what}: names something that is no pack")
    return PackRef(Kind(row[0]), row[1:])


def _epochs(sealed: SealedStore) -> set[int]:
    return {int(name, 16) for name in sealed.names(Kind.TRASH) if _NAME.fullmatch(name)}


class _Epoch(NamedTuple):
    packs: frozenset[PackRef]
    swept: int


def _followed(there: Mapping[int, _Epoch]) -> Iterator[int]:
    """Epochs below which all are there that must have been when they were put. Below others one may
    yet be put, and who says to have seen those would not have seen it."""
    run_from = 0
    for epoch in sorted(there):
        run_from = run_from if epoch - 1 in there else epoch
        if run_from <= there[epoch].swept + 1:
            yield epoch


def _contents(sealed: SealedStore, epochs: Iterable[int]) -> dict[int, _Epoch]:
    there = {}
    for epoch, found in sealed.each(sorted(epochs), lambda epoch: _read(sealed, epoch)):
        if isinstance(found, ObjectMissing):
            continue  # emptied between listing and reading: its packs are gone
        if isinstance(found, RepositoryError):
            raise found
        there[epoch] = found
    return there


def _read(sealed: SealedStore, epoch: int) -> _Epoch:
    key = object_key(Kind.TRASH, _name(epoch))
    try:
        record = sealed.get_record(Kind.TRASH, _name(epoch))
    except (ObjectDamaged, UnknownFormat) as error:
        raise type(error)(f"{error}; {STUCK}") from error
    if record.natural("epoch") != epoch or epoch >= _EPOCH_MAX:
        raise ObjectDamaged(f"{key}: says another epoch than its name, or an impossible one")
    swept = 0 if record.optional("swept", int) is None else record.natural("swept")
    if swept >= epoch:
        raise ObjectDamaged(f"{key}: says that it is over itself")
    return _Epoch(frozenset(pack_of(row, key) for row in record.items("packs", bytes)), swept)


def _name(epoch: int) -> str:
    return f"{epoch:016x}"
