"""Points into a replica as they are sealed: the same bytes there, stored once, and never half."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import numpy as np
import pytest

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.collecting.blob_source import BlobSource
from backpoint_repo.copying.contract import Base, Watch
from backpoint_repo.copying.origin import identity_of
from backpoint_repo.copying.verbatim import copy_point_verbatim
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    SessionRevoked,
    StoreUnavailable,
    UsageError,
)
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import BLOCK_SIZE, LEAF_SIZE, Kind, object_key
from backpoint_repo.index import stored_packs
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease_book import put_void, read_leases
from backpoint_repo.point import Point
from backpoint_repo.reading import reading
from backpoint_repo.record import encode_record
from backpoint_repo.replica import replicate
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Piece, Store
from backpoint_repo.verbatim_copy import VerbatimCopies
from faults.failing_store import AFTER, BEFORE, FailingStore
from repo.copying.replica_scene import NamedStore, Scene, fail
from small_repository import NOON, as_agent, back_up, keys_of, new_repository, read_disk
from synthetic_disk import SyntheticDisk, random_disk, scribble

MIB = 1 << 20


@pytest.fixture
def scene() -> Scene:
    return Scene()


def packs_of(repository: Repository) -> set[PackRef]:
    return set(stored_packs(repository.sealed))


def trash(repository: Repository, epoch: int, packs: set[PackRef]) -> None:
    """As a collector publishes it."""
    rows = [bytes([pack.kind]) + pack.name for pack in sorted(packs)]
    payload = encode_record({"epoch": epoch, "packs": rows})
    repository.sealed.put(Kind.TRASH, f"{epoch:016x}", payload)


def test_what_is_copied_is_the_same_and_says_whose_copy_it_is(scene: Scene) -> None:
    """Several disks, one of several leaves, and files; nothing of it is opened."""
    disks = [random_disk(2 * LEAF_SIZE + 5 * BLOCK_SIZE, 1), random_disk(3 * MIB + 17, 2)]
    with scene.source.begin_backup("web") as session:
        for number, disk in enumerate(disks):
            session.store_disk(DiskJob(f"disk{number}", disk), lambda _: None)
        session.store_file("web.vmx", b"x" * 200_001)
        session.store_file("empty", b"")
        session.warnings.append("was tired")
        point = session.publish(time=NOON - 5, label="weekly", capture={"a": [1]})
    scene.clock.now += 60
    copy = scene.copy(point).point
    assert copy.point_id != point.point_id
    assert (copy.vm, copy.time, copy.label) == ("web", NOON - 5, "weekly")
    assert (copy.disks, copy.files) == (point.disks, point.files)
    assert (copy.created, copy.parent, copy.generation) == (NOON + 60, None, 0)
    assert copy.warnings == ("was tired",)
    assert copy.capture["a"] == [1]
    identity = identity_of(scene.source.config.repository_id, point)
    assert identity_of(scene.target.config.repository_id, copy) == identity
    scene.assert_same(copy, *disks)
    assert [scene.owned().read_file(file) for file in copy.files] == [b"x" * 200_001, b""]
    assert read_leases(scene.target.sealed) == []
    assert scene.target.catalog.refresh()[0].point_id == copy.point_id


def test_there_and_back_through_every_store(scene: Scene, store: Store) -> None:
    """Into a folder, a memory, a bucket; and from it into a third place, where it is no other."""
    disk = random_disk(2 * LEAF_SIZE, 1, longest=200_000)
    point = back_up(scene.source, "vm", disk)
    store.put("probe/first", [b"the server of the tests makes a bucket when it is written to"])
    replicate(scene.source, store)
    there = scene.through(store)
    copy = scene.copy(point, target=there).point
    with reading(there, copy, fail):
        third = copy_point_verbatim(there, scene.target, copy, None, Watch()).point
    identity = identity_of(scene.source.config.repository_id, point)
    assert identity_of(scene.target.config.repository_id, third) == identity
    scene.assert_same(third, disk)
    scene.target = scene.through(store)
    scene.assert_same(copy, disk)


def test_progress_adds_up_to_the_disks(scene: Scene) -> None:
    disk = random_disk(3 * LEAF_SIZE + 123, 1)
    for _ in range(2):
        point = back_up(scene.source, "vm", disk)
        told: list[int] = []
        copy_point_verbatim(scene.source, scene.target, point, None, Watch(told.append))
        assert sum(told) == disk.size


def test_nothing_is_stored_twice(scene: Scene) -> None:
    """Neither what an earlier copy has, nor what another VM's has; a copied point costs no pack."""
    disk = random_disk(2 * LEAF_SIZE, 1)
    first = scene.copy(back_up(scene.source, "vm", disk)).point
    assert first.traffic.stored > 0
    packs = packs_of(scene.target)
    again = scene.copy(back_up(scene.source, "vm", disk)).point
    assert (again.parent, again.traffic.stored, again.traffic.read) == (first.point_id, 0, 0)
    other = scene.copy(back_up(scene.source, "another", disk)).point
    assert (other.traffic.new, other.traffic.stored) == (0, 0)
    assert packs_of(scene.target) == packs
    scene.assert_same(other, disk)


