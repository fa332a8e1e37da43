"""What the store holds, as the model of leases and trash sees it: values that can be compared.

A chunk is a letter, a pack is a name with the letters in it. Decides what each object says and what
a listing of it tells; not who does what when (`protocol_writer.py` and its neighbours).
"""

from __future__ import annotations

from typing import Final, NamedTuple

VOID: Final = "void"
"""Instead of a point's letters: the session was revoked before it published."""
SEEN_ALL: Final = 99
"""The epoch of a lease that refers to no pack of its own accord."""


class Pack(NamedTuple):
    """owner: the session that wrote it; holds: letters."""

    name: str
    owner: int
    holds: str


class Lease(NamedTuple):
    """pins: letters that must stay for this session. points: ids of what it pins."""

    session: int
    epoch: int
    pins: str = ""
    points: tuple[int, ...] = ()


class TrashObject(NamedTuple):
    """packs: names. swept: the epoch up to which its author has seen all trashed packs gone."""

    epoch: int
    packs: frozenset[str]
    swept: int = 0


class Store(NamedTuple):
    """points: (session, letters or VOID). unreleased: points with that note. holds: held points."""

    packs: frozenset[Pack] = frozenset()
    points: frozenset[tuple[int, str]] = frozenset()
    leases: frozenset[Lease] = frozenset()
    trash: frozenset[TrashObject] = frozenset()
    unreleased: frozenset[int] = frozenset()
    holds: frozenset[int] = frozenset()

    def point(self, session: int) -> str | None:
        """Its letters, VOID, or None where nothing is at its key."""
        return next((letters for owner, letters in self.points if owner == session), None)

    def with_point(self, session: int, letters: str) -> Store:
        """Put-if-absent."""
        if self.point(session) is not None:
            return self
        return self._replace(points=self.points | {(session, letters)})

    def without_point(self, session: int) -> Store:
        """Deleted, whatever is there."""
        return self._replace(points=frozenset(row for row in self.points if row[0] != session))

    def published(self) -> str:
        """All letters that points need."""
        return "".join(letters for _, letters in self.points if letters != VOID)

    def lease(self, session: int) -> Lease | None:
        """None where it does not stand."""
        return next((lease for lease in self.leases if lease.session == session), None)

    def with_lease(self, lease: Lease) -> Store:
        """Put, or refreshed."""
        return self.without_lease(lease.session)._replace_leases(lease)

    def _replace_leases(self, lease: Lease) -> Store:
        return self._replace(leases=self.leases | {lease})

    def without_lease(self, session: int) -> Store:
        """Released, or taken away."""
        rest = frozenset(lease for lease in self.leases if lease.session != session)
        return self._replace(leases=rest)

    def with_pack(self, pack: Pack) -> Store:
        """Put; durable and indexed at once, which is what a point's author waits for."""
        return self._replace(packs=self.packs | {pack})

    def without_pack(self, name: str) -> Store:
        """Deleted."""
        return self._replace(packs=frozenset(pack for pack in self.packs if pack.name != name))

    def newest_epoch(self) -> int:
        """0 where there never was any trash."""
        return max((trash.epoch for trash in self.trash), default=0)

    def trashed(self) -> frozenset[str]:
        """Names of all packs in any trash."""
        return frozenset[str]().union(*(trash.packs for trash in self.trash))
