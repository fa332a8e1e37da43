"""What every store promises, asked of each; and what only a directory can do wrong."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backpoint_repo.block_place import BlockPlace
from backpoint_repo.errors import (
    ObjectExists,
    ObjectMissing,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from backpoint_repo.store.contract import Store, StoredObject, Tail
from backpoint_repo.store.local import IOV_MAX, OPEN_FILES_MAX, TEMPORARY, LocalStore

MIB = 1 << 20


@pytest.fixture(params=["itself", "cached"])
def store(store: Store, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind, and read through a cache on this machine."""
    if request.param == "itself":
        return store
    return BlockPlace(tmp_path / "cache").over(store, bytes(16), bytes(32))


def keys(store: Store, prefix: str = "") -> list[str]:
    return sorted(found.key for found in store.list(prefix))


def test_what_is_put_is_got(store: Store) -> None:
    store.put("packs/ab/abc", [b"one", bytearray(b"two"), memoryview(b"three")])
    assert store.get("packs/ab/abc") == b"onetwothree"
    assert store.size("packs/ab/abc") == 11


def test_the_first_put_wins(store: Store) -> None:
    store.put("points/a", [b"first"])
    with pytest.raises(ObjectExists):
        store.put("points/a", [b"second"])
    assert store.get("points/a") == b"first"


def test_eight_racers_have_one_winner(store: Store) -> None:
    # SeaweedFS lets racers wait for each other by the second.
    for round_ in range(10 if store.lanes == 1 else 1):
        start = threading.Barrier(8)

        def race(me: int, key: str = f"points/{round_}", start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                store.put(key, [bytes([me]) * 5000])
            except ObjectExists:
                return False
            assert store.get(key) == bytes([me]) * 5000
            return True

        with ThreadPoolExecutor(8) as racers:
            assert sum(racers.map(race, range(8))) == 1


def test_listing_shows_whole_objects_only(store: Store) -> None:
    """A reader lists all the while; what it sees has its full size, and no temporary names."""
    done = threading.Event()
    seen: list[tuple[str, int]] = []

    def watch() -> None:
        while not done.is_set():
            seen.extend(store.list(""))

    with ThreadPoolExecutor(1) as watcher:
        watching = watcher.submit(watch)
        for number in range(30):
            store.put(f"index/{number}", [b"x" * 1000] * 100)
        done.set()
        watching.result()
    assert {size for _, size in seen} <= {100_000}
    assert {key.partition("/")[0] for key, _ in seen} <= {"index"}
    assert len(keys(store)) == 30


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 10, b"0123456789"), (3, 4, b"3456"), (8, 100, b"89"), (10, 5, b""), (99, 5, b""),
     (4, 0, b""), (9, 1, b"9")],
)  # fmt: skip
def test_ranged_gets(store: Store, offset: int, length: int, expected: bytes) -> None:
    store.put("packs/00/x", [b"0123456789"])
    assert store.get_range("packs/00/x", offset, length) == expected


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, b""), (1, b"9"), (4, b"6789"), (10, b"0123456789"), (99, b"0123456789")],
)
def test_tails(store: Store, length: int, expected: bytes) -> None:
    store.put("packs/00/x", [b"0123456789"])
    assert store.get_tail("packs/00/x", length) == Tail(10, expected)
    store.put("packs/00/empty", [])
    assert store.get_tail("packs/00/empty", length) == Tail(0, b"")


def test_requests_at_once_that_pay_off(store: Store) -> None:
    assert 1 <= store.lanes <= 64


def test_missing_objects(store: Store) -> None:
    store.put("slots/there", [b""])
    for key in ("slots/gone", "nowhere/gone", "slots/there/below"):
        with pytest.raises(ObjectMissing, match=key):
            store.get(key)
        with pytest.raises(ObjectMissing, match=key):
            store.get_range(key, 0, 1)
        with pytest.raises(ObjectMissing, match=key):
            store.get_tail(key, 1)
        with pytest.raises(ObjectMissing, match=key):
            store.size(key)
        store.delete("slots/gone")
    assert store.get("slots/there") == b""
    assert store.size("slots/there") == 0


def test_listing_by_prefix(store: Store) -> None:
    assert keys(store) == []
    names = ["config", "packs/ab/abcd", "packs/ff/ff00", "packsaddle/x", "points/p"]
    for name in names:
        store.put(name, [name.encode()])
    assert keys(store) == names
    assert keys(store, "packs/") == ["packs/ab/abcd", "packs/ff/ff00"]
    assert keys(store, "packs/ab/") == ["packs/ab/abcd"]
    assert keys(store, "trash/") == []
    assert {found.size for found in store.list("packs/")} == {13}


