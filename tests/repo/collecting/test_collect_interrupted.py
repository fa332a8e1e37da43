"""A collector that dies at any call of the store: nothing is lost, and the next one goes on."""

from __future__ import annotations

import pytest

from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.index import stored_packs
from backpoint_repo.lease import LIFETIME_S
from backpoint_repo.store.memory import MemoryStore
from faults.failing_store import AFTER, BEFORE, FailingStore
from repo.collecting.collect_scene import Scene, filled_disk
from small_repository import StandingClock, new_repository

SMALL = 256 << 10


class Death(BaseException):
    """Of the process: no handler of errors sees it, and nothing is put or deleted after it."""


def die() -> None:
    raise Death


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
def test_death_at_every_call(moment: str) -> None:
    clock = StandingClock()
    scene = Scene(new_repository(MemoryStore(), clock))
    disk = filled_disk(1, SMALL)
    first = scene.point("a", disk)
    disk.write(0, filled_disk(2, SMALL).content(0, SMALL // 2))
    scene.point("a", disk)
    scene.remove(first, scene.point("b", filled_disk(3, SMALL)))
    beginning = scene.objects()
    only = frozenset({"put", "delete"})
    at, died = 0, True
    while died:
        at += 1
        reset(scene, beginning)
        clock.now += 1
        store = FailingStore(scene.store, at, die, moment, stays=True, only=only)
        try:
            scene.collect(scene.through(store))
            died = False
        except Death:
            scene.assert_whole()
        clock.now += LIFETIME_S + 1
        scene.collect()
        scene.assert_whole()
        scene.collect()
        scene.assert_tidy()
        # As much is stored as if nothing had happened: no copies pile up.
        assert scene.stored() < 1.3 * SMALL
    assert at > 8


def reset(scene: Scene, objects: dict[str, bytes]) -> None:
    for key in scene.objects():
        scene.store.delete(key)
    for key, data in objects.items():
        scene.store.put(key, [data])


def test_copies_of_a_dead_collector_are_found_again(scene: Scene) -> None:
    """It died before it put anything into trash: what it copied is compared, not copied again."""
    first, _ = scene.history("a", 2)
    scene.remove(first)
    with pytest.raises(Death):
        scene.collect(scene.meddled("put", "trash/", die))
    scene.assert_whole()
    report = scene.collect()
    assert (report.copied, report.freed_packs > 0) == (0, True)
    scene.assert_whole()
    scene.assert_tidy()


def test_copies_that_were_marked_meanwhile_do_not_count(scene: Scene) -> None:
    """Nothing is deduplicated onto them any more, so they cannot stand in for good ones."""
    first, _ = scene.history("a", 2)
    scene.remove(first)
    before = set(stored_packs(scene.sealed))
    with pytest.raises(Death):
        scene.collect(scene.meddled("put", "trash/", die))
    marks = [
        (row.tobytes(), pack)
        for pack in set(stored_packs(scene.sealed)) - before
        for row in scene.sealed.directory(*pack).ids
    ]
    mark_damaged(scene.sealed, marks, 1.0)
    assert scene.collect().copied > 0
    scene.assert_whole()
