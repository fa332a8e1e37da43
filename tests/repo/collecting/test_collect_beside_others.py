"""Collecting while others work: nobody is blocked, and nobody loses a chunk."""

from __future__ import annotations

import pytest

from backpoint_repo.backup_session import BackupSession, DiskJob
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import SessionRevoked
from backpoint_repo.format import Kind, object_key
from backpoint_repo.lease import LIFETIME_S, MOUNT, SEEN_ALL, Lease, LeaseTerms
from backpoint_repo.pin import Pin, pin_of
from backpoint_repo.point import Point
from faults.failing_store import FailingStore
from repo.collecting.collect_scene import SIZE, Scene, filled_disk, lease_of
from small_repository import StandingClock, as_agent, read_disk, reopened
from synthetic_disk import SyntheticDisk


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


def test_an_open_disk_reads_on_while_its_packs_are_compacted(scene: Scene) -> None:
    first, second = scene.history("a", 2)
    reader = scene.repository.open_disk(second.disks[0], ChunkCache(1 << 16))
    content = scene.contents[second.point_id]
    assert reader.read(0, 4096) == content[:4096]
    scene.remove(first)
    assert scene.collect().copied > 0
    pieces = [reader.read(at, 1 << 16) for at in range(0, SIZE, 1 << 16)]
    assert b"".join(pieces) == content
