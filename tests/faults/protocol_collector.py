"""A collector in the model of leases and trash: each step is one call of the store.

Marks, compacts if it likes, publishes trash, and sweeps any epoch there is. Nothing it read stays
true: others go on between any two steps. Rules that it can be told to break are named where they
matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from faults.protocol_store import SEEN_ALL, VOID, Lease, Pack, Store, TrashObject

Step = tuple[str, Store, "Collector"]
_NO_PACKS: frozenset[Pack] = frozenset()
_NO_NAMES: frozenset[str] = frozenset()


class Collector(NamedTuple):
    """passes: how often it begins again. compacts: whether it may copy live letters out of sparse
    packs. trash, packs, pins: as it read them. names: packs it is about to publish or delete.
    """

    session: int
    passes: int = 1
    compacts: bool = False
    pc: str = "lease"
    trash: frozenset[TrashObject] = frozenset()
    packs: frozenset[Pack] = _NO_PACKS
    owners: frozenset[int] = frozenset()
    pins: str = ""
    names: frozenset[str] = _NO_NAMES
    epoch: int = 0

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.pc == "end"

    def steps(self, store: Store, without: str) -> Iterator[Step]:
        """What it can do next: (what, the store after it, the collector after it)."""
        if not self.over:
            yield from getattr(self, "_" + self.pc)(store, without)

    def _bare(self, pc: str) -> Collector:
        return Collector(self.session, self.passes, self.compacts, pc)

    def _lease(self, store: Store, without: str) -> Iterator[Step]:
        lease = Lease(self.session, SEEN_ALL)
        yield "put lease", store.with_lease(lease), self._bare(_first(without))

    def _trash(self, store: Store, without: str) -> Iterator[Step]:
        then = "leases" if without == "trash before packs (collector)" else "packs"
        yield "read trash", store, self._replace(trash=store.trash, pc=then)

    def _packs(self, store: Store, without: str) -> Iterator[Step]:
        if without == "trash before packs (collector)":
            yield "list packs", store, self._replace(packs=store.packs, pc="trash")
            return
        late = without == "leases before points"
        yield (
            "list packs",
            store,
            self._replace(packs=store.packs, pc="points" if late else "leases"),
        )

    def _leases(self, store: Store, without: str) -> Iterator[Step]:
        owners = frozenset(lease.session for lease in store.leases)
        after = self._replace(owners=owners, pins=_pins(store, without), pc="points")
        if without == "leases before points":
            yield "list leases", store, after._replace(pins=self.pins + after.pins)._marked(without)
        else:
            yield "list leases", store, after

    def _points(self, store: Store, without: str) -> Iterator[Step]:
        after = self._replace(pins=self.pins + store.published())
        if without == "leases before points":
            yield "list points", store, after._replace(pc="leases")
        else:
            yield "list points", store, after._marked(without)

    def _marked(self, without: str) -> Collector:
        """`names`: the dead. A pack of which something is live may be compacted."""
        live = set(self.pins)
        trashed = {name for trash in self.trash for name in trash.packs}
        owners = frozenset[int]() if without == "owners' leases" else self.owners
        free = [pack for pack in self.packs if pack.owner not in owners]
        free = [pack for pack in free if pack.name not in trashed]
        dead = frozenset(pack.name for pack in free if not live & set(pack.holds))
        sparse = frozenset(
            pack for pack in free if pack.name not in dead and set(pack.holds) - live
        )
        gone = trashed - {pack.name for pack in self.packs}
        pc = "compact" if self.compacts and sparse else "publish" if dead else "reread"
        after = self._bare(pc)._replace(
            names=dead, epoch=_swept(self.trash, gone), trash=self.trash
        )
        return after._replace(packs=sparse, pins=_set(self.pins)) if pc == "compact" else after

    def _compact(self, store: Store, without: str) -> Iterator[Step]:
        """Copy first, put the old pack into trash after that; or leave it as it is."""
        bare = self._replace(packs=_NO_PACKS, pins="", pc="publish" if self.names else "reread")
        yield "no compaction", store, bare
        for pack in sorted(self.packs & store.packs):
            holds = _set(letter for letter in pack.holds if letter in self.pins)
            copy = Pack(f"{self.session}of{pack.name}", self.session, holds)
            after = bare._replace(names=self.names | {pack.name}, pc="publish")
            yield f"compact {pack.name}", store.with_pack(copy), after

    def _publish(self, store: Store, without: str) -> Iterator[Step]:
        newest = max((trash.epoch for trash in self.trash), default=0)
        mine = TrashObject(newest + 1, self.names, self.epoch)
        taken = {trash for trash in store.trash if trash.epoch == mine.epoch}
        if taken and without != "put-if-absent of trash":
            yield "epoch is taken", store, self._bare(_first(without))
            return
        after = store._replace(trash=store.trash - taken | {mine})
        known = self._bare("reread")._replace(trash=self.trash | {mine})
        yield f"put trash {mine.epoch}", after, known

    def _reread(self, store: Store, without: str) -> Iterator[Step]:
        """Take any epoch that is not over. All trash that is older is known then."""
        trash = self.trash if without == "trash again before a sweep" else store.trash
        todo = [one for one in trash if one.epoch > _over(trash) or without == "swept epochs"]
        for one in sorted(todo, key=_epoch):
            after = self._bare("wait")._replace(trash=trash, names=one.packs, epoch=one.epoch)
            yield f"sweep {one.epoch}", store, after
        over = frozenset(one for one in store.trash if one.epoch <= _over(store.trash))
        if over and without != "swept epochs":
            yield "drop what is over", store._replace(trash=store.trash - over), self
        elif not todo:
            yield from self._finish(store, without)

    def _wait(self, store: Store, without: str) -> Iterator[Step]:
        if without == "the wait" or all(lease.epoch >= self.epoch for lease in store.leases):
            first = "mark_pins" if without == "points before pins" else "mark_points"
            yield "all have seen it", store, self._replace(pc=first)

    def _mark_points(self, store: Store, without: str) -> Iterator[Step]:
        late = without == "points before pins"
        pins = "" if without == "the second mark" else store.published()
        after = self._replace(pins=_set(self.pins + pins), pc="copy" if late else "mark_pins")
        yield "list points again", store, after

    def _mark_pins(self, store: Store, without: str) -> Iterator[Step]:
        late = without == "points before pins"
        pins = "" if without == "the second mark" else _pins(store, without)
        after = self._replace(pins=_set(self.pins + pins), pc="mark_points" if late else "copy")
        yield "list pins again", store, after

    def _copy(self, store: Store, without: str) -> Iterator[Step]:
        """What is live and lies in this epoch gets a copy in a pack that is in no trash known."""
        here = [pack for pack in store.packs if pack.name in self.names]
        needed = {letter for pack in here for letter in pack.holds if letter in self.pins}
        done = self._bare("delete")._replace(names=self.names, epoch=self.epoch)
        if without == "nothing comes back":
            live = frozenset(pack.name for pack in here if set(pack.holds) & needed)
            yield (
                "rescue",
                _rescued(store, self.epoch, live),
                done._replace(names=self.names - live),
            )
            return
        if without == "copies before deletion":
            needed = set()
        trashed = {name for trash in self.trash for name in trash.packs}
        if without == "copies outside trash":
            trashed = set(self.names)
        good = {letter for pack in store.packs if pack.name not in trashed for letter in pack.holds}
        if needed <= good:
            yield "rely on copies", store, done
        if needed:
            copy = Pack(f"{self.session}copy{self.epoch}", self.session, _set(needed))
            yield f"copy {copy.holds}", store.with_pack(copy), done

    def _delete(self, store: Store, without: str) -> Iterator[Step]:
        """One pack after the other; such as others have deleted meanwhile cost no step."""
        there = sorted({pack.name for pack in store.packs} & self.names)
        if there:
            after = self._replace(names=frozenset(there[1:]))
            yield f"delete {there[0]}", store.without_pack(there[0]), after
        elif without == "the newest trash stays" or (
            without == "swept epochs" and self.epoch < store.newest_epoch()
        ):
            yield "drop trash", _dropped(store, self.epoch), self._bare("finish")
        else:
            yield from self._finish(store, without)

    def _finish(self, store: Store, without: str) -> Iterator[Step]:
        if self.passes > 1:
            after = self._replace(passes=self.passes - 1)._bare(_first(without))
            yield "begin again", store, after
        else:
            yield "release", store.without_lease(self.session), Collector(self.session, 0, pc="end")


def _first(without: str) -> str:
    return "packs" if without == "trash before packs (collector)" else "trash"


def _epoch(trash: TrashObject) -> int:
    return trash.epoch


def _dropped(store: Store, epoch: int) -> Store:
    return store._replace(trash=frozenset(one for one in store.trash if one.epoch != epoch))


def _rescued(store: Store, epoch: int, live: frozenset[str]) -> Store:
    """As if a pack could be taken out of trash again."""
    rest = {
        one._replace(packs=one.packs - live) if one.epoch == epoch else one for one in store.trash
    }
    return store._replace(trash=frozenset(rest))


def _over(trash: frozenset[TrashObject]) -> int:
    """Epochs up to this are over: all their packs are gone, and nobody sweeps them again."""
    return max(trash, key=_epoch).swept if trash else 0


def _swept(trash: frozenset[TrashObject], gone: set[str]) -> int:
    """trash: all of it, read before the packs were listed. gone: trashed and in no listing."""
    swept = _over(trash)
    for one in sorted(trash, key=_epoch):
        if one.epoch > swept and not one.packs <= gone:
            break
        swept = max(swept, one.epoch)
    return swept


def _pins(store: Store, without: str) -> str:
    if without == "pins with roots":
        standing = {session: letters for session, letters in store.points if letters != VOID}
        found = [standing.get(point, "") for lease in store.leases for point in lease.points]
        return _set("".join(found))
    return _set("".join(lease.pins for lease in store.leases))


def _set(letters: object) -> str:
    return "".join(sorted(set(letters)))  # type: ignore[call-overload]
