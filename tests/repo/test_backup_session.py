"""Sessions from lease to point: what they store, what they refuse, and what others do meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from backpoint_repo.backup_session import BackupSession, DiskJob
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import (
    ObjectExists,
    ObjectMissing,
    SessionRevoked,
    SourceError,
    SourceShrank,
    StoreUnavailable,
    UsageError,
)
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import BLOCK_SIZE, LEAF_SIZE, Kind, object_key
from backpoint_repo.index import ids_of
from backpoint_repo.index_segment import PackRef
from backpoint_repo.point import FILE_SIZE_MAX, Point
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Piece, Store
from backpoint_repo.store.memory import MemoryStore
from small_repository import (
    NOON,
    StandingClock,
    as_agent,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
    reopened,
)
from synthetic_disk import SyntheticDisk, random_disk

MIB = 1 << 20


def no_progress(_: int) -> None:
    pass


def trash(repository: Repository, epoch: int, packs: list[PackRef]) -> None:
    """As a collector publishes it."""
    rows = [bytes([pack.kind]) + pack.name for pack in packs]
    payload = encode_record({"epoch": epoch, "packs": rows})
    repository.sealed.put(Kind.TRASH, f"{epoch:016x}", payload)


def packs_behind(repository: Repository, point: Point) -> set[PackRef]:
    """Every pack that holds the only copy of something the point needs."""
    fresh = reopened(repository)
    fresh.index.refresh()
    needed: set[PackRef] = set()
    for disk in point.disks:
        disk_map = fresh.disk_map(disk)
        ids = [node_id for node_id, _, _ in disk_map.nodes()]
        for number, _ in disk_map.leaves():
            ids += [row.tobytes() for row in disk_map.leaf(number).ids if row.any()]
        for content_id in ids:
            copies = {place.pack for place in fresh.index.copies(content_id)}
            assert copies
            if len(copies) == 1:
                needed |= copies
    return needed


def test_read_back_at_random_offsets(store: Store) -> None:
    repository = new_repository(store)
    disk = random_disk(2 * LEAF_SIZE + 999, 1, extents=10, longest=MIB)
    point = back_up(repository, "vm", disk)
    reader = reopened(repository).open_disk(point.disks[0], ChunkCache(64 * MIB))
    rng = random.Random(2)
    for _ in range(300):
        offset = rng.choice([rng.randrange(disk.size), LEAF_SIZE - rng.randrange(9000)])
        length = rng.choice([0, 1, 511, 4096, 130_000, rng.randrange(2 * MIB)])
        expected = disk.content(offset, length)
        assert reader.read(offset, length) == expected
        cached = reader.read_cached(offset, length)
        assert cached is not None
        assert cached == expected
    assert_clean(repository)


def test_the_second_backup_stores_only_a_point(store: Store) -> None:
    repository = new_repository(store)
    disk = random_disk(LEAF_SIZE, 3)
    first = back_up(repository, "vm", disk)
    second = back_up(reopened(repository), "vm", disk)
    assert first.traffic.stored > 0
    assert (second.traffic.new, second.traffic.stored) == (0, 0)
    assert second.disks == first.disks
    assert (second.parent, second.generation) == (first.point_id, 1)
    assert keys_of(store, Kind.LEASE) == []
    assert_clean(repository)


def test_progress_adds_up_to_the_disk(repository: Repository) -> None:
    for size in (0, 1, 3 * LEAF_SIZE - 5, 40 * LEAF_SIZE):
        steps: list[int] = []
        with repository.begin_backup("vm") as session:
            disk = random_disk(size, size, extents=3, longest=5000)
            session.store_disk(DiskJob("disk0", disk), steps.append)
        assert sum(steps) == size
        assert min(steps, default=0) >= 0


@pytest.mark.parametrize("fault", [SourceError, SourceShrank])
def test_a_failing_source_makes_no_point_and_wastes_nothing(
    store: Store, fault: type[SourceError]
) -> None:
    repository = new_repository(store)
    disk = SyntheticDisk(12 * LEAF_SIZE)
    for leaf in range(12):
        disk.write(leaf * LEAF_SIZE, random.Random(leaf).randbytes(100_000))
    if fault is SourceShrank:
        disk.ends_at = 11 * LEAF_SIZE
    else:
        disk.fails_at = 11 * LEAF_SIZE
    with pytest.raises(fault), repository.begin_backup("vm") as session:
        session.store_disk(DiskJob("disk0", disk), no_progress)
    assert keys_of(store, Kind.POINT) == []
    assert keys_of(store, Kind.LEASE) == []
    disk.fails_at = disk.ends_at = None
    point = back_up(reopened(repository), "vm", disk)
    assert read_disk(repository, point.disks[0]) == disk.content(0, disk.size)
    assert_clean(repository)


def test_what_an_aborted_session_made_durable_is_found_again(store: Store) -> None:
    repository = new_repository(store)
    first, second = random_disk(MIB, 1), random_disk(MIB, 2)
    second.fails_at = 0
    with repository.begin_backup("vm") as session:
        session.store_disk(DiskJob("disk0", first), no_progress)
        session._writer.flush()
        with pytest.raises(SourceError):
            session.store_disk(DiskJob("disk1", second), no_progress)
    for key in keys_of(store, Kind.INDEX):
        store.delete(key)  # as if the writer had died before its index segment
    point = back_up(reopened(repository), "vm", first)
    assert (point.traffic.new, point.traffic.stored) == (0, 0)
    assert_clean(repository)


def test_a_session_that_failed_publishes_nothing(repository: Repository) -> None:
    """Chunks of the failed disk count as written; a point that used them would miss them."""
    disk = random_disk(MIB, 1)
    broken = SyntheticDisk(6 * LEAF_SIZE)
    broken.write(0, disk.content(0, disk.size))
    broken.write(5 * LEAF_SIZE, b"never read")
    broken.fails_at = 5 * LEAF_SIZE
    with repository.begin_backup("vm") as session:
        with pytest.raises(SourceError):
            session.store_disk(DiskJob("disk0", broken), no_progress)
        with pytest.raises(UsageError):
            session.store_disk(DiskJob("disk1", disk), no_progress)
        with pytest.raises(UsageError):
            session.publish(time=None, label="")
    assert keys_of(repository.sealed.store, Kind.POINT) == []


class FlakyStore(MemoryStore):
    """Refuses puts below a prefix while it is set."""

    refuses: str | None = None

    def put(self, key: str, pieces: list[Piece]) -> None:
        if self.refuses is not None and key.startswith(self.refuses):
            raise StoreUnavailable("no answer")
        super().put(key, pieces)


@pytest.mark.parametrize("prefix", ["packs/", "nodes/", "index/", "points/"])
def test_a_store_that_fails_once_makes_no_point_with_gaps(prefix: str) -> None:
    store = FlakyStore()
    repository = new_repository(store)
    disk = random_disk(MIB, 1)
    with repository.begin_backup("vm") as session:
        store.refuses = prefix
        session.store_disk(DiskJob("disk0", disk), no_progress)
        with pytest.raises(StoreUnavailable):
            session.publish(time=None, label="")
        store.refuses = None
        if prefix == "points/":
            session.publish(time=None, label="")
        else:
            with pytest.raises((StoreUnavailable, UsageError)):
                session.publish(time=None, label="")
    assert len(keys_of(store, Kind.POINT)) == (1 if prefix == "points/" else 0)
    back_up(repository, "vm", disk)
    assert_clean(repository)


def test_two_sessions_at_once(store: Store) -> None:
    """Of two VMs, and of one VM: both points are whole."""
    repository = new_repository(store)
    other = reopened(repository)
    disks = [random_disk(LEAF_SIZE + 5, 1), random_disk(LEAF_SIZE + 5, 2)]
    disks[1].write(0, disks[0].content(0, 2 * MIB))
    for names in (("one", "two"), ("one", "one")):
        with repository.begin_backup(names[0]) as left, other.begin_backup(names[1]) as right:
            left.store_disk(DiskJob("disk0", disks[0]), no_progress)
            right.store_disk(DiskJob("disk0", disks[1]), no_progress)
            points = [session.publish(time=None, label="") for session in (right, left)]
        for point, disk in zip(points, reversed(disks), strict=True):
            assert read_disk(reopened(repository), point.disks[0]) == disk.content(0, disk.size)
    assert len(repository.catalog.refresh()) == 4
    assert_clean(repository)


def test_a_revoked_session_does_not_publish(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    with repository.begin_backup("vm") as session:
        session.store_disk(DiskJob("disk0", disk), no_progress)
        repository.sealed.put(Kind.VOID, session.point_id.hex(), encode_record({}))
        with pytest.raises(SessionRevoked):
            session.publish(time=None, label="")
    assert repository.catalog.refresh() == []
    point = back_up(reopened(repository), "vm", disk)
    assert point.traffic.stored == 0, "what the revoked session stored is found again"
    assert point.parent is None
    assert_clean(repository)


def begin_and_store(repository: Repository, disk: SyntheticDisk, **job: object) -> BackupSession:
    session = repository.begin_backup("vm")
    changed = job.get("changed")
    assert changed is None or isinstance(changed, list)
    session.store_disk(DiskJob("disk0", disk, changed), no_progress)
    return session


@pytest.mark.parametrize("own_packs", [False, True])
def test_trash_that_appears_during_a_session_is_not_referred_to(
    repository: Repository, own_packs: bool
) -> None:
    disk = random_disk(MIB, 1)
    old = back_up(repository, "other", disk)
    dead = packs_behind(repository, old)
    with begin_and_store(reopened(repository), disk) as session:
        session.store_file("vm.vmx", b"config" * 50)
        trash(repository, 1, sorted(dead))
        if own_packs:
            session._writer.flush()
            everything = {*reopened_packs(repository)} - dead
            trash(repository, 2, sorted(everything))
        point = session.publish(time=None, label="")
        assert session._lease.terms.epoch == (2 if own_packs else 1)
    trashed = {*dead} | (everything if own_packs else set())
    assert not packs_behind(repository, point) & trashed
    for pack in trashed:
        repository.sealed.store.delete(object_key(pack.kind, pack.name.hex()))
    fresh = reopened(repository)
    assert read_disk(fresh, point.disks[0]) == disk.content(0, disk.size)
    assert fresh.read_file(point.files[0]) == b"config" * 50


def reopened_packs(repository: Repository) -> set[PackRef]:
    fresh = reopened(repository)
    fresh.index.refresh()
    return fresh.index.packs()


def test_trash_known_at_the_start_is_declared_seen_and_avoided(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    old = back_up(repository, "other", disk)
    trash(repository, 1, [])
    trash(repository, 2, sorted(packs_behind(repository, old)))
    with reopened(repository).begin_backup("vm") as session:
        assert session._lease.terms.epoch == 2
        session.store_disk(DiskJob("disk0", disk), no_progress)
        point = session.publish(time=None, label="")
    assert point.traffic.new > 0
    assert not packs_behind(repository, point) & packs_behind(repository, old)


def test_packs_swept_between_two_sessions_of_one_process(repository: Repository) -> None:
    """An agent that runs for weeks still knows what a collector has deleted since."""
    disk = random_disk(MIB, 1)
    old = back_up(repository, "other", disk)
    collector = reopened(repository)
    for pack in packs_behind(collector, old):
        collector.sealed.store.delete(object_key(pack.kind, pack.name.hex()))
    for key in [*keys_of(collector.sealed.store, Kind.INDEX), f"points/{old.point_id.hex()}"]:
        collector.sealed.store.delete(key)
    point = back_up(repository, "vm", disk)
    assert read_disk(reopened(repository), point.disks[0]) == disk.content(0, disk.size)
    assert_clean(repository)


def test_a_lost_pack_is_stored_anew_and_heals_older_points(repository: Repository) -> None:
    """Nobody has checked; the listing alone shows that the pack is gone."""
    disk = random_disk(MIB, 1)
    old = back_up(repository, "vm", disk)
    for kind in (Kind.DATA_PACK, Kind.NODE_PACK):
        for key in keys_of(repository.sealed.store, kind):
            repository.sealed.store.delete(key)
        point = back_up(reopened(repository), "vm", disk)
        assert read_disk(reopened(repository), point.disks[0]) == disk.content(0, disk.size)
    assert read_disk(reopened(repository), old.disks[0]) == disk.content(0, disk.size)


def test_a_damaged_chunk_is_stored_anew(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    old = back_up(repository, "vm", disk)
    fresh = reopened(repository)
    leaf = fresh.disk_map(old.disks[0]).leaf(0)
    hurt = [row.tobytes() for row in leaf.ids if row.any()][1]
    fresh.index.refresh()
    (place,) = fresh.index.copies(hurt)
    mark_damaged(repository.sealed, [(hurt, place.pack)], NOON)
    point = back_up(fresh, "vm", disk)
    at = [row.tobytes() for row in leaf.ids].index(hurt)
    assert point.traffic.new == int(leaf.lengths[at]) * BLOCK_SIZE
    fresh.index.refresh()
    copies = fresh.index.copies(hurt)
    assert len(copies) == 2
    assert copies[-1] == place, "the marked copy is asked last"
    again = back_up(reopened(repository), "vm", disk)
    assert again.traffic.new == 0, "healed once"
    assert bool(fresh.index.known(ids_of([hurt]))[0])


def test_the_parent_is_the_newest_generation_whatever_the_clock_says(
    repository: Repository, clock: StandingClock
) -> None:
    disk = random_disk(MIB, 1)
    points = []
    for now in (NOON, NOON - 1e6, NOON - 2e6, NOON + 5.0):
        clock.now = now
        points.append(back_up(reopened(repository), "vm", disk))
    assert [point.generation for point in points] == [0, 1, 2, 3]
    assert [point.parent for point in points[1:]] == [point.point_id for point in points[:-1]]
    assert all(point.duration_s >= 0 for point in points)


def test_a_clock_that_jumps_back_within_a_session(
    repository: Repository, clock: StandingClock
) -> None:
    with repository.begin_backup("vm") as session:
        clock.now -= 3600
        point = session.publish(time=None, label="")
    assert point.duration_s == 0
    assert_clean(repository)


def test_whole_numbers_are_times_too(repository: Repository) -> None:
    point = back_up(repository, "vm", time=1_600_000_000)
    assert repository.point(point.point_id).time == 1_600_000_000.0


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1e18, 1e18])
def test_times_that_no_calendar_knows(repository: Repository, time: float) -> None:
    with repository.begin_backup("vm") as session, pytest.raises(UsageError):
        session.publish(time=time, label="")


@pytest.mark.parametrize("vm", ["", "caf\udce9"])
def test_impossible_names_are_refused_before_anything_is_read(
    repository: Repository, vm: str
) -> None:
    with pytest.raises(UsageError):
        repository.begin_backup(vm)
    assert keys_of(repository.sealed.store, Kind.LEASE) == []


@pytest.mark.parametrize("vm", ["a/b", "line\nbreak", "日本", "x" * 255, "..", "a@b", " "])
def test_odd_names_are_kept(repository: Repository, vm: str) -> None:
    disk = random_disk(9999, 1)
    point = back_up(repository, vm, disk)
    assert repository.point(point.point_id).vm == vm
    assert back_up(repository, vm, disk).parent == point.point_id


def test_a_source_with_a_name_of_any_bytes(repository: Repository) -> None:
    disk = SyntheticDisk(10, name=b"/disks/caf\xe9".decode("utf-8", "surrogateescape"))
    point = back_up(repository, "vm", disk)
    assert repository.point(point.point_id).disks[0].source.startswith("/disks/caf")


CHANGED = [(0, 5)]


def test_changed_list_is_not_trusted_without_the_same_disk(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    bigger = random_disk(2 * MIB, 1)
    smaller = random_disk(MIB // 2, 1)
    for source, why in [(disk, "no earlier point"), (bigger, "size"), (smaller, "size")]:
        point = back_up(repository, "vm", source, changed=CHANGED)
        assert len(point.warnings) == 1
        assert why in point.warnings[0]
        assert read_disk(repository, point.disks[0]) == source.content(0, source.size)
    assert not back_up(repository, "vm", smaller, changed=CHANGED).warnings
    assert_clean(repository)


def test_changed_list_with_the_parent_removed_meanwhile(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    parent = back_up(repository, "vm", disk)
    with reopened(repository).begin_backup("vm") as session:
        repository.sealed.delete(Kind.POINT, parent.point_id.hex())
        session.store_disk(DiskJob("disk0", disk, CHANGED), no_progress)
        point = session.publish(time=None, label="")
    assert "removed" in point.warnings[0]
    assert_clean(repository)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_changed_list_with_a_damaged_parent_map_reads_in_full(
    repository: Repository, damage: str
) -> None:
    disk = random_disk(3 * LEAF_SIZE, 1)
    back_up(repository, "vm", disk)
    store = repository.sealed.store
    for key in keys_of(store, Kind.NODE_PACK):
        data = bytearray(store.get(key))
        data[60] ^= 1
        store.delete(key)
        if damage == "damaged":
            store.put(key, [data])
    disk.write(0, b"changed")
    point = back_up(reopened(repository), "vm", disk, changed=[(0, 7)])
    assert "read in full" in point.warnings[0]
    assert point.traffic.read > MIB


def test_an_empty_changed_list_reads_nothing(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    parent = back_up(repository, "vm", disk)
    point = back_up(repository, "vm", disk, changed=[])
    assert point.traffic.read == 0
    assert point.disks == parent.disks


def test_config_files(repository: Repository) -> None:
    contents = [b"", b"x", bytes(64 << 10), random.Random(1).randbytes((64 << 10) + 1), b"y" * 4096]
    with repository.begin_backup("vm") as session:
        for at, data in enumerate(contents):
            session.store_file(f"file{at}", data)
        with pytest.raises(UsageError):
            session.store_file("huge", bytes(FILE_SIZE_MAX + 1))
        point = session.publish(time=None, label="")
    fresh = reopened(repository)
    read = [fresh.read_file(file) for file in fresh.point(point.point_id).files]
    assert read == contents
    assert_clean(repository)


def test_the_lease_says_who_and_what_is_pinned(repository: Repository) -> None:
    parent = back_up(repository, "vm", random_disk(MIB, 1))
    with repository.begin_backup("vm") as session:
        (name,) = repository.sealed.names(Kind.LEASE)
        record = repository.sealed.get_record(Kind.LEASE, name)
        assert record.get("session", bytes) == session.point_id
        assert record.items("pins", bytes) == [parent.point_id]
    assert list(repository.sealed.names(Kind.LEASE)) == []


def interrupted(repository: Repository, step: Callable[[BackupSession], None]) -> None:
    with repository.begin_backup("vm") as session:
        step(session)
        raise KeyboardInterrupt


def test_an_interrupt_leaves_nothing_that_looks_whole(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    steps: list[Callable[[BackupSession], None]] = [
        lambda session: None,
        lambda session: session.store_disk(DiskJob("disk0", disk), no_progress),
        lambda session: session._writer.flush(),
    ]
    for step in steps:
        with pytest.raises(KeyboardInterrupt):
            interrupted(repository, step)
        assert keys_of(repository.sealed.store, Kind.POINT) == []
        assert keys_of(repository.sealed.store, Kind.LEASE) == []
        assert_clean(repository)


class ForgetfulStore(MemoryStore):
    """Stores a point, and loses its answer."""

    lost = False

    def put(self, key: str, pieces: list[Piece]) -> None:
        super().put(key, pieces)
        if key.startswith("points/") and not self.lost:
            self.lost = True
            raise StoreUnavailable("the answer was lost")


def test_publishing_again_after_a_lost_answer() -> None:
    repository = new_repository(ForgetfulStore())
    disk = random_disk(MIB, 1)
    with repository.begin_backup("vm") as session:
        session.store_disk(DiskJob("disk0", disk), no_progress)
        with pytest.raises(StoreUnavailable):
            session.publish(time=None, label="")
        point = session.publish(time=None, label="")
    assert repository.point(point.point_id).disks == point.disks
    assert len(repository.catalog.refresh()) == 1


def test_a_point_key_is_taken_only_once(repository: Repository) -> None:
    point = back_up(repository, "vm")
    with pytest.raises(ObjectExists):
        repository.sealed.put(Kind.VOID, point.point_id.hex(), b"")
    with pytest.raises(ObjectMissing):
        repository.point(bytes(16))


def test_the_agent_backs_up_as_well(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    back_up(repository, "vm", disk)
    disk.write(0, b"new")
    point = back_up(as_agent(repository), "vm", disk, changed=[(0, 3)])
    assert read_disk(repository, point.disks[0]) == disk.content(0, disk.size)
    assert_clean(repository)
