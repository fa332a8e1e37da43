"""Small things without a use: notes on points that are gone; damage marks, index entries and trash
objects of packs that are; and what writers who may only add have left in many small objects.

Nothing depends on it, so all of it may be left undone. Deletes no packs and no points.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.collecting.workplace import Workplace
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import ID_SIZE, Kind
from backpoint_repo.index import stored_packs
from backpoint_repo.index_segment import IndexTable, PackRef
from backpoint_repo.retention.leftovers import drop_leftovers
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.segment_merge import merge_segments
from backpoint_repo.trash import drop_trash, pack_of


def tidy(place: Workplace, unneeded: Collection[PackRef]) -> None:
    """unneeded: as below. Raises what a store raises."""
    place.report.dropped_notes = drop_leftovers(place.sealed, place.catalog, place.clock)
    place.catalog.refresh()
    place.catalog.compact()
    _drop_marks(place.sealed)
    _drop_rows(place, unneeded)


def unneeded_packs(place: Workplace) -> frozenset[PackRef]:
    """Packs that segments name, that are gone without a word in trash, and of which nothing is
    missed. What segments say of others is not to be dropped: backups learn from it what is lost."""
    stored = set(stored_packs(place.sealed)) - place.trashed
    tables = place.index.tables()
    gone = {pack for table in tables for pack in table.packs} - stored - place.trashed
    missed = set[PackRef]()
    for table in tables if gone else ():
        rows = np.flatnonzero(_of(table, gone)[table.pack_numbers] & place.marking.live.rows(table))
        for other in tables:
            rows = rows[other.find(table.ids(rows), _of(other, stored)) < 0]
        missed.update(table.packs[at] for at in np.unique(table.pack_numbers[rows]).tolist())
    return frozenset(gone - missed)


def _of(table: IndexTable, packs: Collection[PackRef]) -> NDArray[np.bool_]:
    """(packs,) which packs of a table are among these."""
    return np.array([pack in packs for pack in table.packs], np.bool_)


def _drop_rows(place: Workplace, unneeded: Collection[PackRef]) -> None:
    """What segments say of packs that are gone; then trash that is over.

    In this order, so that whoever comes after a crash still learns from trash which packs went.
    That an epoch is over may be a lie: as long as a pack is there, somebody may be about to delete
    it, and trash must tell writers so.
    """
    trash = place.read_trash()
    place.progress.phase("index", 1)
    if not place.trashed and not unneeded:
        merge_segments(place.sealed, place.index)
        return
    stored = set(stored_packs(place.sealed))
    merge_segments(place.sealed, place.index, place.trashed.union(unneeded) - stored)
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
