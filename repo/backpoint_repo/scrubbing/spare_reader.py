"""One spare pack of parity, read in full against the digests in its group's record.

A spare holds no chunk, so nothing can be marked and no point is hurt: one that is wrong is made
anew by `backpoint parity`. Otherwise as `pack_reader.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from backpoint_repo.errors import ObjectDamaged, RepositoryError, UnknownFormat
from backpoint_repo.format import FOLDERS, Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.parity.group import Group, Spare, column_digest, columns_of, digest_at
from backpoint_repo.parity.spare_object import read_column, read_group
from backpoint_repo.scrubbing.pack_reader import PackVerdict, verdict_without_directory
from backpoint_repo.sealed_store import SealedStore

_NAME: Final = re.compile(r"[0-9a-f]{32}")


def spare_sizes(sealed: SealedStore) -> Iterator[tuple[PackRef, int]]:
    """Every spare in the store and its bytes; names that are not ours are passed over."""
    for key, size in sealed.store.list(f"{FOLDERS[Kind.PARITY]}/"):
        name = key.rpartition("/")[2]
        if _NAME.fullmatch(name):
            yield PackRef(Kind.PARITY, bytes.fromhex(name)), size


def read_spare(sealed: SealedStore, spare: PackRef, take: Callable[[int], None]) -> PackVerdict:
    """take: called before so many bytes are read; returns when it is time."""
    try:
        group = _group(sealed, spare)
        row = next(row for row in group.spares if row.name == spare.name)
        columns = columns_of(group.size, group.column)
        for at in range(columns):
            take(group.column_length(at))
            if not (_holds(sealed, group, row, at) or _holds(sealed, group, row, at)):
                raise ObjectDamaged(
                    f"{row.key}: column {at} is not what was stored; `backpoint parity --verify` "
                    "replaces it"
                )
    except RepositoryError as error:
        return verdict_without_directory(spare, error)
    return PackVerdict(spare, columns, group.size, whole=True)


def _group(sealed: SealedStore, spare: PackRef) -> Group:
    try:
        return read_group(sealed, spare.name)
    except (ObjectDamaged, UnknownFormat):
        return read_group(sealed, spare.name)


def _holds(sealed: SealedStore, group: Group, spare: Spare, at: int) -> bool:
    return column_digest(read_column(sealed, group, spare, at)) == digest_at(spare.digests, at)
