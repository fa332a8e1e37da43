"""The table of what is wanted against a dictionary, and what it costs."""

from __future__ import annotations

import secrets
import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.format import Kind
from backpoint_repo.healing.wanted import CHUNK, PLACE, StoredImage, Wanted, keys_of
from backpoint_repo.index import ids_of

KINDS = st.sampled_from([Kind.DATA_PACK, Kind.NODE_PACK])
# Few different ids, among them such as end with zeros and differ in nothing else.
IDS = st.sampled_from([bytes([a]) + bytes(30) + bytes([b]) for a in (0, 1, 255) for b in (0, 7)])
ROWS = st.lists(st.tuples(KINDS, IDS, st.integers(0, 2), st.integers(0, 4)), max_size=20)


def table_of(rows: list[tuple[Kind, bytes, int, int]]) -> Wanted:
    images = [StoredImage("vm", f"disk{number}", 1 << 20) for number in range(3)]
    keys = [keys_of(kind, ids_of([content_id])) for kind, content_id, _, _ in rows]
    places = np.zeros(len(rows), PLACE)
    for place, (kind, _, image, offset) in zip(places, rows, strict=True):
        level = CHUNK if kind is Kind.DATA_PACK else 0
        place["image"], place["level"], place["offset"] = image, level, offset * 4096
        place["length"] = 4096
    empty = keys_of(Kind.DATA_PACK, ids_of([]))
    return Wanted(images, np.concatenate([empty, *keys]), places)


@given(ROWS, st.lists(st.tuples(KINDS, IDS)))
def test_it_is_a_set_of_ids_with_places(
    rows: list[tuple[Kind, bytes, int, int]], closed: list[tuple[Kind, bytes]]
) -> None:
    wanted = table_of(rows)
    model = {(kind, content_id) for kind, content_id, _, _ in rows}
    for kind, content_id in closed:
        (number,) = wanted.find(kind, ids_of([content_id]))
        assert (number >= 0) == ((kind, content_id) in model)
        if number >= 0:
            assert wanted.key(number) == (kind, content_id)
            wanted.close(number)
            model.discard((kind, content_id))
    assert len(wanted) == len(model)
    assert wanted.nodes == sum(kind is Kind.NODE_PACK for kind, _ in model)
    listed = [wanted.key(number) for batch in wanted.batches() for number in batch]
    assert sorted(listed) == sorted(model)
    expected = {
        (image, CHUNK if kind is Kind.DATA_PACK else 0, offset * 4096, content_id)
        for kind, content_id, image, offset in rows
        if (kind, content_id) in model
    }
    places = wanted.places(levels=(CHUNK, 0))
    found = [
        (image, level, offset, wanted.key(number)[1])
        for image, level, offset, _, number in places.tolist()
    ]
    assert sorted(found) == sorted(expected), "each place once"
    order = [(image, offset) for image, _, offset, _ in found]
    assert order == sorted(order), "in the order of disks"
    of_one = wanted.places(levels=(CHUNK, CHUNK), images=[1])
    assert len(of_one) == sum(row[:2] == (1, CHUNK) for row in expected)


def test_the_memory_of_a_place_is_that_of_its_arrays() -> None:
    """200,000 ids, each in two places."""
    count = 200_000
    ids = np.frombuffer(secrets.token_bytes(32 * count), np.uint8).reshape(-1, 32)
    keys = np.concatenate([keys_of(Kind.DATA_PACK, ids)] * 2)
    places = np.zeros(2 * count, PLACE)
    places["offset"] = np.arange(2 * count) * 65536
    places["length"] = 65536
    tracemalloc.start()
    try:
        wanted = Wanted([StoredImage("vm", "disk0", 1 << 40)], keys, places)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(wanted) == count
    assert kept < 100 * count
    assert peak < 400 * count
