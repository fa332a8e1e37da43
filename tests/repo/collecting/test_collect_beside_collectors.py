"""Several collectors, one that slept, one that was taken for dead: whoever is slower at any moment
loses nothing."""

from __future__ import annotations

import threading

import numpy as np

from backpoint_repo.collecting.blob_source import BlobSource
from backpoint_repo.collecting.workplace import Workplace
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index import stored_packs
from backpoint_repo.lease import LIFETIME_S, MOUNT, LeaseTerms
from backpoint_repo.lease_book import read_leases
from backpoint_repo.phase_progress import Silent
from backpoint_repo.trash import put_trash, read_trash
from backpoint_repo.verbatim_copy import VerbatimCopies
from repo.collecting.collect_scene import Scene, filled_disk, lease_of
from small_repository import NOON, StandingClock, as_agent, keys_of


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
