"""All parity groups of a repository, as their spares tell them. Reads; deletes only what is told.

Each spare is read, because one may claim to stand for others: only what a spare says of itself
counts, and with it only that spare goes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, RepositoryError
from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.parity.group import Group
from backpoint_repo.parity.spare_object import read_group
from backpoint_repo.sealed_store import SealedStore

_NAME: Final = re.compile(r"[0-9a-f]{32}")
_WORKERS: Final = 4 * (os.cpu_count() or 1)


@dataclass(frozen=True)
class Groups:
    """spares: group -> names of the stored spares that say they belong to it, at least one each.
    damaged, unreadable: names of spares whose record is wrong, or cannot be read by us now -> why.
    """

    spares: Mapping[Group, frozenset[bytes]]
    damaged: Mapping[bytes, str]
    unreadable: Mapping[bytes, str]

    def of(self, pack: PackRef) -> list[Group]:
        """Those that cover a pack; the one with most of its spares first."""
        found = [group for group in self.spares if pack in group.packs]
        return sorted(found, key=lambda group: -len(self.spares[group]))

    def of_any(self, packs: Collection[PackRef]) -> list[Group]:
        """Those that cover at least one of these packs."""
        return [group for group in self.spares if not group.packs.isdisjoint(packs)]

    def within(self, packs: Collection[PackRef]) -> list[Group]:
        """Those that cover none but these packs."""
        return [group for group in self.spares if group.packs <= set(packs)]


def read_groups(sealed: SealedStore) -> Groups:
    """All there are. One small read for each spare. Raises what listing raises."""
    spares: dict[Group, set[bytes]] = {}
    damaged, unreadable = dict[bytes, str](), dict[bytes, str]()
    for name, found in _read_all(sealed):
        if isinstance(found, Group):
            spares.setdefault(found, set()).add(name)
        elif isinstance(found, ObjectDamaged):
            damaged[name] = str(found)
        elif not isinstance(found, ObjectMissing):
            unreadable[name] = str(found)
    return Groups({group: frozenset(names) for group, names in spares.items()}, damaged, unreadable)


def drop_group(sealed: SealedStore, names: Collection[bytes]) -> None:
    """Delete what says that it belongs to a group: `Groups.spares` of it. Is that safe? Yes where
    its packs were all deleted on purpose (`Groups.within`); else that is for `upkeep.py`."""
    for name in sorted(names):
        sealed.delete(Kind.PARITY, name.hex())


def _read_all(sealed: SealedStore) -> Iterator[tuple[bytes, Group | RepositoryError]]:
    def read(name: bytes) -> Group | RepositoryError:
        try:
            return read_group(sealed, name)
        except RepositoryError as error:
            return error

    named = sorted(name for name in sealed.names(Kind.PARITY) if _NAME.fullmatch(name))
    names = [bytes.fromhex(name) for name in named]
    with ThreadPoolExecutor(_WORKERS, "parity") as workers:
        yield from zip(names, workers.map(read, names), strict=True)
