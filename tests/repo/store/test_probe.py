"""Stores are tried before they are changed: real ones that keep two writers apart, a real one that
does not, and models of each guarantee that may be missing.
"""

from __future__ import annotations

import random
import secrets
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backpoint_repo.errors import (
    ObjectExists,
    ObjectMissing,
    StoreReadOnly,
    StoreUnavailable,
    StoreUnfit,
)
from backpoint_repo.store.address import open_store
from backpoint_repo.store.bucket import open_bucket
from backpoint_repo.store.contract import Piece, Store, StoredObject, Tail
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.store.object_store import ObjectStore
from backpoint_repo.store.place import BucketPlace, parse_place
from backpoint_repo.store.probe import GUARD, GuardedStore, probe_new
from careless_server import CarelessServer, careless_server
from command_line import CommandLine, make_repository, opened
from object_server import ObjectServer
from small_repository import PASSPHRASE, assert_clean

USERS = 8


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[CarelessServer]:
    (tmp_path / "careless").mkdir()
    with careless_server(tmp_path / "careless") as running:
        yield running


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def bare_store(address: str, server: ObjectServer) -> Store:
    """What is there, probes too."""
    place = parse_place(address)
    assert isinstance(place, BucketPlace)
    return ObjectStore(open_bucket(place, None, server.environment()), address)


def keys(store: Store) -> set[str]:
    return {found.key for found in store.list("")}


# --- a store that is fit ---------------------------------------------------------------------


def test_a_place_tried_for_a_repository_keeps_the_guard_only(server: ObjectServer) -> None:
    address = f"s3://tests/{secrets.token_hex(8)}"
    probe_new(open_store(address, server.environment()))
    bare = bare_store(address, server)
    assert keys(bare) == {GUARD}
    assert keys(open_store(address, server.environment())) == set()


def test_users_who_all_come_first_all_find_a_good_store_good(server: ObjectServer) -> None:
    """Each with a connection of its own, half of them to make a repository, where nobody was."""
    address = f"s3://tests/{secrets.token_hex(8)}"
    barrier = threading.Barrier(USERS)

    def first_use(number: int) -> None:
        store = open_store(address, server.environment())
        barrier.wait()
        if number % 2:
            probe_new(store)
        store.put(f"packs/{number}", [b"x"])

    with ThreadPoolExecutor(USERS) as users:
        list(users.map(first_use, range(USERS)))
    bare = bare_store(address, server)
    assert keys(bare) == {GUARD} | {f"packs/{number}" for number in range(USERS)}


def test_one_request_finds_a_known_store_fit_and_reading_needs_none() -> None:
    inner = CountingStore()
    GuardedStore(inner).put("a", [b"1"])
    inner.puts.clear()
    store = GuardedStore(inner)
    assert store.get("a") == b"1"
    assert store.get_range("a", 0, 1) == b"1"
    assert store.get_tail("a", 1) == Tail(1, b"1")
    assert store.size("a") == 1
    assert keys(store) == {"a"}
    assert inner.puts == []
    store.put("b", [b"2"])
    store.put("c", [b"3"])
    store.delete("b")
    assert inner.puts == [GUARD, "b", "c"]


def test_deleting_is_changing() -> None:
    with pytest.raises(StoreUnfit):
        GuardedStore(Overwriting()).delete("a")


def test_threads_of_a_process_try_once() -> None:
    inner = CountingStore()
    inner.put(GUARD, [b"there"])
    inner.puts.clear()
    store = GuardedStore(inner)
    with ThreadPoolExecutor(USERS) as users:
        list(users.map(lambda number: store.put(f"a/{number}", [b"x"]), range(50)))
    assert inner.puts.count(GUARD) == 1


def test_what_may_not_be_deleted_stays_and_hurts_nobody() -> None:
    """As with an append-only credential."""
    inner = AppendOnly()
    probe_new(GuardedStore(inner))
    left = keys(inner)
    assert len(left) > 1
    assert all(key.startswith("probe/") for key in left)
    GuardedStore(inner).put("a", [b"1"])
    assert keys(GuardedStore(inner)) == {"a"}


def test_a_store_that_does_not_answer_is_tried_again_later() -> None:
    inner = CountingStore()
    store = GuardedStore(inner)
    inner.down = True
    with pytest.raises(StoreUnavailable, match="down"):
        store.put("a", [b"1"])
    inner.down = False
    store.put("a", [b"1"])
    assert keys(store) == {"a"}


# --- stores that lack something --------------------------------------------------------------


