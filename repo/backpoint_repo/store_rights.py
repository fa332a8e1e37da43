"""What this credential may do to the store, found out by trying it on something without meaning.

A credential that can only add makes backups as well as any other. What it must not do is merge:
that puts one object in the place of many, and without the right to delete it would only ever add.
So whoever merges asks here first, and leaves it to a maintainer otherwise. Knows no policies of
stores, and remembers nothing: rights change while a session runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from backpoint_repo.errors import StoreUnavailable
from backpoint_repo.format import HEADER, SALT_SIZE, TAG_SIZE, Kind
from backpoint_repo.index_segment import EMPTY_TABLE
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.segment_shelf import put_segment, segment_sizes


def may_delete(sealed: SealedStore) -> bool:
    """Whether this credential can delete, found out with an index segment that says nothing.

    What cannot be deleted is left, and is the next one's to try: so there is one of them, however
    often somebody asks. A store that keeps versions counts as one that deletes.
    """
    name = next(_empty_segments(sealed), None) or put_segment(sealed, EMPTY_TABLE)
    try:
        sealed.delete(Kind.INDEX, name)
    except StoreUnavailable:
        return False
    return True


def _empty_segments(sealed: SealedStore) -> Iterator[str]:
    """By their size: there is no room for an entry in them."""
    size = HEADER.size + SALT_SIZE + 1 + len(EMPTY_TABLE.encode()) + TAG_SIZE
    return (name for name, found in segment_sizes(sealed).items() if found == size)
