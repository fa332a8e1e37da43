"""Collecting while others work: nobody is blocked, and nobody loses a chunk."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from backpoint_repo.backup_session import BackupSession, DiskJob
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.collecting.blob_source import BlobSource
from backpoint_repo.collecting.workplace import Workplace
from backpoint_repo.errors import SessionRevoked
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index import stored_packs
from backpoint_repo.lease import LIFETIME_S, MOUNT, SEEN_ALL, Lease, LeaseTerms
from backpoint_repo.lease_book import read_leases
from backpoint_repo.pin import Pin, pin_of
from backpoint_repo.point import Point
from backpoint_repo.scrubbing.harm import Silent
from backpoint_repo.trash import put_trash, read_trash
from backpoint_repo.verbatim_copy import VerbatimCopies
from faults.failing_store import FailingStore
from repo.collecting.collect_scene import SIZE, Scene, filled_disk
from small_repository import NOON, StandingClock, as_agent, keys_of, read_disk, reopened
from synthetic_disk import SyntheticDisk


def lease_of(scene: Scene, epoch: int, *pins: Pin, session: bytes = b"m" * 16) -> Lease:
    terms = LeaseTerms(MOUNT, epoch, pins)
    return Lease(scene.sealed, session, terms, scene.repository.clock)


def assert_reads(scene: Scene, point: Point, disk: SyntheticDisk) -> None:
    """As somebody reads who has had the point open."""
    assert read_disk(reopened(scene.repository), point.disks[0]) == disk.content(0, disk.size)


def test_an_open_file_of_a_removed_point_is_kept(scene: Scene) -> None:
    """Whoever pins it is told; when it is closed its space comes back."""
    disk = filled_disk(1)
    point, rubbish = scene.point("a", disk), scene.point("b", filled_disk(2))
    mount = lease_of(scene, SEEN_ALL, pin_of(point))
    scene.remove(point, rubbish)
    report = scene.collect()
    assert report.freed > SIZE
    assert [one.by.startswith("mount on ") for one in report.pinned] == [True]
    assert SIZE < report.pinned[0].size < 1.1 * SIZE
    assert_reads(scene, point, disk)
    mount.release()
    assert scene.collect().pinned == ()
    assert scene.stored() == 0


def test_who_has_not_seen_the_trash_is_waited_for(scene: Scene) -> None:
    """It may still refer to it; nothing is deleted before, and who it is is told."""
    disk = filled_disk(1)
    point = scene.point("a", disk)
    mount = lease_of(scene, 0)
    scene.remove(point)
    report = scene.collect(wait_s=7)
    assert (report.freed, report.trashed_packs, scene.waited) == (0, 2, 7)
    assert [(one.epoch, one.packs, len(one.by)) for one in report.waiting] == [(1, 2, 1)]
    assert "mount on" in report.waiting[0].by[0]
    # The mount opens the point now, before it has read the trash: pin and epoch come together.
    mount.refresh(LeaseTerms(MOUNT, 1, (pin_of(point),)))
    report = scene.collect()
    assert report.freed_packs == 2
    assert_reads(scene, point, disk)
    mount.release()
    scene.collect()
    scene.assert_tidy()


def test_epochs_go_one_after_the_other(scene: Scene) -> None:
    """What waits is not put into trash again, and none is over before its packs are gone."""
    mount = lease_of(scene, 0)
    for seed in range(2):
        scene.remove(scene.point(f"vm{seed}", filled_disk(seed)))
        report = scene.collect()
        assert (report.epoch, report.trashed_packs) == (seed + 1, 2)
    report = scene.collect()
    assert (report.epoch, report.trashed_packs) == (None, 0)
    assert [(one.epoch, one.packs) for one in report.waiting] == [(1, 2), (2, 2)]
    assert read_trash(scene.sealed).waiting == [1, 2]
    mount.refresh(LeaseTerms(MOUNT, 1))
    report = scene.collect()
    assert (report.freed_packs, [one.epoch for one in report.waiting]) == (2, [2])
    mount.refresh(LeaseTerms(MOUNT, 2))
    assert scene.collect().freed_packs == 2
    mount.release()
    scene.assert_tidy()


def test_a_collector_that_slept_while_it_waited(scene: Scene) -> None:
    """Its own lease looks expired, too: it does not end itself."""
    clock = StandingClock()
    scene.repository.clock = clock
    mount = lease_of(scene, 0)
    scene.remove(scene.point("a", filled_disk(1)))

    def sleep(_: float) -> None:
        clock.now += LIFETIME_S + 1
        mount.refresh(LeaseTerms(MOUNT, int(clock.now > 2 * LIFETIME_S + NOON)))

    report = scene.collect(wait_s=60, pause=sleep)
    assert (report.revoked, report.freed_packs) == ((), 2)
    assert list(scene.sealed.names(Kind.POINT)) == []


def test_an_open_point_with_files_is_kept(scene: Scene) -> None:
    with scene.repository.begin_backup("a") as session:
        session.store_file("vm.vmx", b"x" * 200_000)
        point = session.publish(time=None, label="")
    mount = lease_of(scene, SEEN_ALL, pin_of(point))
    scene.remove(point)
    scene.collect()
    assert reopened(scene.repository).read_file(point.files[0]) == b"x" * 200_000
    mount.release()
    scene.collect()
    assert scene.stored() == 0


def test_a_point_that_is_put_back(scene: Scene) -> None:
    """Gone when it was looked at first, it is there again when its packs are in trash."""
    point = scene.point("a", filled_disk(1))
    key = object_key(Kind.POINT, point.point_id.hex())
    stored = scene.store.get(key)

    class Flickering(FailingStore):
        put_back = False

        def get(self, wanted: str) -> bytes:
            if wanted == key and not self.put_back:
                self.delete(key)
            return super().get(wanted)

        def put(self, put: str, pieces: list[bytes | bytearray | memoryview]) -> None:
            super().put(put, pieces)
            if put.startswith("trash/"):
                super().put(key, [stored])
                self.put_back = True

    report = scene.collect(scene.through(Flickering(scene.store, 0, lambda: None)))
    assert report.trashed_packs == report.freed_packs == 2
    scene.assert_whole()


def test_copies_that_somebody_puts_into_trash_do_not_count(scene: Scene) -> None:
    """Also where they are our own, made a moment ago."""
    first, _ = scene.history("a", 2)
    scene.remove(first)

    def trash_all() -> None:
        put_trash(scene.sealed, 1, list(stored_packs(scene.sealed)), 0, b"h" * 16, 1.0)

    report = scene.collect(scene.meddled("put", "trash/", trash_all))
    assert report.freed_packs >= 4
    scene.assert_whole()
    scene.assert_tidy()


def test_waiting_ends_when_everybody_has_seen_it(scene: Scene) -> None:
    mount = lease_of(scene, 0)
    scene.remove(scene.point("a", filled_disk(1)))

    def see(_: float) -> None:
        mount.refresh(LeaseTerms(MOUNT, 1))

    report = scene.collect(wait_s=600, pause=see)
    assert report.freed_packs == 2
    assert report.waiting == ()


def test_who_comes_later_is_not_waited_for(scene: Scene) -> None:
    """A lease begins with epoch 0, and its holder reads all trash next."""
    first, later = lease_of(scene, 0), list[Lease]()
    scene.remove(scene.point("a", filled_disk(1)))

    def come(_: float) -> None:
        later.append(lease_of(scene, 0, session=bytes([len(later)]) * 16))
        if len(later) == 3:
            first.release()

    report = scene.collect(wait_s=600, pause=come)
    assert report.freed_packs == 2
    assert len(later) == 3


def test_a_writer_keeps_its_unpublished_packs(scene: Scene) -> None:
    """They hold nothing that a point needs yet; its lease protects them."""
    disk = filled_disk(1)
    with scene.repository.begin_backup("a") as session:
        session.store_disk(DiskJob("disk0", disk), lambda _: None)
        session._writer.flush()
        report = scene.collect()
        assert (report.freed, report.trashed_packs) == (0, 0)
        assert report.plan is not None
        assert all("may be writing to it" in one.reason for one in report.plan.kept)
        made = session.publish(time=None, label="")
    scene.contents[made.point_id] = disk.content(0, SIZE)
    scene.assert_whole()


def test_a_writer_that_dies_leaves_nothing(scene: Scene) -> None:
    with scene.repository.begin_backup("a") as session:
        session.store_disk(DiskJob("disk0", filled_disk(1)), lambda _: None)
        session._writer.flush()
    assert scene.stored() > SIZE
    assert scene.collect().freed_packs == 2
    assert scene.stored() == 0


def test_a_writer_that_used_what_was_trashed_stores_it_again(scene: Scene) -> None:
    """Its point appears while the collector waits: the sweep finds out and loses nothing."""
    disk = filled_disk(1)
    old = scene.point("a", disk)
    with scene.repository.begin_backup("b") as session:
        session.store_disk(DiskJob("disk0", disk), lambda _: None)
        scene.remove(old)
        # The parent is another VM's, so nothing pins the old point.
        report = scene.collect()
        assert report.trashed_packs == 2
        assert "backup on" in report.waiting[0].by[0]
        made = session.publish(time=None, label="")
    scene.contents[made.point_id] = disk.content(0, SIZE)
    scene.assert_whole()
    assert scene.collect().freed_packs == 2
    scene.assert_whole()
    scene.assert_tidy()


def test_a_point_published_just_before_the_trash_keeps_its_chunks(scene: Scene) -> None:
    """The writer had not seen the trash: what its point needs is copied out before it goes."""
    disk = filled_disk(1)
    old = scene.point("a", disk)
    sessions: list[BackupSession] = []

    def publish() -> None:
        made = sessions[0].publish(time=None, label="")
        scene.contents[made.point_id] = disk.content(0, SIZE)

    with scene.repository.begin_backup("b") as session:
        session.store_disk(DiskJob("disk0", disk), lambda _: None)
        sessions.append(session)
        scene.remove(old)
        late = scene.meddled("put", "trash/", publish)
        # Its lease goes with the block: whoever is gone is not waited for.
        report = scene.collect(late, wait_s=9, pause=lambda _: session._close())
    assert report.freed_packs == 2
    assert scene.stored() > SIZE
    scene.assert_whole()
    scene.assert_tidy()


def test_who_shows_no_sign_of_life_is_ended(scene: Scene) -> None:
    """Its backup is lost, and no chunk: a void stands where its point would be."""
    clock = StandingClock()
    scene.repository.clock = clock
    disk = filled_disk(1)
    with scene.repository.begin_backup("a") as session:
        session.store_disk(DiskJob("disk0", disk), lambda _: None)
        session._writer.flush()
        clock.now += LIFETIME_S + 1
        report = scene.collect()
        assert len(report.revoked) == 1
        assert report.freed_packs == 2
        with pytest.raises(SessionRevoked):
            session.publish(time=None, label="")
    scene.point("a", disk)
    scene.assert_whole()
    scene.assert_tidy()


def test_a_clock_that_is_wrong_costs_no_chunk(scene: Scene) -> None:
    """A collector a year ahead ends everybody; what is published stays whole."""
    disk = filled_disk(1)
    mount = lease_of(scene, SEEN_ALL)
    made = scene.point("a", disk)
    scene.remove(scene.point("b", filled_disk(2)))
    ahead = as_agent(scene.repository)
    ahead.clock = StandingClock(scene.repository.clock() + 365 * 86400)
    with scene.repository.begin_backup("a") as session:
        session.store_disk(DiskJob("disk0", disk), lambda _: None)
        report = scene.collect(ahead)
        assert len(report.revoked) == 2
        with pytest.raises(SessionRevoked):
            session.publish(time=None, label="")
    mount.refresh()
    assert mount.lost
    mount.release()
    assert made.point_id in scene.contents
    scene.assert_whole()


def test_pins_that_do_not_say_what_they_need(scene: Scene) -> None:
    """As an older program's: nothing is deleted while the point they need is gone."""
    disk = filled_disk(1)
    point = scene.point("a", disk)
    mount = lease_of(scene, SEEN_ALL, Pin(point.point_id))
    assert scene.collect().stopped == ()
    scene.remove(point)
    report = scene.collect()
    assert (report.freed, report.trashed_packs) == (0, 0)
    assert "does not say what it needs" in report.stopped[0]
    assert_reads(scene, point, disk)
    mount.release()
    assert scene.collect().freed_packs == 2
    scene.assert_tidy()


