"""A backup session in the model of leases and trash: each step is one call of the store.

It deduplicates, also onto what its parent holds, stores what it does not find, looks again, and
publishes. Rules that it can be told to break are named where they matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from faults.protocol_store import VOID, Lease, Pack, Store

Step = tuple[str, Store, "Writer"]


class Writer(NamedTuple):
    """wants: the letters of the disk; `known` are (pack, letter) that were there when it listed,
    `refers` those that its point will depend on. reread: what its source says when it is
    read again, if not the same. sleeps: it may get no answer to its put, and put
    again; hasty: it may give up without knowing whether its put arrived."""

    session: int
    wants: str
    parent: int = 0
    reread: str = ""
    sleeps: bool = False
    hasty: bool = False
    pc: str = "lease"
    seen: int = 0
    excluded: frozenset[str] = frozenset()
    known: frozenset[tuple[str, str]] = frozenset()
    refers: frozenset[tuple[str, str]] = frozenset()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.pc == "end"

    def steps(self, store: Store, without: str) -> Iterator[Step]:
        """What it can do next: (what, the store after it, the writer after it)."""
        if not self.over:
            yield from getattr(self, "_" + self.pc)(store, without)

    def _end(self) -> Writer:
        return Writer(self.session, "", pc="end")

    def _lease(self, store: Store, without: str) -> Iterator[Step]:
        held = store.point(self.parent) if self.parent else None
        pins = held if held and held != VOID else ""
        after = store.with_lease(Lease(self.session, 0, pins, (self.parent,) if pins else ()))
        first = "packs" if without == "trash before packs" else "trash"
        yield "put lease", after, self._replace(pc=first, parent=self.parent if pins else 0)

    def _trash(self, store: Store, without: str) -> Iterator[Step]:
        then = "ack" if store.newest_epoch() else "packs"
        if without == "trash before packs":
            then = "ack" if store.newest_epoch() else "store"
        excluded = frozenset() if without == "trash filter" else store.trashed()
        after = self._replace(pc=then, seen=store.newest_epoch(), excluded=excluded)
        yield "read trash", store, after if then != "store" else after._planned(store, without)

    def _ack(self, store: Store, without: str) -> Iterator[Step]:
        """The lease says what was seen, before anything is referred to or after it is mended."""
        lease = store.lease(self.session)
        if lease is None:
            yield "lease is gone", store, self._end()
            return
        after = store.with_lease(lease._replace(epoch=self.seen))
        if self.refers:
            yield "say epoch", after, self._replace(pc="publish")
        elif without == "trash before packs":
            yield "say epoch", after, self._planned(store, without)
        else:
            yield "say epoch", after, self._replace(pc="packs")

    def _packs(self, store: Store, without: str) -> Iterator[Step]:
        known = frozenset((pack.name, letter) for pack in store.packs for letter in pack.holds)
        after = self._replace(known=known)
        if without == "trash before packs":
            yield "list packs", store, after._replace(pc="trash")
        else:
            yield "list packs", store, after._planned(store, without)

    def _planned(self, store: Store, without: str) -> Writer:
        """Refer to what is there and in no trash; the rest is to be stored."""
        usable = sorted(row for row in self.known if row[0] not in self.excluded)
        first = {letter: (name, letter) for name, letter in reversed(usable)}
        refers = {first[letter] for letter in self.wants if letter in first}
        grafted = store.point(self.parent) if self.parent else None
        if without == "graft only what has a copy" and grafted:
            refers |= {("?", letter) for letter in self.wants if letter in set(grafted) - {*first}}
        return self._replace(pc="store", refers=frozenset(refers))

    def _store(self, store: Store, without: str) -> Iterator[Step]:
        todo = sorted(set(self.wants) - {letter for _, letter in self.refers})
        if not todo:
            yield from self._look(store, without)
            return
        name = f"{self.session}{todo[0]}{sum(row[1] == todo[0] for row in self.known)}"
        row = (name, todo[0])
        after = self._replace(known=self.known | {row}, refers=self.refers | {row})
        yield f"put pack {name}", store.with_pack(Pack(name, self.session, todo[0])), after

    def _look(self, store: Store, without: str) -> Iterator[Step]:
        """Read trash again; what was trashed since is not referred to."""
        if without == "second look":
            seen = store.newest_epoch() if self.seen else 0
            yield "no look", store, self._replace(pc="publish", seen=seen)
            return
        fresh = store.trashed() - self.excluded
        excluded = self.excluded | fresh
        if without == "accumulated exclusions":
            excluded = store.trashed()
        after = self._replace(seen=store.newest_epoch(), excluded=excluded)
        if fresh and without != "store again":
            again = after._replace(wants=self.reread or self.wants)
            yield "look: fresh trash", store, again._planned(store, without)
        elif store.newest_epoch() > self.seen or fresh:
            yield "look", store, after._replace(pc="ack")
        else:
            yield "look", store, after._replace(pc="publish")

    def _publish(self, store: Store, without: str) -> Iterator[Step]:
        """That the lease still stands is not looked at here: the void decides without it."""
        after = store.with_point(self.session, self.wants)
        if without == "void":
            after = store.without_point(self.session).with_point(self.session, self.wants)
        yield "publish", after, self._bare("unsure" if self.sleeps else "release")
        if self.hasty:
            yield "publish: no answer", store, self._bare("give_up")

    def _bare(self, pc: str) -> Writer:
        """Nothing but `wants` matters any more."""
        return Writer(self.session, self.wants, sleeps=self.sleeps, pc=pc)

    def _unsure(self, store: Store, without: str) -> Iterator[Step]:
        """The put arrived, the machine sleeps before the answer, and puts again or learns of it."""
        if store.point(self.session) is None:
            yield "publish again", store.with_point(self.session, self.wants), self
        yield "answer", store, self._bare("release")

    def _give_up(self, store: Store, without: str) -> Iterator[Step]:
        if without != "void of one's own":
            store = store.with_point(self.session, VOID)
        yield "give up", store.without_lease(self.session), self._bare("late")

    def _late(self, store: Store, without: str) -> Iterator[Step]:
        yield "the put arrives", store.with_point(self.session, self.wants), self._end()

    def _release(self, store: Store, without: str) -> Iterator[Step]:
        yield "release", store.without_lease(self.session), self._end()