def test_an_increment_costs_what_changed(scene: Scene) -> None:
    """Of the rest not even the map is read."""
    disk = random_disk(4 * LEAF_SIZE, 1, extents=20, longest=99_999)
    first = back_up(scene.source, "vm", disk)
    copied = scene.copy(first).point
    changed = scribble(disk, random.Random(2), 3, 100_000)
    second = back_up(scene.source, "vm", disk, changed=changed)
    copy = scene.copy(second, Base(first.point_id, copied.point_id)).point
    assert 0 < copy.traffic.stored <= second.traffic.stored
    assert copy.traffic.read < 3 * second.traffic.stored + 4 * 20_000
    assert copy.parent == copied.point_id
    scene.assert_same(copy, disk)
    scene.assert_same(copied, random_disk(4 * LEAF_SIZE, 1, extents=20, longest=99_999))


def test_a_disk_that_grew_and_a_base_that_is_gone(scene: Scene) -> None:
    small, large = random_disk(LEAF_SIZE, 1), random_disk(3 * LEAF_SIZE, 1)
    first = back_up(scene.source, "vm", small)
    copied = scene.copy(first).point
    grown = scene.copy(back_up(scene.source, "vm", large)).point
    scene.assert_same(grown, large)
    scene.target.sealed.delete(Kind.POINT, copied.point_id.hex())
    base = Base(first.point_id, copied.point_id)
    late = scene.copy(back_up(scene.source, "vm", small), base).point
    scene.assert_same(late, small)


def test_other_keys_are_refused(scene: Scene) -> None:
    point = back_up(scene.source, "vm", random_disk(MIB, 1))
    other = new_repository(NamedStore("other"))
    with pytest.raises(UsageError, match="other has other keys than here"):
        scene.copy(point, target=other)


def test_a_node_that_is_known_does_not_stand_for_its_subtree(scene: Scene) -> None:
    """A session died after its map's nodes were there, and before the chunks they lead to."""
    disk = random_disk(2 * LEAF_SIZE, 1)
    point = back_up(scene.source, "vm", disk)
    scene.copy(point)
    there = scene.target.sealed.store
    for kind in (Kind.POINT, Kind.DATA_PACK, Kind.INDEX):
        for key in keys_of(there, kind):
            there.delete(key)
    scene.target = scene.through(there)
    scene.assert_same(scene.copy(point).point, disk)


def test_what_the_destination_has_lost_is_copied_again(scene: Scene) -> None:
    """Also below what the earlier copy shares: so that one is whole again, too."""
    disk = random_disk(2 * LEAF_SIZE, 1)
    point = back_up(scene.source, "vm", disk)
    first = scene.copy(point).point
    there = scene.target.sealed.store
    for key in keys_of(there, Kind.DATA_PACK):
        there.delete(key)
    scene.target = scene.through(there)
    second = scene.copy(point).point
    assert second.traffic.new == first.traffic.new
    scene.assert_same(second, disk)
    scene.assert_same(first, disk)


