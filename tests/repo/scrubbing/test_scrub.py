"""What a scrub finds, marks and tells; what it reads again and what not; how it ends."""

from __future__ import annotations

import pytest

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.exclusions import read_exclusions
from backpoint_repo.format import Kind
from backpoint_repo.repository import Repository
from backpoint_repo.scrubbing.scrub import Scrub
from backpoint_repo.scrubbing.scrub_report import ScrubReport, ScrubTerms
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.trash import put_trash
from repo.parity.parity_scene import keep_up
from repo.scrubbing.scrub_scene import (
    WatchedStore,
    altered,
    bytes_in_packs,
    data_pack_of,
    disk_of,
    fill,
    pack_of,
    scrubbed,
)
from small_repository import (
    StandingClock,
    as_agent,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    reopened,
)

DAY = 86400.0
VMS = ("web", "db", "mail")


@pytest.fixture
def watched() -> WatchedStore:
    return WatchedStore(MemoryStore())


@pytest.fixture
def repository(watched: WatchedStore, clock: StandingClock) -> Repository:
    return new_repository(watched, clock)


def test_all_is_read_and_then_nothing_until_it_is_due(
    watched: WatchedStore, repository: Repository, clock: StandingClock
) -> None:
    fill(repository, *VMS)
    report = scrubbed(reopened(repository))
    assert (report.packs, report.due) == (6, 0)
    assert report.read_bytes == bytes_in_packs(repository)
    assert (report.ages.never, report.ages.oldest) == (0, clock.now)
    clock.now += 29 * DAY
    assert scrubbed(reopened(repository)).packs == 0
    fill(repository, "new")
    assert scrubbed(reopened(repository)).packs == 2
    clock.now += 2 * DAY
    watched.asked.clear()
    report = scrubbed(reopened(repository))
    assert report.packs == 6
    assert set(watched.blob_reads().values()) == {1}
    assert scrubbed(reopened(repository), every_s=DAY).packs == 2
    assert scrubbed(reopened(repository), every_s=DAY).packs == 0
    clock.now += 2 * DAY
    assert scrubbed(reopened(repository), every_s=DAY).packs == 8
    assert_clean(repository)


def test_oldest_first_begins_with_what_was_never_read(
    watched: WatchedStore, repository: Repository, clock: StandingClock
) -> None:
    fill(repository, "web")
    scrubbed(reopened(repository))
    old = set(watched.blob_reads())
    clock.now += DAY
    fill(repository, "db")
    watched.asked.clear()
    report = scrubbed(reopened(repository), oldest_first=True)
    assert report.packs == 4
    order = [key for key, offset, length in watched.asked if offset == 8 and length > 8]
    assert set(order[2:]) == old
    assert report.due == 0


def test_the_agent_s_reading_is_none_to_the_owner(repository: Repository) -> None:
    """Bytes that were compared may hold what somebody forged. Map nodes either can open."""
    fill(repository, "web")
    report = scrubbed(as_agent(repository))
    assert (report.packs, report.due) == (2, 0)
    assert scrubbed(as_agent(repository)).packs == 0
    assert scrubbed(reopened(repository)).packs == 1
    assert scrubbed(reopened(repository)).packs == 0
    assert scrubbed(as_agent(repository)).packs == 0


@pytest.mark.parametrize("who", [reopened, as_agent])
def test_damage_is_marked_once_told_until_it_is_healed_and_then_no_more(
    repository: Repository, who: object
) -> None:
    assert callable(who)
    points = fill(repository, *VMS)
    key = data_pack_of(repository, points[1])
    altered(repository.sealed.store, key, 8 + 1000)
    report: ScrubReport = scrubbed(who(repository))
    assert [found.key for found in report.damaged] == [key]
    assert report.marked == 1
    (hurt,) = report.hurt
    assert (hurt.vm, hurt.point_id, hurt.disk) == ("db", points[1].point_id, "disk0")
    again = scrubbed(who(repository))
    assert (again.packs, again.marked) == (0, 0)
    assert [(item.vm, item.offset, item.length) for item in again.hurt] == [
        (hurt.vm, hurt.offset, hurt.length)
    ]
    assert [found.key for found in again.damaged] == [key]
    assert len(keys_of(repository.sealed.store, Kind.DAMAGE)) == 1
    back_up(reopened(repository), "db", disk_of("db"))
    healed = scrubbed(who(repository), oldest_first=True)
    assert not healed.hurt
    assert [found.problem.rpartition("; ")[2] for found in healed.damaged] == [
        "no point depends on it"
    ]
    assert healed.marked == 0
    assert not scrubbed(who(repository)).damaged, "what is known and harmless is no news"
    assert_clean(repository)


