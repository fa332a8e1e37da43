"""What lasts is written once; what is only of the work is somewhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backpoint_repo.errors import ObjectExists, ObjectMissing, StoreReadOnly, StoreUnavailable
from backpoint_repo.store.contract import Tail
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.store.write_once import MediaStore, WriteOnce


def test_what_is_put_stays_and_is_seen_by_others(tmp_path: Path) -> None:
    """Nothing is made before the first put, and nothing but the object."""
    root = tmp_path / "media"
    store = WriteOnce(root)
    assert list(store.list("")) == []
    assert not root.exists()
    store.put("packs/ab/abc", [b"one", bytearray(b"two"), memoryview(b"three")])
    with pytest.raises(ObjectExists):
        store.put("packs/ab/abc", [b"other"])
    with pytest.raises(StoreReadOnly, match="written once"):
        store.delete("packs/ab/abc")
    store.settle()
    files = [path for path in root.rglob("*") if path.is_file()]
    assert files == [root / "packs/ab/abc"]
    assert files[0].stat().st_mode & 0o777 == 0o600
    for reader in (store, LocalStore(root)):
        assert reader.get("packs/ab/abc") == b"onetwothree"
        assert reader.get_range("packs/ab/abc", 3, 3) == b"two"
        assert reader.get_tail("packs/ab/abc", 2) == Tail(11, b"ee")
        assert [found.size for found in reader.list("packs/")] == [reader.size("packs/ab/abc")]
    with pytest.raises(ObjectMissing):
        store.get("packs/ab/abd")


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="cannot write"):
        WriteOnce(tmp_path / "file").put("config", [b"x"])


def test_many_pieces_are_one_object(tmp_path: Path) -> None:
    """More than one call of the system takes."""
    pieces = [os.urandom(3) for _ in range(5000)]
    store = WriteOnce(tmp_path)
    store.put("nodes/00/0", list(pieces))
    assert store.get("nodes/00/0") == b"".join(pieces)


def test_only_what_lasts_gets_there() -> None:
    lasting, scratch = MemoryStore(), MemoryStore()
    lasting.put("config", [b"made before"])
    store = MediaStore(lasting, scratch)
    for key in ("packs/a/a", "nodes/b/b", "points/c", "leases/d", "index/e", "catalog/f"):
        store.put(key, [key.encode()])
    assert {found.key for found in scratch.list("")} == {"leases/d", "index/e", "catalog/f"}
    assert {found.key for found in lasting.list("")} == {
        "config",
        "packs/a/a",
        "nodes/b/b",
        "points/c",
    }
    assert {found.key for found in store.list("")} == {
        found.key for part in (lasting, scratch) for found in part.list("")
    }
    assert (store.get("config"), store.get("leases/d")) == (b"made before", b"leases/d")
    assert (store.size("index/e"), store.get_range("points/c", 1, 3)) == (7, b"oin")
    assert store.get_tail("catalog/f", 1) == Tail(9, b"f")
    store.delete("leases/d")
    with pytest.raises(ObjectMissing):
        store.get("leases/d")