def test_a_lease_that_cannot_be_read_is_waited_for(scene: Scene) -> None:
    key = object_key(Kind.LEASE, f"{'e' * 32}-00000000")
    scene.store.put(key, [b"not a lease"])
    scene.remove(scene.point("a", filled_disk(1)))
    report = scene.collect()
    assert (report.freed, report.trashed_packs) == (0, 2)
    assert "cannot be read" in report.waiting[0].by[0]
    scene.store.delete(key)
    assert scene.collect().freed_packs == 2


def test_a_second_collector_that_is_faster(scene: Scene) -> None:
    """Only one can put an epoch into trash: the other looks again, and finds nothing to do."""
    first, _ = scene.history("a", 2)
    scene.remove(first, scene.point("b", filled_disk(3)))
    reports = []
    slow = scene.meddled("put", "trash/", lambda: reports.append(scene.collect()))
    slow_report = scene.collect(slow)
    assert reports[0].trashed_packs == 4
    assert reports[0].freed_packs == 4
    assert slow_report.freed_packs == 0
    scene.assert_whole()
    scene.collect()
    scene.assert_tidy()


def test_a_second_collector_at_every_step(scene: Scene) -> None:
    """However far the first has come when the second runs from start to end."""
    first, _ = scene.history("a", 2)
    scene.remove(first)
    calls = scene.count_calls()
    for at in range(1, calls, 7):
        other = Scene(scene.repository)
        extra = other.history("x", 2, seed=at)
        other.contents |= scene.contents
        other.remove(extra[0])
        slow = other.meddled_call(at, other.collect)
        other.collect(slow)
        other.remove(extra[1])
        other.assert_whole()
    scene.collect()
    scene.assert_whole()
    scene.assert_tidy()


