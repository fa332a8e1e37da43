"""Deleting what is in trash: once nobody is left who has not seen it, and what is needed of it by
then has a good copy elsewhere.

May be done by anybody, at any later time, several at once. Decides when an epoch may go and which
of its packs may not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from backpoint_repo.collecting.blob_source import BlobSource
from backpoint_repo.collecting.report import Waiting
from backpoint_repo.collecting.workplace import Workplace
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreReadOnly, UnknownFormat
from backpoint_repo.format import object_key
from backpoint_repo.index import pack_sizes
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease_book import HeldLease
from backpoint_repo.pack import PACK_SIZE
from backpoint_repo.trash import Trash

_POLL_S: Final = 3.0
_DELETED_AT_ONCE: Final = 256
_COPIED_AT_ONCE: Final = 8 * PACK_SIZE
"""Bytes copied out of trash before the packs that held them are deleted: a store that is nearly
full needs room for these only."""
_INLINE: Final = 8
"""So few are deleted faster without handing them to threads."""


class Watch:
    """Who has not seen an epoch, of those who were there when we looked first.

    Whoever comes later reads all trash after their lease is put, so they are no concern.
    """

    def __init__(self, leases: Iterable[HeldLease]) -> None:
        self._held = {lease.session: lease for lease in leases}

    def update(self, leases: Iterable[HeldLease]) -> None:
        """As things are now."""
        now = {lease.session: lease for lease in leases}
        self._held = {session: now[session] for session in self._held if session in now}

    def blocking(self, epoch: int) -> tuple[str, ...]:
        """Who has not seen it, for the user."""
        return tuple(lease.title for lease in self._held.values() if lease.epoch < epoch)


class Sweep:
    """pause: waits so many seconds."""

    def __init__(self, place: Workplace, pause: Callable[[float], None]) -> None:
        self._place = place
        self._pause = pause

    def run(self, wait_s: float) -> None:
        """Delete what is in trash and was seen by everybody, after waiting so long at most.

        Raises ContentUnknown, StoreUnavailable; StoreReadOnly where nothing may be deleted.
        """
        place = self._place
        place.report.waiting = ()
        there = self._there(place.read_trash())
        if not there:
            return
        watch = self._wait(max(there), wait_s)
        ready = [epoch for epoch in there if not watch.blocking(epoch)]
        if ready:
            place.stands()
            place.look_again()
            self._delete_all({pack: size for e in ready for pack, size in there[e].items()})
        place.report.waiting = tuple(
            Waiting(epoch, len(packs), sum(packs.values()), watch.blocking(epoch))
            for epoch, packs in there.items()
            if epoch not in ready
        )

    def _there(self, trash: Trash) -> dict[int, dict[PackRef, int]]:
        """What of each epoch is not deleted yet, in bytes; epochs of which nothing is left out."""
        wanted = {pack for epoch in trash.waiting for pack in trash.epochs[epoch]}
        if not wanted:
            return {}
        sizes = {pack: size for pack, size in pack_sizes(self._place.sealed) if pack in wanted}
        there = {
            epoch: {pack: sizes[pack] for pack in trash.epochs[epoch] if pack in sizes}
            for epoch in trash.waiting
        }
        return {epoch: packs for epoch, packs in there.items() if packs}

    def _wait(self, epoch: int, wait_s: float) -> Watch:
        """Until everybody has seen the epoch."""
        place = self._place
        watch, waited = Watch(place.read_leases()), 0.0
        if watch.blocking(epoch):
            place.progress.phase("waiting for others", round(wait_s))
        while watch.blocking(epoch) and waited < wait_s:
            step = min(_POLL_S, wait_s - waited)
            self._pause(step)
            waited += step
            place.progress.advance(round(step))
            watch.update(place.read_leases())
        return watch

    def _delete_all(self, packs: Mapping[PackRef, int]) -> None:
        place = self._place
        place.progress.phase("deleting", len(packs))
        going, copied = list[PackRef](), place.rescue.copied
        for pack in sorted(packs):
            if self._secured(pack):
                going.append(pack)
            full = place.rescue.copied - copied >= _COPIED_AT_ONCE
            if full or len(going) >= _DELETED_AT_ONCE:
                self._delete(going, packs)
                going, copied = [], place.rescue.copied
        self._delete(going, packs)

    def _secured(self, pack: PackRef) -> bool:
        """Whether the pack may go, once copies are flushed."""
        place, key = self._place, object_key(pack.kind, pack.name.hex())
        try:
            lost = place.rescue.secure(BlobSource(place.sealed, pack), place.trashed)
        except ObjectMissing:
            return True  # another collector was faster, and has seen to what is live
        except (ObjectDamaged, UnknownFormat) as error:
            place.report.damaged += (f"what it holds is not known, so it is kept: {error}",)
            return False
        if lost:
            place.mark_damaged([(content_id, pack) for content_id in lost])
            place.report.damaged += (
                f"{key}: {len(lost)} blobs that are needed are damaged and have no good copy, so "
                "it is kept: run heal",
            )
        return not lost

    def _delete(self, going: list[PackRef], packs: Mapping[PackRef, int]) -> None:
        """Only once what was copied out of them is durable and indexed."""
        place = self._place
        place.rescue.flush()

        def delete(pack: PackRef) -> None:
            place.sealed.delete(pack.kind, pack.name.hex())
            place.progress.advance(1)

        try:
            if len(going) <= _INLINE:
                list(map(delete, going))
            else:
                with ThreadPoolExecutor(2 * (os.cpu_count() or 1), "delete") as workers:
                    list(workers.map(delete, going))
        except StoreReadOnly as error:
            raise StoreReadOnly(
                f"collecting needs the right to delete, which is not given here: {error}"
            ) from error
        place.report.freed_packs += len(going)
        place.report.freed += sum(packs[pack] for pack in going)
