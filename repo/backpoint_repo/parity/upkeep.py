"""Brings parity up to date: makes what is missing, then drops what was replaced. Safe at any time.

A pack that a collector deleted on purpose and one that was lost look alike: neither is there. So a
group with such a member goes only if nothing at all is missing: every pack that is there is whole
and covered anew, and `check` finds every point whole without that member. Were that wrong (points
look whole because an agent forged copies just when a pack was lost), the last means to get the
pack back would be gone; so in any doubt the group stays, and the report says why. What is there
of such a group is covered anew at once, because it has got weaker.

A crash leaves groups that cover packs twice; the next run drops one of them after it has read the
other from end to end, because a group's record alone may be anybody's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from backpoint_repo.check import check_repository
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError
from backpoint_repo.exclusions import read_exclusions
from backpoint_repo.format import Kind
from backpoint_repo.index import pack_sizes
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease import BACKUP
from backpoint_repo.lease_book import read_leases
from backpoint_repo.parity.coverage import Coverage, coverage_of, what_lacks
from backpoint_repo.parity.group import COLUMN_SIZE, Group
from backpoint_repo.parity.group_book import drop_group, read_groups
from backpoint_repo.parity.group_writer import Copies, Made, Shape, problem_of, write_group
from backpoint_repo.parity.plan import Plan, Scheme, hurt_members, plan_parting, plan_upkeep
from backpoint_repo.repository import Repository
from backpoint_repo.trash import read_trash


@dataclass(frozen=True)
class UpkeepReport:
    """made, dropped: groups. waiting: groups that go when a collector has deleted packs of theirs.
    in_doubt: groups that would have gone, and why they stay."""

    coverage: Coverage
    made: int
    dropped: int
    waiting: int
    in_doubt: tuple[str, ...]

    def in_order(self, scheme: Scheme | None) -> bool:
        """All that is to be protected is, and nothing stays for want of certainty."""
        bare = 0 if scheme is None else self.coverage.packs - self.coverage.covered_packs
        return not (bare or self.in_doubt or self.coverage.problems)


class Upkeep:
    """Looks when it is made; `run` acts. For one thread."""

    def __init__(
        self, repository: Repository, scheme: Scheme | None, column: int = COLUMN_SIZE
    ) -> None:
        """scheme: None drops all parity. column: bytes. Raises as `read_trash`, and what listing
        raises."""
        self._repository = repository
        self._sealed = repository.sealed
        self._scheme = scheme
        self._column = column
        # In this order: what goes meanwhile was trash, and no group covers what is not listed yet.
        self._trashed = read_trash(self._sealed).packs
        self._book = read_groups(self._sealed)
        self._stored = dict(pack_sizes(self._sealed))
        self._groups = dict(self._book.spares)
        self._spoilt = dict(self._book.damaged)
        self._unfit: dict[PackRef, RepositoryError] = {}
        self._made: set[Group] = set()
        self._verdicts: dict[Group, str | None] = {}
        self._distrusted: dict[Group, str] = {}
        self._forgiven: Copies | None = None
        self.plan: Plan = self._planned()

    @property
    def groups(self) -> int:
        """How many there are."""
        return len(self._groups)

    def verify(self, advance: Callable[[int], None]) -> None:
        """Read every group with its packs, and plan to replace those that do not hold. advance:
        called with 1 for each."""
        for group in self._groups:
            if (problem := self._problem(group)) is not None:
                self._distrusted[group] = problem
            advance(1)
        self.plan = self._planned()

    def coverage(self) -> Coverage:
        """As it is now."""
        present = {p: size for p, size in self._stored.items() if p not in self._trashed}
        hurt = [*what_lacks(self._groups, self._stored)]
        hurt += [f"{group.title}: {why}" for group, why in self._distrusted.items()]
        return coverage_of(self.plan.keep, present, hurt, [*self._problems()])

    def run(self, advance: Callable[[int], None]) -> UpkeepReport:
        """Make, then drop. advance: called with bytes of packs read.

        Raises StoreUnavailable where nothing can be written or deleted.
        """
        while self.plan.build:
            self._make(advance)
            self.plan = self._planned()
        dropped, waiting, in_doubt = 0, 0, list[str]()
        covering = {pack: group for group in self.plan.keep for pack in group.packs}
        for group in self._stale_in_order():
            if self._is_waiting(group):
                waiting += 1
            elif (doubt := self._doubt(group, covering)) is not None:
                in_doubt.append(f"{group.title} stays: {doubt}")
            else:
                drop_group(self._sealed, self._groups.pop(group))
                self._distrusted.pop(group, None)
                dropped += 1
        self._drop_spoilt()
        return UpkeepReport(self.coverage(), len(self._made), dropped, waiting, tuple(in_doubt))

    def _stale_in_order(self) -> Iterator[Group]:
        """First those that go without asking `check`, which finds fault with spoilt spares too."""
        stale = self.plan.stale
        asking = [group for group in stale if hurt_members(group, self._stored)]
        yield from (group for group in stale if group not in asking)
        self._drop_spoilt()
        yield from asking

    def _planned(self) -> Plan:
        without = self._trashed | self._unfit.keys()
        fit = {pack: size for pack, size in self._stored.items() if pack not in without}
        trusted = {g: names for g, names in self._groups.items() if g not in self._distrusted}
        plan = plan_upkeep(fit, trusted, self._scheme)
        return Plan(plan.keep, plan.build, (*plan.stale, *self._distrusted), plan.too_large)

    def _make(self, advance: Callable[[int], None]) -> None:
        """Make what is planned, until packs turn out unfit: the next plan is without them."""
        assert self._scheme is not None, "without a scheme nothing is planned"
        shape = Shape(self._scheme[1], self._column)
        for part in self.plan.build:
            made = write_group(self._sealed, part, shape, advance, self._forgiven or ())
            self._note_unfit(made)
            if made.group is not None:
                self._made.add(made.group)
                self._groups[made.group] = frozenset(spare.name for spare in made.group.spares)
            else:
                return

    def _note_unfit(self, made: Made) -> None:
        """Most rot stays where it is once it is healed: the good copies are in other packs then. So
        where nothing lacks anything, packs are covered with the rot that is marked in them, and
        those whose directory is spoilt are of no use to anybody."""
        for pack, error in made.unfit.items():
            if pack in made.rotten and self._forgives_more():
                return  # once more, with that
            spoilt = isinstance(error, ObjectDamaged) and pack not in made.rotten
            if isinstance(error, ObjectMissing) or (spoilt and not self._what_is_missing):
                del self._stored[pack]
            else:
                self._unfit[pack] = error

    def _forgives_more(self) -> bool:
        """Look for rot that is marked and hurts nobody, where nobody has looked yet."""
        if self._forgiven is not None:
            return False
        self._forgiven = () if self._what_is_missing else read_exclusions(self._sealed).damaged
        return bool(self._forgiven)

    def _is_waiting(self, group: Group) -> bool:
        """Packs of it are about to be deleted; until then they may need it, and it does no harm."""
        there = group.packs & self._stored.keys()
        return self._scheme is not None and not self._trashed.isdisjoint(there)

    def _doubt(self, group: Group, covering: Mapping[PackRef, Group]) -> str | None:
        """Why a group must not go, if so. covering: pack -> the group that stays and has it."""
        if self._scheme is None:
            gone = hurt_members(group, self._stored)
        else:
            others = {covering[pack] for pack in group.packs if pack in covering}
            whole = [other for other in others if self._problem(other) is None]
            parting = plan_parting(group, self._stored, whole)
            gone = parting.gone
            if parting.bare:
                return f"{len(parting.bare)} of its packs are in no other group that is whole"
        if gone and self._unfit:
            return f"{len(self._unfit)} packs are damaged, and it may help to heal them"
        return self._what_is_missing if gone else None

    def _problem(self, group: Group) -> str | None:
        """Why a group cannot be relied on, if so. What was just made can."""
        if group in self._made:
            return None
        if group not in self._verdicts:
            problem = problem_of(self._sealed, group, self._forgiven or ())
            if problem is not None and self._forgives_more():
                problem = problem_of(self._sealed, group, self._forgiven or ())
            self._verdicts[group] = problem
        return self._verdicts[group]

    @cached_property
    def _what_is_missing(self) -> str | None:
        """Why a pack that is not there may have been lost: None where nothing lacks anything."""
        # Leases before points. Who begins later sees that the pack is not there; who was at it
        # before, and may refer to the pack, has published when there is no lease any more.
        for lease in read_leases(self._sealed):
            if lease.problem or lease.purpose == BACKUP:
                return f"{lease.title} may need a pack that is not there; run it again afterwards"
        if not check_repository(self._repository).clean:
            return "a pack is not there, and `backpoint check` finds damage; heal that first"
        return None

    def _drop_spoilt(self) -> None:
        """Spares whose own record is damaged, unless a group that stays names them: its record
        says what their bytes are worth. Not while there are some that may yet turn out to."""
        if self._book.unreadable:
            return
        named = {spare.name for group in self._groups for spare in group.spares}
        for name in sorted(self._spoilt.keys() - named):
            self._sealed.delete(Kind.PARITY, name.hex())
            del self._spoilt[name]

    def _problems(self) -> Iterator[str]:
        for pack in self.plan.too_large:
            yield f"{pack.key}: its {pack.size} bytes are too many for a parity group"
        yield from map(str, self._unfit.values())
        yield from self._spoilt.values()
        yield from self._book.unreadable.values()