def test_two_collectors_in_threads(scene: Scene) -> None:
    first, _ = scene.history("a", 3)[:2]
    scene.remove(first, scene.point("b", filled_disk(3)))
    threads = [threading.Thread(target=scene.collect) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scene.assert_whole()
    scene.collect()
    scene.assert_whole()
    scene.assert_tidy()


def test_a_collector_that_was_taken_for_dead(scene: Scene) -> None:
    """A laptop that slept: nothing protects its copies any more, so it begins the round anew."""
    first, _ = scene.history("a", 2)
    scene.remove(first)

    def end_it() -> None:
        for lease in read_leases(scene.sealed):
            for key in keys_of(scene.store, Kind.LEASE):
                if lease.session.hex() in key:
                    scene.store.delete(key)

    # When it has just put its copies.
    report = scene.collect(scene.meddled("put", "index/", end_it))
    assert any("taken for dead" in note for note in report.notes)
    assert report.epoch == 1
    scene.assert_whole()
    scene.collect()
    scene.assert_whole()
    scene.assert_tidy()


def test_trash_that_was_put_too_late_is_not_swept(scene: Scene) -> None:
    """Its number came and went while the collector slept: leases that saw it saw another. What it
    names is put into trash anew, because writers shun it."""
    for seed in range(3):
        scene.remove(scene.point("a", filled_disk(seed)))
        scene.collect()
    assert sorted(read_trash(scene.sealed).epochs) == [3]
    scene.point("b", filled_disk(9))
    packs = set(stored_packs(scene.sealed))
    mount = lease_of(scene, 3)
    put_trash(scene.sealed, 1, packs, 0, b"s" * 16, 1.0)
    report = scene.collect()
    assert (report.freed_packs, report.epoch) == (0, 4)
    assert packs <= set(stored_packs(scene.sealed))
    mount.refresh(LeaseTerms(MOUNT, 4))
    assert scene.collect().freed_packs == len(packs)
    scene.assert_whole()
    mount.release()
    scene.remove(scene.point("a", filled_disk(1)))
    scene.collect()
    assert sorted(read_trash(scene.sealed).epochs) == [5]
    scene.assert_tidy()


def test_a_point_removed_under_the_collector_is_no_gap(scene: Scene) -> None:
    """Another collector deletes its nodes while this one walks them."""
    gone, _ = scene.point("a", filled_disk(1)), scene.point("b", filled_disk(2))

    def vanish() -> None:
        scene.remove(gone)
        scene.collect()

    scene.repository.index.refresh()
    node = scene.repository.index.copies(gone.disks[0].root)[0].pack
    slow = scene.meddled("get_range", object_key(node.kind, node.name.hex()), vanish)
    report = scene.collect(slow)
    assert report.stopped == ()
    scene.assert_whole()
    scene.assert_tidy()


def test_an_open_disk_reads_on_while_its_packs_are_compacted(scene: Scene) -> None:
    first, second = scene.history("a", 2)
    reader = scene.repository.open_disk(second.disks[0], ChunkCache(1 << 16))
    content = scene.contents[second.point_id]
    assert reader.read(0, 4096) == content[:4096]
    scene.remove(first)
    assert scene.collect().copied > 0
    pieces = [reader.read(at, 1 << 16) for at in range(0, SIZE, 1 << 16)]
    assert b"".join(pieces) == content


def test_a_compared_copy_may_be_gone_when_trash_is_read_again(scene: Scene) -> None:
    """Another collector needed neither copy and deleted one, while this one was busy for hours; by
    the time it looks again, a point needs the content once more."""
    scene.point("a", filled_disk(1))
    (pack,) = scene.packs()
    source = BlobSource(scene.sealed, pack)
    copies = VerbatimCopies(scene.sealed, scene.repository.index, b"o" * 16)
    for blob in source.read(np.arange(len(source.directory.ids))):
        assert blob.sealed is not None
        copies.add(pack.kind, blob.content_id, blob.sealed, blob.plain_length, blob.data_key)
    (other,) = copies.flush()
    with Workplace(as_agent(scene.repository), Silent()) as place:
        place.stand()
        place.look()
        assert not place.rescue.secure(source, {pack})
        assert place.rescue.copied == 0
        # Put into trash, deleted, and the trash object dropped: nothing tells of it any more.
        scene.sealed.delete(other.kind, other.name.hex())
        place.look()
        assert not place.rescue.secure(source, {pack})
        place.rescue.flush()
        scene.sealed.delete(pack.kind, pack.name.hex())
    scene.assert_whole()
