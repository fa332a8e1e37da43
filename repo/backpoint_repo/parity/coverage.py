"""How much of a repository parity protects, and what its groups lack. Says it, and acts on none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from backpoint_repo.index_segment import PackRef
from backpoint_repo.parity.group import Group
from backpoint_repo.parity.plan import hurt_members


@dataclass(frozen=True)
class Coverage:
    """Bytes are of packs, but for spare_bytes; packs that are about to be deleted do not count.

    hurt: groups that lack something. problems: packs and spares that could not be dealt with.
    """

    packs: int
    bytes: int
    covered_packs: int
    covered_bytes: int
    groups: int
    spare_bytes: int
    hurt: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def bare_bytes(self) -> int:
        """Of packs that no group covers."""
        return self.bytes - self.covered_bytes

    @property
    def cost(self) -> float:
        """Bytes of spares for each byte that is covered."""
        return self.spare_bytes / self.covered_bytes if self.covered_bytes else 0.0


def coverage_of(
    living: Collection[Group],
    present: Mapping[PackRef, int],
    hurt: Collection[str],
    problems: Collection[str],
) -> Coverage:
    """living: groups that are as they should be. present: pack -> bytes."""
    covered = frozenset[PackRef]().union(*(group.packs for group in living)) & present.keys()
    return Coverage(
        packs=len(present),
        bytes=sum(present.values()),
        covered_packs=len(covered),
        covered_bytes=sum(present[pack] for pack in covered),
        groups=len(living),
        spare_bytes=sum(group.size * len(group.spares) for group in living),
        hurt=tuple(hurt),
        problems=tuple(problems),
    )


def what_lacks(
    groups: Mapping[Group, Collection[bytes]], sizes: Mapping[PackRef, int]
) -> Iterator[str]:
    """A sentence for each group that has not all it should have. groups: each with the names of its
    stored spares; sizes: bytes of all packs that are there."""
    for group, names in groups.items():
        packs = len(hurt_members(group, sizes))
        spares = len({spare.name for spare in group.spares} - set(names))
        if packs or spares:
            yield (
                f"{group.title} lacks {packs} of its {len(group.members)} packs (deleted by a "
                f"collector, damaged or lost) and {spares} of its {len(group.spares)} spares"
            )