def test_the_hurt_ranges_are_those_that_do_not_read(repository: Repository) -> None:
    disk = disk_of("web")
    point = back_up(repository, "web", disk)
    key = data_pack_of(repository, point)
    directory = repository.sealed.directory(*pack_of(key))
    for row in (2, 3, 9):
        altered(repository.sealed.store, key, int(directory.offsets[row]) + 30)
    report = scrubbed(reopened(repository))
    assert report.marked == 3
    hurt = set[int]()
    for item in report.hurt:
        hurt.update(range(item.offset, item.offset + item.length, 4096))
    assert len(hurt) * 4096 == int(directory.plain_lengths[[2, 3, 9]].sum())
    reader = reopened(repository).open_disk(point.disks[0], ChunkCache(1 << 20))
    for offset in range(0, disk.size, 4096):
        if offset in hurt:
            with pytest.raises(ObjectDamaged):
                reader.read(offset, 4096)
        else:
            assert reader.read(offset, 4096) == disk.content(offset, 4096)


def test_a_lost_directory_costs_all_chunks_of_the_pack(repository: Repository) -> None:
    points = fill(repository, "web", "db")
    key = data_pack_of(repository, points[0])
    blobs = len(repository.sealed.directory(*pack_of(key)).ids)
    altered(repository.sealed.store, key, -40)
    report = scrubbed(reopened(repository))
    assert report.marked == blobs
    assert {item.vm for item in report.hurt} == {"web"}
    assert scrubbed(reopened(repository)).packs == 0, "it was looked at"


def test_bad_map_nodes_hurt_what_hangs_on_them(repository: Repository) -> None:
    points = fill(repository, "web", "db")
    (key,) = (
        key
        for key in keys_of(repository.sealed.store, Kind.NODE_PACK)
        if repository.sealed.directory(*pack_of(key)).session == points[0].point_id
    )
    altered(repository.sealed.store, key, 60)
    report = scrubbed(reopened(repository))
    (hurt,) = report.hurt
    assert (hurt.vm, hurt.offset, hurt.length) == ("web", 0, points[0].disks[0].size)


def test_a_missing_pack_is_told_where_a_point_needs_it(repository: Repository) -> None:
    points = fill(repository, "web", "db")
    key = data_pack_of(repository, points[0])
    repository.sealed.store.delete(key)
    for _ in range(2):
        report = scrubbed(reopened(repository))
        assert [found.key for found in report.damaged] == [key]
        assert {item.vm for item in report.hurt} == {"web"}
        assert all("missing" in item.problem for item in report.hurt)
    repository.sealed.delete(Kind.POINT, points[0].point_id.hex())
    report = scrubbed(reopened(repository))
    assert not report.damaged, "a collector takes packs that nobody needs"
    assert not report.hurt


def test_packs_in_trash_are_left_alone(repository: Repository, clock: StandingClock) -> None:
    points = fill(repository, "web", "db")
    key = data_pack_of(repository, points[0])
    put_trash(repository.sealed, 1, [pack_of(key)], 0, bytes(16), clock.now)
    report = scrubbed(reopened(repository), oldest_first=True)
    assert (report.packs, report.ages.never, report.due) == (3, 0, 0)


def test_unreadable_trash_only_means_to_read_too_much(repository: Repository) -> None:
    points = fill(repository, "web", "db")
    key = data_pack_of(repository, points[0])
    put_trash(repository.sealed, 1, [pack_of(key)], 0, bytes(16), 0.0)
    altered(repository.sealed.store, "trash/0000000000000001", 50)
    report = scrubbed(reopened(repository))
    assert report.packs == 4
    assert any("trash/" in note for note in report.notes)


def test_spares_of_parity_are_read_too(watched: WatchedStore, repository: Repository) -> None:
    """A wrong one is told until it is made anew; nothing else will ever look at it."""
    fill(repository, *VMS)
    keep_up(repository, (4, 2))
    spares = keys_of(watched, Kind.PARITY)
    assert len(spares) == 4
    for who in (as_agent, reopened):
        report = scrubbed(who(repository))
        assert report.due == 0
    assert scrubbed(reopened(repository)).packs == 0
    altered(watched, spares[1], 20)
    for _ in range(2):
        report = scrubbed(reopened(repository), oldest_first=True)
        assert [found.key for found in report.damaged] == [spares[1]]
        assert "backpoint parity --verify" in report.damaged[0].problem
        assert (report.marked, report.hurt) == (0, ())
    watched.unavailable = {spares[0]}
    report = scrubbed(reopened(repository), oldest_first=True)
    assert len(report.unreadable) == 1


