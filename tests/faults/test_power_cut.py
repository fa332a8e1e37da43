"""The order of changes that makes a power cut harmless: each object after what it refers to."""

from __future__ import annotations

import pytest

from backpoint_repo import blob_writer, pack_stream
from backpoint_repo.repository import open_repository
from backpoint_repo.store.memory import MemoryStore
from faults.failing_store import FailingStore
from faults.other_process import disk_of
from small_repository import PASSPHRASE, back_up, new_repository


def test_packs_then_index_then_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small packs and several segments, so that the order is not luck."""
    monkeypatch.setattr(pack_stream, "PACK_SIZE", 64 << 10)
    monkeypatch.setattr(blob_writer, "_SEGMENT_AFTER", 8)
    inner = MemoryStore()
    new_repository(inner)
    only = frozenset({"put", "delete"})
    store = FailingStore(inner, 0, lambda: None, only=only)
    point = back_up(
        open_repository(store, PASSPHRASE), "web", disk_of(1, 2 << 20), disk_of(2, 2 << 20)
    )
    folders = [(method, key.split("/")[0]) for method, key in store.calls]
    assert folders[0] == ("put", "leases")
    assert folders[-1] == ("delete", "leases")
    assert folders[-2] == ("put", "points"), "all it needs is there before it exists"
    assert store.calls[-2][1] == f"points/{point.point_id.hex()}"
    assert folders.count(("put", "packs")) > 20
    assert folders.count(("put", "index")) > 1
    stored = set[str]()
    reader = open_repository(inner, PASSPHRASE)
    for method, key in store.calls:
        if method == "put" and key.startswith("index/"):
            reader.index.refresh()
            (table,) = [only_of(inner, key)]
            assert table <= stored, "a segment names only packs that are durable already"
        stored.add(key.rpartition("/")[2])
    assert {pack.name.hex() for pack in reader.index.packs()} <= stored


def only_of(store: MemoryStore, key: str) -> set[str]:
    """Names of the packs that one segment lists."""
    copy = MemoryStore()
    for found in store.list(""):
        if not found.key.startswith("index/") or found.key == key:
            copy.put(found.key, [store.get(found.key)])
    repository = open_repository(copy, PASSPHRASE)
    repository.index.refresh()
    return {pack.name.hex() for pack in repository.index.packs()}
