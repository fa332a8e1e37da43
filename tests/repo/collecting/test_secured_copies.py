"""Copies that a collector relies on: what was added and lies in no forbidden pack, and nothing
else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.collecting import secured_copies
from backpoint_repo.collecting.secured_copies import SecuredCopies
from backpoint_repo.format import Kind
from backpoint_repo.index import ids_of
from backpoint_repo.index_segment import PackRef

PACKS = [PackRef(Kind.DATA_PACK, bytes([number]) * 16) for number in range(4)]
COPIES = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 2), st.sampled_from(PACKS)), max_size=40
)


def content_id(number: int) -> bytes:
    """They begin alike."""
    return b"i" * 16 + bytes([number]) * 16


def digest(number: int) -> bytes:
    return bytes([number]) * 16


def held(
    copies: SecuredCopies, wanted: list[tuple[int, int]], forbidden: set[PackRef]
) -> list[bool]:
    ids = ids_of([content_id(one) for one, _ in wanted])
    digests = np.array([list(digest(two)) for _, two in wanted], np.uint8)
    return [bool(found) for found in copies.hold(ids, digests, forbidden)]


ALL = [(one, two) for one in range(10) for two in range(3)]


@given(COPIES, COPIES, st.sets(st.sampled_from(PACKS)))
def test_what_was_added_outside_forbidden_packs_is_held(
    first: list[tuple[int, int, PackRef]],
    second: list[tuple[int, int, PackRef]],
    forbidden: set[PackRef],
) -> None:
    """Also between additions, when what came before is in tables that are merged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secured_copies, "_PENDING_MAX", 5)
        copies, added = SecuredCopies(), set[tuple[int, int, PackRef]]()
        for portion in (first, second):
            for one, two, pack in portion:
                copies.add(content_id(one), digest(two), pack)
            added.update(portion)
            usable = {(one, two) for one, two, pack in added if pack not in forbidden}
            assert held(copies, ALL, forbidden) == [pair in usable for pair in ALL]