class CountingStore(MemoryStore):
    """Keys of all puts; down: nothing can be put."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[str] = []
        self.down = False

    def put(self, key: str, pieces: list[Piece]) -> None:
        if self.down:
            raise StoreUnavailable("the store is down")
        self.puts.append(key)
        super().put(key, pieces)


class AppendOnly(MemoryStore):
    def delete(self, key: str) -> None:
        raise StoreReadOnly(f"cannot delete {key}")


class Overwriting(CountingStore):
    """Ignores the condition."""

    def put(self, key: str, pieces: list[Piece]) -> None:
        super().delete(key)
        super().put(key, pieces)


class AlwaysTaken(MemoryStore):
    def put(self, key: str, pieces: list[Piece]) -> None:
        if key != GUARD:
            raise ObjectExists(key)
        super().put(key, pieces)


class LateToRead(MemoryStore):
    def get(self, key: str) -> bytes:
        raise ObjectMissing(key)


class StaleReads(MemoryStore):
    def get(self, key: str) -> bytes:
        return bytes(len(super().get(key)))


class WholeForParts(MemoryStore):
    """As servers that ignore Range do."""

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return self.get(key)


class LateToList(MemoryStore):
    def list(self, prefix: str) -> Iterator[StoredObject]:
        yield from ()


class LookThenWrite(MemoryStore):
    """Refuses what is there when it looks; whoever looked at the same time overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.meeting = threading.Barrier(4)

    def put(self, key: str, pieces: list[Piece]) -> None:
        try:
            self.size(key)
        except ObjectMissing:
            if threading.current_thread() is not threading.main_thread():
                self.meeting.wait(30)
            super().delete(key)
            super().put(key, pieces)
        else:
            raise ObjectExists(key)


LACKING = {
    Overwriting: "put-if-absent",
    AlwaysTaken: "put-if-absent",
    LateToRead: "read-after-write",
    StaleReads: "read-after-write",
    WholeForParts: "ranged reads",
    LateToList: "listing after write",
    LookThenWrite: "atomic put-if-absent",
}


@pytest.mark.parametrize("kind", LACKING)
def test_what_is_missing_is_named_before_a_repository_is_made(kind: type[MemoryStore]) -> None:
    store = GuardedStore(kind())
    for _ in range(2):
        with pytest.raises(StoreUnfit, match=f"it lacks {LACKING[kind]}") as refused:
            probe_new(store)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", set(LACKING) - {LookThenWrite})
def test_the_first_use_of_an_untried_place_finds_the_same(kind: type[MemoryStore]) -> None:
    """What two processes at once would show is only looked for when a repository is made."""
    inner = kind()
    with pytest.raises(StoreUnfit, match=f"it lacks {LACKING[kind]}"):
        GuardedStore(inner).put("a", [b"1"])
    assert {found.key for found in MemoryStore.list(inner, "")} <= {GUARD}


def test_a_place_that_ignores_conditions_is_found_out_though_the_guard_is_there() -> None:
    inner = Overwriting()
    inner.put(GUARD, [b"from elsewhere"])
    inner.put("points/1", [b"kept"])
    inner.puts.clear()
    for _ in range(2):
        with pytest.raises(StoreUnfit, match="put-if-absent"):
            GuardedStore(inner).put("points/1", [b"new"])
    assert set(inner.puts) == {GUARD}
    assert inner.get("points/1") == b"kept"


# --- a real server that ignores conditions ---------------------------------------------------


@pytest.fixture
def line(careless: CarelessServer, tmp_path: Path) -> CommandLine:
    """The owner's commands on a prefix of the careless server."""
    variables = {
        "BACKPOINT_REPO": f"s3://careless/{secrets.token_hex(4)}",
        "BACKPOINT_PASSPHRASE": PASSPHRASE.text,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    return CommandLine(tmp_path, variables | careless.environment())


def test_no_repository_is_made_where_conditions_are_ignored(
    careless: CarelessServer, line: CommandLine
) -> None:
    address = line.variables["BACKPOINT_REPO"]
    said = line.run("init", code=4).error
    assert said.startswith(
        f"{address} cannot be written to as a repository: it lacks put-if-absent"
    )
    assert files_in(careless.folder / address.removeprefix("s3://")) == set()
    assert "there is no repository" in line.run("points", code=4).error


def test_a_repository_copied_there_is_read_and_not_written(
    careless: CarelessServer, line: CommandLine, tmp_path: Path
) -> None:
    """This server marks no part as one, so all objects are read whole."""
    owner, _ = make_repository(tmp_path, tmp_path / "repo")
    (tmp_path / "disk.raw").write_bytes(random.Random(1).randbytes(300_000))
    owner.run("backup", "image", "--vm", "vm", "disk.raw")
    place = careless.folder / line.variables["BACKPOINT_REPO"].removeprefix("s3://")
    shutil.copytree(tmp_path / "repo", place)
    (place / "probe").mkdir()
    (place / GUARD).write_bytes(b"of the place it comes from")
    before = files_in(place)

    points = line.run("points").out
    assert "vm" in points
    line.run("restore", "vm@latest", "--disk", "0", "-o", tmp_path / "out.raw")
    assert (tmp_path / "out.raw").read_bytes() == (tmp_path / "disk.raw").read_bytes()
    line.run("check", "--read-data")
    for _ in range(2):
        said = line.run("backup", "image", "--vm", "vm", "disk.raw", code=4).error
        assert "it lacks put-if-absent" in said
    assert files_in(place) == before
    assert line.run("points").out == points
    elsewhere = owner.having(BACKPOINT_REPO=place, BACKPOINT_PASSPHRASE=PASSPHRASE.text)
    assert_clean(opened(elsewhere))
    assert "foreign" not in elsewhere.run("stats").out