def test_cannot_read_now_is_tried_twice_told_and_never_marked(
    watched: WatchedStore, repository: Repository
) -> None:
    points = fill(repository, *VMS)
    key = data_pack_of(repository, points[0])
    watched.unavailable = {key}
    watched.asked.clear()
    report = scrubbed(reopened(repository))
    assert (report.packs, report.due, report.marked) == (5, 1, 0)
    (said,) = report.unreadable
    assert key in said
    assert not report.damaged
    assert not report.hurt
    tries = [at for at in watched.asked if at[0] == key]
    assert len(tries) == 2, "the first call of each try fails"
    watched.unavailable = set()
    report = scrubbed(reopened(repository))
    assert (report.packs, report.due, report.unreadable) == (1, 0, ())
    assert_clean(repository)


def test_a_store_that_has_gone_is_not_asked_for_every_pack(
    watched: WatchedStore, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backpoint_repo.scrubbing.scrub._GIVE_UP_AFTER", 3)
    fill(repository, *(f"vm{number}" for number in range(10)))
    watched.unavailable = {*keys_of(watched, Kind.DATA_PACK), *keys_of(watched, Kind.NODE_PACK)}
    report = scrubbed(reopened(repository))
    assert len(report.unreadable) == 3
    assert report.due == 20
    watched.unavailable = set()
    assert scrubbed(reopened(repository)).due == 0


def test_wrong_once_is_a_note(watched: WatchedStore, repository: Repository) -> None:
    points = fill(repository, "web")
    key = data_pack_of(repository, points[0])
    opened = reopened(repository)
    watched.once = {key}
    report = scrubbed(opened)
    assert any(key in note for note in report.notes)
    assert (report.packs, report.marked, report.damaged) == (2, 0, ())
    assert not read_exclusions(repository.sealed).damaged


def test_a_pack_that_vanishes_is_nothing(watched: WatchedStore, repository: Repository) -> None:
    points = fill(repository, "web", "db")
    key = data_pack_of(repository, points[0])
    repository.sealed.delete(Kind.POINT, points[0].point_id.hex())
    opened = reopened(repository)
    watched.vanishing = {key}
    report = scrubbed(opened)
    assert (report.packs, report.due, report.ages.never) == (3, 0, 0)
    assert report == ScrubReport(3, report.read_bytes, ages=report.ages)


def test_time_is_over_after_the_pack_that_is_being_read(
    watched: WatchedStore, repository: Repository
) -> None:
    """Each look at the clock takes a second."""
    fill(repository, *VMS)
    now = iter(range(1000))
    scrub = Scrub(reopened(repository), ScrubTerms(for_s=4), lambda: float(next(now)))
    scrub.read()
    first = scrub.report()
    assert 0 < first.packs < 6
    assert first.due == 6 - first.packs
    second = scrubbed(reopened(repository))
    assert second.packs == first.due
    assert set(watched.blob_reads().values()) == {1}


def test_a_store_that_takes_nothing_is_read_all_the_same(
    watched: WatchedStore, repository: Repository
) -> None:
    points = fill(repository, "web", "db")
    key = data_pack_of(repository, points[0])
    altered(watched.inner, key, 1000)
    watched.refuses_puts = True
    report = scrubbed(reopened(repository))
    assert (report.packs, report.marked, report.due) == (4, 0, 4)
    assert {item.vm for item in report.hurt} == {"web"}
    assert any("could not be noted" in note for note in report.notes)
    watched.refuses_puts = False
    report = scrubbed(reopened(repository))
    assert (report.packs, report.marked, report.due) == (4, 1, 0)


def test_progress_says_all_bytes(repository: Repository) -> None:
    fill(repository, *VMS)
    scrub = Scrub(reopened(repository), ScrubTerms())
    told: list[int] = []
    scrub.read(told.append)
    assert sum(told) == scrub.planned_bytes == bytes_in_packs(repository)


def test_an_empty_repository_is_soon_read(repository: Repository) -> None:
    assert scrubbed(reopened(repository)) == ScrubReport()
