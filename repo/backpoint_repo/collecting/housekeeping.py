"""Small things without a use: notes on points that are gone; damage marks, index entries and trash
objects of packs that are.

Nothing depends on them, so all of it may be left undone. Deletes no packs and no points.
"""

from __future__ import annotations

from backpoint_repo.collecting.workplace import Workplace
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import ID_SIZE, Kind
from backpoint_repo.index import stored_packs
from backpoint_repo.retention.leftovers import drop_leftovers
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.segment_merge import merge_segments
from backpoint_repo.trash import drop_trash, pack_of


def tidy(place: Workplace) -> None:
    """Raises what a store raises."""
    place.report.dropped_notes = drop_leftovers(place.sealed, place.catalog, place.clock)
    _drop_marks(place.sealed)
    _drop_rows(place)


def _drop_rows(place: Workplace) -> None:
    """What segments say of packs that are gone; then trash that is over.

    In this order, so that whoever comes after a crash still learns from trash which packs went.
    That an epoch is over may be a lie: as long as a pack is there, somebody may be about to delete
    it, and trash must tell writers so.
    """
    trash = place.read_trash()
    if not place.trashed:
        return
    place.progress.phase("index", 1)
    stored = set(stored_packs(place.sealed))
    merge_segments(place.sealed, place.index, place.trashed - stored)
    for epoch in trash.over:
        if not trash.epochs[epoch] & stored:
            drop_trash(place.sealed, epoch)


def _drop_marks(sealed: SealedStore) -> None:
    """Packs never come back, so marks on those that are gone mean nothing."""
    marks = list(sealed.names(Kind.DAMAGE))
    if not marks:
        return
    packs = set(stored_packs(sealed))
    for name in marks:
        try:
            copies = sealed.get_record(Kind.DAMAGE, name).items("copies", bytes)
            marked = {pack_of(copy[ID_SIZE:], name) for copy in copies}
        except (ObjectMissing, ObjectDamaged, UnknownFormat):
            continue
        if not marked & packs:
            sealed.delete(Kind.DAMAGE, name)