# What the source has lost


def spoil(store: Store, key: str, at: int) -> None:
    data = bytearray(store.get(key))
    data[at] ^= 0xFF
    store.delete(key)
    store.put(key, [bytes(data)])


def chunk_of(repository: Repository, point: Point) -> bytes:
    """The first one of its first disk."""
    leaf = repository.disk_map(point.disks[0]).leaf(0)
    return bytes(next(row for row in leaf.ids if row.any()))


@pytest.mark.parametrize("marked", [False, True])
def test_a_chunk_without_a_good_copy_fails_its_point_and_no_other(
    scene: Scene, marked: bool
) -> None:
    disk = SyntheticDisk(LEAF_SIZE, name="one")
    disk.write(0, random.Random(1).randbytes(200_000))
    point = back_up(scene.source, "vm", disk)
    other = back_up(scene.source, "other", random_disk(MIB, 2))
    chunk = chunk_of(scene.source, point)
    (place,) = scene.source.index.copies(chunk)
    if marked:
        mark_damaged(scene.source.sealed, [(chunk, place.pack)], NOON)
    else:
        key = object_key(Kind.DATA_PACK, place.pack.name.hex())
        spoil(scene.source.sealed.store, key, place.offset + 40)
    with pytest.raises(ObjectDamaged, match=f"disk disk0: chunk {chunk.hex()[:16]} has no good"):
        scene.copy(point)
    assert scene.target.catalog.refresh() == []
    scene.assert_same(scene.copy(other).point, random_disk(MIB, 2))


def test_another_copy_is_taken_where_one_is_bad(scene: Scene) -> None:
    """Of chunks and of map nodes: the pack is there twice, once spoilt."""
    disk = random_disk(2 * LEAF_SIZE, 1)
    point = back_up(scene.source, "vm", disk)
    bad = packs_of(scene.source)
    here = scene.source.sealed.store
    for pack in bad:  # with no good copy left, the next backup stores all anew
        ids = scene.source.sealed.directory(pack.kind, pack.name).ids
        mark_damaged(scene.source.sealed, [(row.tobytes(), pack) for row in ids], NOON)
        for at in range(8, here.size(key := object_key(pack.kind, pack.name.hex())) - 60_000, 999):
            spoil(here, key, at)
    back_up(scene.source, "healer", disk)
    for key in keys_of(here, Kind.DAMAGE):
        here.delete(key)
    assert packs_of(scene.source) > bad
    scene.assert_same(scene.copy(point).point, disk)


def test_a_source_whose_trash_cannot_be_read_is_copied(scene: Scene) -> None:
    """Nothing can be backed up to it any more: then it is time."""
    disk = random_disk(MIB, 1)
    point = back_up(scene.source, "vm", disk)
    scene.source.sealed.store.put(f"trash/{1:016x}", [b"garbage"])
    scene.assert_same(scene.copy(point).point, disk)


def test_a_pack_that_is_gone(scene: Scene) -> None:
    point = back_up(scene.source, "vm", random_disk(MIB, 1))
    here = scene.source.sealed.store
    for key in keys_of(here, Kind.NODE_PACK):
        here.delete(key)
    with pytest.raises(ObjectMissing, match="disk disk0: map node"):
        scene.copy(point)
    assert packs_of(scene.target) == set()


def test_a_pack_that_was_moved_while_it_was_copied(scene: Scene) -> None:
    """A collector at the source compacts it: its blobs are found where they are now."""
    disk = random_disk(LEAF_SIZE, 1)
    point = back_up(scene.source, "vm", disk)
    agent = as_agent(scene.source)
    agent.index.refresh()
    here = scene.source.sealed.store
    for pack in packs_of(scene.source):
        source = BlobSource(agent.sealed, pack)
        copies = VerbatimCopies(agent.sealed, as_agent(scene.source).index, b"c" * 16)
        for blob in source.read(np.arange(len(source.directory.ids))):
            assert blob.sealed is not None
            copies.add(pack.kind, blob.content_id, blob.sealed, blob.plain_length, blob.data_key)
        copies.flush()
        here.delete(object_key(pack.kind, pack.name.hex()))
    scene.assert_same(copy_point_verbatim(agent, scene.target, point, None, Watch()).point, disk)


