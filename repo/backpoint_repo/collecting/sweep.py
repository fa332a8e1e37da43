"""Deleting what is in trash: once nobody who has not seen it is left, and what is needed of it by
then has a good copy elsewhere.

May be done by anybody at any later time. Decides when an epoch may go and which of its packs may
not; what is live is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from backpoint_repo.collecting.blob_source import BlobSource
from backpoint_repo.collecting.rescue import Rescue
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease_book import HeldLease
from backpoint_repo.sealed_store import SealedStore

_DELETED_AT_ONCE: Final = 64
_INLINE: Final = 8


class Watch:
    """Who has not seen an epoch yet, of those who were there when we looked first.

    Whoever comes later reads all trash after their lease is put, so they are no concern.
    """

    def __init__(self, own: bytes, leases: Iterable[HeldLease]) -> None:
        self._own = own
        self._epochs: dict[bytes, int] = {}
        self._titles: dict[bytes, str] = {}
        for lease in leases:
            if lease.session != own:
                self._epochs[lease.session] = lease.epoch
                self._titles[lease.session] = lease.title

    def update(self, leases: Iterable[HeldLease]) -> None:
        """As things are now."""
        now = {lease.session: lease.epoch for lease in leases}
        self._epochs = {
            session: max(epoch, now[session])
            for session, epoch in self._epochs.items()
            if session in now
        }

    def blocking(self, epoch: int) -> list[str]:
        """Who has not seen it, for the user."""
        return [self._titles[session] for session, seen in self._epochs.items() if seen < epoch]


@dataclass
class Swept:
    """deleted: with the bytes of each. kept: packs that must stay, with the reason. lost: content
    ids in them that have no good copy."""

    deleted: dict[PackRef, int] = field(default_factory=dict)
    kept: dict[PackRef, str] = field(default_factory=dict)
    lost: list[tuple[bytes, PackRef]] = field(default_factory=list)


def sweep_packs(
    sealed: SealedStore,
    rescue: Rescue,
    packs: Mapping[PackRef, int],
    trashed: Collection[PackRef],
    advance: Callable[[int], None],
) -> Swept:
    """Delete these packs, which are in trash, nobody uses any more, and are there (with their
    bytes). trashed: all that are in any trash.

    Raises StoreUnavailable.
    """
    swept, going = Swept(), list[PackRef]()
    for pack in sorted(packs):
        try:
            secured = rescue.secure(BlobSource(sealed, pack), trashed)
        except ObjectMissing:
            advance(1)
            continue  # another collector was faster, and has seen to what is live
        except (ObjectDamaged, UnknownFormat) as error:
            swept.kept[pack] = f"what it holds is not known: {error}"
            advance(1)
            continue
        if secured.lost:
            key = object_key(pack.kind, pack.name.hex())
            swept.kept[pack] = (
                f"{key}: {len(secured.lost)} blobs that points need are damaged and have no good "
                "copy elsewhere"
            )
            swept.lost += [(content_id, pack) for content_id in secured.lost]
            advance(1)
            continue
        going.append(pack)
    # Only now: until it is durable and indexed a copy does not count.
    rescue.flush()
    _delete(sealed, going, advance)
    swept.deleted = {pack: packs[pack] for pack in going}
    return swept


def _delete(sealed: SealedStore, packs: list[PackRef], advance: Callable[[int], None]) -> None:
    def delete(pack: PackRef) -> None:
        sealed.delete(pack.kind, pack.name.hex())

    with ThreadPoolExecutor(2 * (os.cpu_count() or 1), "delete") as workers:
        for at in range(0, len(packs), _DELETED_AT_ONCE):
            batch = packs[at : at + _DELETED_AT_ONCE]
            run = map if len(batch) <= _INLINE else workers.map
            list(run(delete, batch))
            advance(len(batch))
