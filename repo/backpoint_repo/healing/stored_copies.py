"""Heals with blobs as they lie in packs: this repository's own, or those of a byte copy of it.

A copy that a check has marked may read well again (a disk that was gone, memory that was bad), and
a pack cut short still holds its beginning. Decides which copies are asked, in the order of packs;
what makes one worth believing is in `sealed_copy.py`.
"""

from __future__ import annotations

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreUnavailable, UnknownFormat
from backpoint_repo.format import Kind
from backpoint_repo.healing.heal_session import HealSession, trouble_of
from backpoint_repo.healing.sealed_copy import CopyReader
from backpoint_repo.healing.wanted import Wanted
from backpoint_repo.index import Index
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.sealed_store import SealedStore

Copy = tuple[bytes, PackRef]
"""Content id, and the pack it lies in."""


class StoredCopies:
    """A `Way`. own: whether the copies are this repository's, so that bad ones are marked here."""

    def __init__(self, title: str, sealed: SealedStore, index: Index, *, own: bool) -> None:
        """index: of the repository that `sealed` is, told of its damage marks."""
        self._title = title
        self._index = index
        self._reader = CopyReader(sealed)
        self._own = own

    @property
    def title(self) -> str:
        """For people."""
        return self._title

    def heal(self, wanted: Wanted, session: HealSession, progress: PhaseProgress) -> None:
        """Copy what opens and is what its id says."""
        progress.phase(self._title, len(wanted))
        for batch in wanted.batches():
            for copies in self._by_pack(wanted, batch):
                bad = self._heal_from(copies, wanted, session)
                if self._own:
                    session.mark(bad)
            progress.advance(len(batch))

    def _by_pack(self, wanted: Wanted, batch: list[int]) -> list[list[tuple[int, Location]]]:
        found: dict[PackRef, list[tuple[int, Location]]] = {}
        for number in batch:
            kind, content_id = wanted.key(number)
            for place in self._index.copies(content_id):
                if self._is_worth_reading(kind, content_id, place.pack):
                    found.setdefault(place.pack, []).append((number, place))
        return [sorted(found[pack], key=lambda item: item[1].offset) for pack in sorted(found)]

    def _is_worth_reading(self, kind: Kind, content_id: bytes, pack: PackRef) -> bool:
        """Without the owner's key a marked chunk whose digest is right may be what the mark says:
        wrong bytes that somebody stored under this id."""
        if kind is Kind.NODE_PACK or self._reader.opens_data:
            return True
        return (content_id, pack) not in self._index.exclusions.damaged

    def _heal_from(
        self, copies: list[tuple[int, Location]], wanted: Wanted, session: HealSession
    ) -> list[Copy]:
        """Returns copies that are there and bad."""
        bad = []
        for number, place in copies:
            if not wanted.is_open(number):
                continue
            kind, content_id = wanted.key(number)
            try:
                found = self._reader.read(kind, content_id, place)
            except ObjectDamaged:
                bad.append((content_id, place.pack))
            except (ObjectMissing, UnknownFormat):
                continue
            except StoreUnavailable as error:
                session.note(trouble_of(error))
            else:
                session.copy(wanted, number, found)
        return bad


def own_copies(sealed: SealedStore, index: Index) -> StoredCopies:
    """The copies that this repository has, however badly spoken of."""
    return StoredCopies("from copies that read well again", sealed, index, own=True)