# Crashes, and others at work in the destination


def unplugged() -> None:
    raise StoreUnavailable("unplugged")


class Meanwhile(FailingStore):
    """Does something before the first put of a kind of object."""

    def __init__(self, inner: Store, folder: str, do: Callable[[], None]) -> None:
        super().__init__(inner, 0, unplugged)
        self._folder = folder
        self._do: Callable[[], None] | None = do

    def put(self, key: str, pieces: list[Piece]) -> None:
        if key.startswith(self._folder) and self._do is not None:
            do, self._do = self._do, None
            do()
        super().put(key, pieces)


@pytest.mark.parametrize("based", [False, True])
def test_what_is_trashed_meanwhile_is_copied_again(scene: Scene, based: bool) -> None:
    """A collector takes what the copy was to refer to, and deletes it when all have seen that."""
    disk = random_disk(2 * LEAF_SIZE, 1)
    point = back_up(scene.source, "vm", disk)
    orphan = scene.copy(point if based else back_up(scene.source, "other", disk)).point
    packs = packs_of(scene.target)
    there = scene.target.sealed.store
    if not based:
        scene.target.sealed.delete(Kind.POINT, orphan.point_id.hex())

    def collect() -> None:
        trash(scene.owned(), 1, packs)

    # The first lease is put before trash is read, the first pack or segment after it.
    scribble(disk, random.Random(3), 2, 50_000)
    point = back_up(scene.source, "vm", disk)
    busy = scene.through(Meanwhile(there, "nodes/", collect))
    copy = scene.copy(point, target=busy).point
    for pack in packs:
        there.delete(object_key(pack.kind, pack.name.hex()))
    scene.target = scene.through(there)
    owned = scene.owned()
    assert read_disk(owned, copy.disks[0]) == disk.content(0, disk.size)
    if not based:
        scene.assert_same(copy, disk)


def test_a_copy_that_was_revoked_is_not_published(scene: Scene) -> None:
    disk = random_disk(MIB, 1)
    point = back_up(scene.source, "vm", disk)
    there = scene.target.sealed.store

    def revoke() -> None:
        (lease,) = read_leases(scene.owned().sealed)
        put_void(scene.owned().sealed, lease.session, b"c" * 16, NOON)
        for key in keys_of(there, Kind.LEASE):
            there.delete(key)

    with pytest.raises(SessionRevoked):
        scene.copy(point, target=scene.through(Meanwhile(there, "index/", revoke)))
    assert scene.through(there).catalog.refresh() == []
    scene.target = scene.through(there)
    scene.assert_same(scene.copy(point).point, disk)


@pytest.mark.parametrize(("moment", "stays"), [(BEFORE, True), (AFTER, False)])
def test_a_failure_at_any_call_makes_no_half_point(moment: str, stays: bool) -> None:
    """The next try finds what was stored; nothing is there twice."""
    disk = random_disk(LEAF_SIZE, 1, extents=2, longest=40_000)
    scene = Scene()
    point = back_up(scene.source, "vm", disk)
    counting = FailingStore(empty_replica(scene), 0, unplugged)
    whole = scene.copy(point, target=scene.through(counting)).point
    for at in range(1, len(counting.calls) + 1):
        store = empty_replica(scene)
        with contextlib.suppress(StoreUnavailable):
            failing = FailingStore(store, at, unplugged, moment, stays=stays)
            scene.copy(point, target=scene.through(failing))
        scene.target = scene.through(store)
        if not scene.target.catalog.refresh():
            scene.copy(point)
        (summary,) = scene.through(store).catalog.refresh()
        scene.assert_same(scene.target.point(summary.point_id), disk)
        sizes = sum(store.size(key) for key in keys_of(store, Kind.DATA_PACK))
        assert sizes <= 1.2 * whole.traffic.stored


def empty_replica(scene: Scene) -> NamedStore:
    store = NamedStore("there")
    replicate(scene.source, store)
    return store
