"""Which packs make up a group, which groups stay, and what stands in the way of dropping the rest.

A spare is as large as its group's largest pack, so packs are grouped by size, whatever their kind:
that costs least, and small node packs, each of which is worth a lot, cost next to nothing. What is
left over makes a smaller group at once rather than stay unprotected; it is of the smallest packs,
so making it anew when others join costs little. Pure: reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from backpoint_repo.index_segment import PackRef
from backpoint_repo.parity.group import MEMBER_SIZE_MAX, Group
from backpoint_repo.parity.group_writer import StoredPack

Scheme = tuple[int, int]
"""Packs with data of a full group, and spares."""


@dataclass(frozen=True)
class Plan:
    """keep: groups that are as they should be. build: packs of each group to make. stale: groups
    that others replace. too_large: packs that no group can have."""

    keep: tuple[Group, ...]
    build: tuple[tuple[StoredPack, ...], ...]
    stale: tuple[Group, ...]
    too_large: tuple[StoredPack, ...]

    @property
    def read_bytes(self) -> int:
        """Of packs that are read to make the groups."""
        return sum(pack.size for part in self.build for pack in part)

    def written_bytes(self, spares: int) -> int:
        """Of spares that are made, but for their records."""
        return sum(spares * max(pack.size for pack in part) for part in self.build)


def plan_upkeep(
    fit: Mapping[PackRef, int],
    groups: Mapping[Group, Collection[bytes]],
    scheme: Scheme | None,
) -> Plan:
    """fit: pack -> bytes, of all that are there, whole as far as is known, and not about to be
    deleted. groups: each with the names of its spares that are stored. scheme: None for no parity.
    """
    keep, taken = list[Group](), set[PackRef]()
    sound = [group for group in groups if scheme and _is_sound(group, fit, groups[group], scheme)]
    for group in _in_order(group for group in sound if scheme and len(group.packs) == scheme[0]):
        if taken.isdisjoint(group.packs):
            keep.append(group)
            taken |= group.packs
    loose = [StoredPack(pack, size) for pack, size in fit.items() if pack not in taken]
    too_large = tuple(pack for pack in loose if pack.size > MEMBER_SIZE_MAX)
    shorter = {group.packs: group for group in reversed(_in_order(sound))}
    build = list[tuple[StoredPack, ...]]()
    for part in _parts([pack for pack in loose if pack.size <= MEMBER_SIZE_MAX], scheme):
        same = shorter.get(frozenset(pack.pack for pack in part))
        if same is None:
            build.append(part)
        else:
            keep.append(same)
    stale = tuple(_in_order(set(groups) - set(keep)))
    return Plan(tuple(keep), tuple(build), stale, too_large)


@dataclass(frozen=True)
class Parting:
    """What dropping a group would take from its packs. gone: members that are not there any more;
    bare: members that are there, and in no other group that counts."""

    gone: frozenset[PackRef]
    bare: frozenset[PackRef]


def plan_parting(group: Group, stored: Collection[PackRef], covering: Iterable[Group]) -> Parting:
    """stored: all packs that are there. covering: groups that stay and hold what they promise."""
    there = frozenset(pack for pack in group.packs if pack in stored)
    covered = frozenset[PackRef]().union(*(other.packs for other in covering))
    return Parting(group.packs - there, there - covered)


def hurt_members(group: Group, sizes: Mapping[PackRef, int]) -> frozenset[PackRef]:
    """Members that are not there, or have another size. sizes: bytes of all packs that are."""
    return frozenset(
        member.pack for member in group.members if sizes.get(member.pack) != member.size
    )


def _is_sound(
    group: Group, fit: Mapping[PackRef, int], spares: Collection[bytes], scheme: Scheme
) -> bool:
    """All its packs and spares are there; a full one, or one that was made for want of packs."""
    there = {spare.name for spare in group.spares} == set(spares)
    right = len(group.spares) == scheme[1] and len(group.members) <= scheme[0]
    return there and right and not hurt_members(group, fit)


def _parts(packs: list[StoredPack], scheme: Scheme | None) -> list[tuple[StoredPack, ...]]:
    if scheme is None:
        return []
    by_size = sorted(packs, key=lambda pack: (-pack.size, pack.pack))
    return [tuple(by_size[at : at + scheme[0]]) for at in range(0, len(by_size), scheme[0])]


def _in_order(groups: Iterable[Group]) -> list[Group]:
    """Of several that cover the same, everybody prefers the same."""
    return sorted(groups, key=lambda group: group.spares[0].name)
