"""A replica kept in step: what it gets, what it does not get again, how far it is behind."""

from __future__ import annotations

from itertools import islice

import pytest

from backpoint_repo.copying.contract import Watch
from backpoint_repo.copying.copier import Fate, Outcome
from backpoint_repo.copying.tail import Standing, Tail, pauses
from backpoint_repo.errors import StoreFull, StoreReadOnly, StoreUnavailable
from backpoint_repo.format import Kind
from repo.collecting.collect_scene import filled_disk
from repo.copying.resealed_scene import THERE, CopyScene, assert_all_clean, fail
from small_repository import keys_of

SIZE = 1 << 17


def tail_of(scene: CopyScene, *patterns: str, since: float = 0.0) -> Tail:
    return Tail(scene.copier(), patterns, since)


def round_of(scene: CopyScene, tail: Tail) -> tuple[Standing, list[Outcome]]:
    """One look, and all that it led to."""
    standing, plan = tail.look(scene.clock())
    copier = tail._copier
    return standing, [*tail.catch_up(plan, lambda point: copier.copy(point, Watch(tell=fail)))]


def fates(outcomes: list[Outcome]) -> list[Fate]:
    return [outcome.fate for outcome in outcomes]


def test_a_replica_follows() -> None:
    """First all there is, then what is new; how far it is behind is told for each VM and all."""
    scene = CopyScene()
    web = [scene.point("web", filled_disk(seed, SIZE)) for seed in (1, 2)]
    db = scene.point("db", filled_disk(3, SIZE))
    tail = tail_of(scene)
    scene.clock.now += 60
    standing, outcomes = round_of(scene, tail)
    assert fates(outcomes) == [Fate.COPIED] * 3
    assert (standing.pending, standing.lag_s) == (3, 2 * 3600 + 60)
    assert [(one.vm, one.pending, one.newest) for one in standing.behind] == [
        ("db", 1, None),
        ("web", 2, None),
    ]
    assert standing.behind[0].lag_s(standing.now) == 60
    standing, outcomes = round_of(scene, tail)
    assert (standing.pending, standing.lag_s, standing.behind, outcomes) == (0, 0.0, [], [])
    assert [one.newest.point_id for one in standing.vms if one.newest] == [
        db.point_id,
        web[1].point_id,
    ]
    later = scene.point("web", filled_disk(4, SIZE))
    standing, outcomes = round_of(scene, tail)
    assert [outcome.point.point_id for outcome in outcomes] == [later.point_id]
    assert [(one.vm, one.pending) for one in standing.behind] == [("web", 1)]
    scene.assert_copied(*web, db, later)


def test_what_retention_took_does_not_come_back() -> None:
    """Neither in this process nor in the next, while `copy` would bring it."""
    scene = CopyScene()
    points = [scene.point("web", filled_disk(seed, SIZE)) for seed in range(4)]
    tail = tail_of(scene)
    round_of(scene, tail)
    copies = scene.target.catalog.refresh()
    scene.remove(scene.target, *(scene.target.point(one.point_id) for one in copies[:3]))
    for follower in (tail, tail_of(scene)):
        standing, outcomes = round_of(scene, follower)
        assert (standing.pending, outcomes) == (0, [])
    later = scene.point("web", filled_disk(9, SIZE))
    assert len(round_of(scene, tail_of(scene))[1]) == 1
    assert len(scene.copy()) == 3
    scene.assert_copied(*points, later)


def test_vms_that_come_later_and_a_beginning() -> None:
    scene = CopyScene()
    scene.point("web", filled_disk(1, SIZE))
    since = scene.clock.now + 1
    wanted = [scene.point("web", filled_disk(2, SIZE))]
    tail = tail_of(scene, "web", "d*", since=since)
    assert len(round_of(scene, tail)[1]) == 1
    wanted.append(scene.point("db", filled_disk(3, SIZE)))
    scene.point("mail", filled_disk(4, SIZE))
    assert len(round_of(scene, tail)[1]) == 1
    assert len(keys_of(scene.there, Kind.POINT)) == 2
    scene.assert_copied(*wanted)


def test_what_cannot_be_read_for_now_keeps_its_vm_waiting_and_no_other() -> None:
    """Nothing later of that VM is copied before it, or it would never be."""
    scene = CopyScene()
    first = scene.point("web", filled_disk(1, SIZE))
    scene.here.away = set(keys_of(scene.here, Kind.DATA_PACK))
    second, other = (
        scene.point("web", filled_disk(2, SIZE)),
        scene.point("db", filled_disk(3, SIZE)),
    )
    tail = tail_of(scene)
    assert fates(round_of(scene, tail)[1]) == [Fate.COPIED, Fate.UNREACHED]
    standing, _ = round_of(scene, tail)
    assert [(one.vm, one.pending) for one in standing.behind] == [("web", 2)]
    scene.here.away = set()
    assert fates(round_of(scene, tail)[1]) == [Fate.COPIED] * 2
    scene.assert_copied(first, second, other)


def test_what_is_damaged_is_told_once_and_passed_over() -> None:
    scene = CopyScene()
    scene.point("web", filled_disk(1, SIZE))
    (pack,) = keys_of(scene.here, Kind.DATA_PACK)
    scene.here.delete(pack)
    later = scene.point("web", filled_disk(2, SIZE))
    tail = tail_of(scene)
    assert fates(round_of(scene, tail)[1]) == [Fate.DAMAGED, Fate.COPIED]
    standing, outcomes = round_of(scene, tail)
    assert (standing.pending, outcomes) == (0, [])
    target = scene.opened_target()
    (copy,) = target.catalog.refresh()
    assert copy.origin[16:] == later.point_id
    assert_all_clean(scene.there, THERE, scene.clock)


def test_a_place_that_is_away_ends_the_round_and_the_next_goes_on() -> None:
    scene = CopyScene()
    points = [scene.point("web", filled_disk(seed, SIZE)) for seed in (1, 2)]
    tail = tail_of(scene)
    scene.there.read_only = True
    with pytest.raises(StoreReadOnly):
        round_of(scene, tail)
    scene.there.read_only = False
    for store in (scene.here, scene.there):
        store.away = {"config"}
        with pytest.raises(StoreUnavailable):
            round_of(scene, tail)
        store.away = set()
    assert fates(round_of(scene, tail)[1]) == [Fate.COPIED] * 2
    scene.assert_copied(*points)


def test_a_full_destination_ends_the_round() -> None:
    """No other point would find room, so none is tried."""
    scene = CopyScene()
    points = [scene.point(vm, filled_disk(1, SIZE)) for vm in ("web", "db")]
    copier = scene.copier()

    def fill(_: int) -> None:
        raise StoreFull("no space left")

    with pytest.raises(StoreFull):
        copier.copy(copier.source.points[0], Watch(fill))
    assert not keys_of(scene.there, Kind.POINT)
    assert not keys_of(scene.there, Kind.LEASE)
    scene.copy()
    scene.assert_copied(*points)


def test_attempts_come_less_and_less_often() -> None:
    assert [*islice(pauses(60.0), 9)] == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert [*islice(pauses(2.0), 3)] == [2, 4, 8]
    assert [*islice(pauses(900.0), 9)] == [5, 10, 20, 40, 80, 160, 320, 640, 900]
