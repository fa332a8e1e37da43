"""Who takes points and leases away, in the model of leases and trash.

Each step is one call of the store. Who removes a point and who ends a session meet at one key, with
a note beside it; who removes a point and who holds it meet in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from faults.protocol_store import VOID, Lease, Store


class Expiry(NamedTuple):
    """Any lease of these sessions may be taken for expired at any moment; in one step."""

    sessions: frozenset[int]
    over: bool = False

    def steps(self, store: Store, without: str) -> Iterator[tuple[str, Store, Expiry]]:
        """What it can do next: (what, the store after it, itself)."""
        for session in sorted(lease.session for lease in store.leases):
            if session in self.sessions:
                after = store.without_lease(session)
                if without != "void":
                    after = after.with_point(session, VOID)
                yield f"revoke {session}", after, self


class Reaper(NamedTuple):
    """Ends one session, call by call, whether it has published or not."""

    session: int
    pc: str = "void"

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.pc == "end"

    def steps(self, store: Store, without: str) -> Iterator[tuple[str, Store, Reaper]]:
        """What it can do next: (what, the store after it, the reaper after it)."""
        session = self.session
        if self.pc == "void" and store.lease(session):
            taken = store.point(session) not in (None, VOID)
            after = self._replace(pc="note" if taken else "drop")
            yield "put void", store.with_point(session, VOID), after
        elif self.pc == "note":
            noted = store._replace(unreleased=store.unreleased | {session})
            then = "drop" if without == "point looked for after the note" else "look"
            yield "put note", noted, self._replace(pc=then)
        elif self.pc == "look":
            stands = store.point(session) is not None
            yield "look at the point", store, self._replace(pc="drop" if stands else "void")
        elif self.pc == "drop":
            yield "drop the lease", store.without_lease(session), self._replace(pc="end")


class Pruner(NamedTuple):
    """Removes the points `left` in any order. notes: heeds the note `unreleased`."""

    left: frozenset[int]
    notes: bool = False
    pc: str = "choose"
    chosen: int = 0

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return not self.left and self.pc == "choose"

    def steps(self, store: Store, without: str) -> Iterator[tuple[str, Store, Pruner]]:
        """What it can do next: (what, the store after it, the pruner after it)."""
        early = without == "note looked for after the removal"
        done = self._replace(pc="choose", chosen=0)
        if self.pc == "look":
            noted = self.chosen in store.unreleased
            then = self._replace(pc="void") if noted else done
            yield "look for a note", store, self._replace(pc="remove") if early else then
        elif self.pc == "remove":
            yield "remove", store.without_point(self.chosen), done
        elif self.pc == "void":
            if store.point(self.chosen) in (None, VOID):
                yield "put void", store.with_point(self.chosen, VOID), done
            else:
                yield "remove again", store.without_point(self.chosen), self
        else:
            yield from self._choices(store, early)

    def _choices(self, store: Store, early: bool) -> Iterator[tuple[str, Store, Pruner]]:
        for session, letters in sorted(store.points):
            if session not in self.left or letters == VOID:
                continue
            chosen = self._replace(left=self.left - {session}, chosen=session)
            if not self.notes:
                after = chosen._replace(chosen=0)
                yield f"remove {session}", store.without_point(session), after
            elif early:
                noted = session in store.unreleased
                yield "look for a note", store, chosen._replace(pc="void" if noted else "remove")
            else:
                yield f"remove {session}", store.without_point(session), chosen._replace(pc="look")


class Holder(NamedTuple):
    """Puts a hold, then looks at the point: only then it is promised."""

    point: int
    letters: str = ""
    pc: str = "hold"

    @property
    def over(self) -> bool:
        """Whether it has ended; with `letters` where the point was promised."""
        return self.pc == "end"

    def steps(self, store: Store, without: str) -> Iterator[tuple[str, Store, Holder]]:
        """What it can do next: (what, the store after it, the holder after it)."""
        if self.pc == "hold":
            after = store._replace(holds=store.holds | {self.point})
            yield "put hold", after, self._replace(pc="look")
        elif self.pc == "look":
            letters = store.point(self.point) or ""
            yield "look at the point", store, Holder(self.point, letters, "end")


class Remover(NamedTuple):
    """Removes a point that nobody holds; looks again afterwards, and puts it back.

    Under a lease that pins it all the while. kept: its letters.
    """

    session: int
    point: int
    kept: str = ""
    pc: str = "pin"

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.pc == "end"

    def steps(self, store: Store, without: str) -> Iterator[tuple[str, Store, Remover]]:
        """What it can do next: (what, the store after it, the remover after it)."""
        if self.pc == "pin":
            kept = store.point(self.point) or ""
            lease = Lease(self.session, store.newest_epoch(), kept, (self.point,))
            after = store if without == "a lease of who removes" else store.with_lease(lease)
            yield "pin", after, self._replace(pc="look", kept=kept)
        elif self.pc == "look":
            held = self.point in store.holds
            yield "look for holds", store, self._replace(pc="release" if held else "remove")
        elif self.pc == "remove":
            yield "remove", store.without_point(self.point), self._replace(pc="again")
        elif self.pc == "again":
            held = self.point in store.holds
            after = store.with_point(self.point, self.kept) if held else store
            yield "look for holds again", after, self._replace(pc="release")
        elif self.pc == "release":
            yield "release", store.without_lease(self.session), self._replace(pc="end")
