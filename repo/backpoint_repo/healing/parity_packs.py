"""Heals from parity: packs that are gone or spoilt, made again from the rest of their groups.

Decides which packs are worth making again: those that hold, or may hold, something wanted. A pack
never comes back under its name (`parity/repair.py` says why); what is wanted of it is copied. Blobs
prove their ids as everywhere.
"""

from __future__ import annotations

from dataclasses import replace

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreUnavailable, UnknownFormat
from backpoint_repo.format import Kind, object_key
from backpoint_repo.healing.heal_session import HealSession, trouble_of
from backpoint_repo.healing.sealed_copy import CopyReader
from backpoint_repo.healing.wanted import Wanted
from backpoint_repo.index import Index, stored_packs
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.pack import blob_digest
from backpoint_repo.parity.repair import Groups, RecoveredPack, read_groups, recover_blobs
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.store.memory import MemoryStore


class ParityPacks:
    """A `Way`."""

    title = "from parity packs"

    def __init__(self, sealed: SealedStore, index: Index) -> None:
        self._sealed = sealed
        self._index = index

    def heal(self, wanted: Wanted, session: HealSession, progress: PhaseProgress) -> None:
        """Copy what is wanted out of packs made again. Raises what storing raises."""
        groups = read_groups(self._sealed)
        covered = frozenset[PackRef]().union(*(group.packs for group in groups.spares))
        packs = sorted(self._concerned(wanted, covered)) if covered else []
        progress.phase(self.title, len(packs))
        for pack in packs:
            if not len(wanted):
                return
            recovered = self._recovered(groups, pack, session)
            if recovered is not None:
                self._heal_from(recovered, wanted, session)
            progress.advance(1)

    def _concerned(self, wanted: Wanted, covered: frozenset[PackRef]) -> set[PackRef]:
        """Packs in which the index places something wanted; and what is gone, whose segments may be
        gone as well."""
        concerned = set(covered - set(stored_packs(self._sealed)))
        for batch in wanted.batches():
            for number in batch:
                _, content_id = wanted.key(number)
                concerned.update(place.pack for place in self._index.copies(content_id))
        return concerned & covered

    def _recovered(
        self, groups: Groups, pack: PackRef, session: HealSession
    ) -> RecoveredPack | None:
        try:
            return recover_blobs(self._sealed, groups, pack)
        except StoreUnavailable as error:
            session.note(trouble_of(error))
            return None

    def _heal_from(self, recovered: RecoveredPack, wanted: Wanted, session: HealSession) -> None:
        pack, directory = recovered.pack, recovered.directory
        reader = CopyReader(replace(self._sealed, store=_holding(recovered)))
        numbers = wanted.find(pack.kind, directory.ids)
        for at, number in enumerate(numbers):
            if number < 0 or not recovered.good[at] or not wanted.is_open(number):
                continue
            content_id = directory.ids[at].tobytes()
            place = Location(pack, int(directory.offsets[at]), int(directory.lengths[at]))
            if not reader.opens_data and self._is_what_was_marked(content_id, place, recovered, at):
                continue
            try:
                found = reader.read(pack.kind, content_id, place)
            except (ObjectDamaged, ObjectMissing, UnknownFormat):
                continue
            session.copy(wanted, number, found)

    def _is_what_was_marked(
        self, content_id: bytes, place: Location, recovered: RecoveredPack, at: int
    ) -> bool:
        """Whether a copy was marked as damaged just as it was stored. Then it never was good, and
        without the owner's key nobody can tell otherwise."""
        if place.pack.kind is Kind.NODE_PACK:
            return False
        if (content_id, place.pack) not in self._index.exclusions.damaged:
            return False
        key = object_key(place.pack.kind, place.pack.name.hex())
        try:
            blob = self._sealed.store.get_range(key, place.offset, place.length)
        except (ObjectMissing, StoreUnavailable):
            return False
        promised: bytes = recovered.directory.digests[at].tobytes()
        return blob_digest(blob) == promised


def _holding(recovered: RecoveredPack) -> MemoryStore:
    store = MemoryStore()
    key = object_key(recovered.pack.kind, recovered.pack.name.hex())
    store.put(key, [recovered.data])
    return store
