"""Index entries out of pack directories, a segment's worth at a time.

The index is a cache of them: what a crash kept from being listed, and what rebuilding starts from,
comes through here. Knows no segments and reads nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from backpoint_repo.index_segment import IndexTable, PackRef, build_table
from backpoint_repo.pack import PackDirectory


class PackTable(NamedTuple):
    """What one pack holds, as index entries."""

    pack: PackRef
    table: IndexTable


def table_of_directory(pack: PackRef, directory: PackDirectory) -> IndexTable:
    """The index entries that a pack's directory implies."""
    return build_table(
        [pack],
        directory.ids,
        np.zeros(len(directory.ids), np.uint32),
        directory.offsets.astype(np.uint32),
        directory.lengths,
    )


def batches(tables: Iterable[PackTable], entries_max: int) -> Iterator[list[PackTable]]:
    """As many packs at a time as have `entries_max` entries together, or one that has more."""
    batch: list[PackTable] = []
    entries = 0
    for found in tables:
        if batch and entries + len(found.table) > entries_max:
            yield batch
            batch, entries = [], 0
        batch.append(found)
        entries += len(found.table)
    if batch:
        yield batch