def test_more_objects_than_one_answer_lists(store: Store) -> None:
    """Object stores list a thousand at a time. A reader who wants no more does not wait."""
    count = 2100 if store.lanes > 1 else 300
    names = {f"points/{number * 2654435761 % (1 << 32):08x}" for number in range(count)}
    with ThreadPoolExecutor(store.lanes) as writers:
        list(writers.map(lambda name: store.put(name, [b"x"]), names))
    found = list(store.list("points/"))
    assert sorted(found) == [StoredObject(name, 1) for name in sorted(names)]
    assert next(iter(store.list("points/"))).key in names


def test_delete_frees_the_name(store: Store) -> None:
    store.put("leases/a", [b"1"])
    assert store.get_range("leases/a", 0, 1) == b"1"
    store.delete("leases/a")
    store.delete("leases/a")
    assert keys(store, "leases/") == []
    with pytest.raises(ObjectMissing):
        store.get_range("leases/a", 0, 1)
    store.put("leases/a", [b"2"])
    assert store.get_range("leases/a", 0, 1) == b"2"


def test_large_pieces(store: Store) -> None:
    piece = os.urandom(10 * MIB)
    store.put("packs/01/big", [piece, b"", piece[:1], piece])
    assert store.size("packs/01/big") == 20 * MIB + 1
    assert store.get_range("packs/01/big", 10 * MIB, 3) == piece[:1] + piece[:2]
    assert store.get("packs/01/big") == piece + piece[:1] + piece


@pytest.mark.parametrize("count", [IOV_MAX - 1, IOV_MAX, IOV_MAX + 1, 3 * IOV_MAX + 7])
def test_many_pieces(store: Store, count: int) -> None:
    pieces = [str(number).encode() for number in range(count)]
    store.put("packs/02/many", [b"", *pieces, b""])
    assert store.get("packs/02/many") == b"".join(pieces)


def test_many_readers_of_many_objects(store: Store) -> None:
    count = OPEN_FILES_MAX + 50 if store.lanes == 1 else 50
    for number in range(count):
        store.put(f"packs/{number % 7:02}/{number}", [str(number).encode() * 10])

    def read(number: int) -> bool:
        number %= count
        expected = str(number).encode() * 10
        return store.get_range(f"packs/{number % 7:02}/{number}", 1, 99) == expected[1:]

    with ThreadPoolExecutor(6) as readers:
        assert all(readers.map(read, range(3 * count)))


def test_local_objects_are_the_owners_only(tmp_path: Path) -> None:
    LocalStore(tmp_path / "deep" / "store").put("packs/aa/b", [b"x"])
    for path in (tmp_path / "deep").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_local_leftovers_of_a_crash_are_not_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("config", [b"x"])
    (tmp_path / TEMPORARY / "0123").write_bytes(b"half an object")
    assert keys(store) == ["config"]


def test_local_store_fails_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    store = LocalStore(tmp_path / "file")
    with pytest.raises(StoreUnavailable, match="file"):
        store.put("config", [b"x"])
    with pytest.raises(ObjectMissing):
        store.get("config")


def test_local_put_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("config", [b"x"])
    with pytest.raises(StoreUnavailable, match=os.strerror(errno.ENAMETOOLONG)):
        store.put("points/" + "n" * 300, [b"x"])
    assert list((tmp_path / TEMPORARY).iterdir()) == []
    assert keys(store) == ["config"]


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 2 MiB."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "backpoint-test", str(folder)]
    subprocess.run(mount, check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_local_volume_that_is_full(small_volume: Path) -> None:
    store = LocalStore(small_volume)
    store.put("config", [b"x"])
    with pytest.raises(StoreFull):
        store.put("packs/aa/b", [bytes(MIB)] * 3)
    assert keys(store) == ["config"]
    store.put("packs/aa/b", [bytes(MIB)])
    assert list((small_volume / TEMPORARY).iterdir()) == []


def test_local_volume_that_is_read_only(small_volume: Path) -> None:
    store = LocalStore(small_volume)
    store.put("points/a", [b"x"])
    subprocess.run(["mount", "-o", "remount,ro", str(small_volume)], check=True)
    with pytest.raises(StoreReadOnly):
        store.put("points/b", [b"x"])
    with pytest.raises(StoreReadOnly):
        store.delete("points/a")
    assert store.get("points/a") == b"x"
    assert keys(store) == ["points/a"]
