"""Copies into a repository with other keys: what they show, what they cost, what may happen."""

from __future__ import annotations

import random

import pytest

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.check import check_repository
from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectTerms
from backpoint_repo.copying.contract import Watch
from backpoint_repo.copying.copier import Copier, Fate
from backpoint_repo.errors import OwnerKeyNeeded, StoreUnavailable, UsageError
from backpoint_repo.format import Kind
from backpoint_repo.phase_progress import Silent
from backpoint_repo.point import ORIGIN, Point
from repo.copying.resealed_scene import (
    THERE,
    CopyScene,
    WatchedStore,
    assert_all_clean,
    copy_all,
    fail,
    once,
    owned_by_another,
)
from small_repository import as_agent, keys_of, read_disk, reopened
from synthetic_disk import SyntheticDisk, random_disk, scribble

MIB = 1 << 20


def history(scene: CopyScene, vm: str, points: int, seed: int, size: int = 2 * MIB) -> list[Point]:
    """Points of one VM; between two of them a little of the disk changes."""
    disk = random_disk(size, seed)
    made = [scene.point(vm, disk)]
    for number in range(1, points):
        scribble(disk, random.Random(seed + number), 2, 1 << 15)
        made.append(scene.point(vm, disk))
    return made


@pytest.mark.parametrize("many", [False, True], ids=["local", "remote"])
def test_copies_are_bit_for_bit_the_same(many: bool) -> None:
    """Odd sizes, holes, equal disks, disks that grow, shrink, come and go; files and what the agent
    recorded. Where many requests pay off, what is read ahead is what is read."""
    scene = CopyScene(many=many)
    odd, whole = random_disk(40 * MIB + 12345, 1), random_disk(3 * MIB, 2, tells_holes=False)
    empty = SyntheticDisk(5 * MIB)
    points = [scene.point("web", odd, whole), scene.point("db", whole, SyntheticDisk(0), empty)]
    for size in (70 * MIB + 1, 33 * MIB):
        grown = SyntheticDisk(size)
        grown.write(0, odd.content(0, min(size, odd.size)))
        grown.write(size - 9000, b"end" * 3000)
        odd = grown
        scribble(whole, random.Random(size), 3, 1 << 16)
        points.append(scene.point("web", odd, whole, label="a label"))
    points.append(scene.point("web", whole))
    with reopened(scene.source).begin_backup("db") as session:
        session.store_disk(DiskJob("scsi0:0", whole), lambda _: None)
        session.store_file("db.vmx", random.Random(3).randbytes(150_000))
        session.store_file("empty", b"")
        session.warnings.append("the clock was wrong")
        capture = {"uuid": "42", "disks": [{"change_id": "52 a/7"}], ORIGIN: {"of": "x"}}
        points.append(session.publish(time=1.5, label="", consistency="off", capture=capture))
    scene.contents[points[-1].point_id] = (whole.content(0, whole.size),)
    assert len(scene.copy()) == len(points)
    scene.assert_copied(*points)


def test_only_what_differs_is_read_and_stored() -> None:
    scene = CopyScene()
    points = history(scene, "web", 3, seed=5)
    whole, *increments = [outcome.copied for outcome in scene.copy()]
    assert whole is not None
    assert whole.point.traffic.read > 10 << 16
    for copied in increments:
        assert copied is not None
        assert 0 < copied.point.traffic.read < 5 << 16
        assert copied.point.traffic.new <= copied.point.traffic.read
        assert copied.point.parent is not None
    scene.assert_copied(*points)


def test_nothing_new_costs_nothing() -> None:
    """No object is put, no chunk or map is read, no point is looked at that is known."""
    scene = CopyScene()
    points = history(scene, "web", 2, seed=6)
    scene.copy()
    before = scene.there.objects()
    copier = scene.copier()
    scene.here.reads.clear()
    copier.look()
    assert copy_all(copier) == []
    assert scene.there.objects() == before
    assert scene.here.reads == ["config"]
    scene.assert_copied(*points)


def test_what_is_shared_is_stored_once() -> None:
    """Also with what was backed up at the destination itself."""
    scene = CopyScene()
    disk = random_disk(2 * MIB, 7)
    with scene.opened_target().begin_backup("elsewhere") as session:
        session.store_disk(DiskJob("disk0", disk), lambda _: None)
        session.publish(time=None, label="")
    points = [scene.point("web", disk), scene.point("db", disk)]
    packs = keys_of(scene.there, Kind.DATA_PACK)
    for outcome in scene.copy():
        assert outcome.copied is not None
        assert outcome.copied.point.traffic.new == 0
    assert keys_of(scene.there, Kind.DATA_PACK) == packs
    scene.assert_copied(*points)


def test_a_circle_makes_no_duplicates_and_brings_back_what_was_lost() -> None:
    """From one to another to a third and home again."""
    scene = CopyScene()
    points = history(scene, "web", 3, seed=8)
    third = owned_by_another(WatchedStore("third"), scene.clock)
    scene.copy()
    again = Copier(scene.opened_target(), third)
    again.look()
    assert [outcome.fate for outcome in copy_all(again)] == [Fate.COPIED] * 3
    home = Copier(third, scene.opened_source())
    home.look()
    assert copy_all(home) == []
    scene.remove(scene.source, points[1])
    home.look()
    (outcome,) = copy_all(home)
    assert outcome.copied is not None
    back = outcome.copied.point
    assert back.origin == scene.source.config.repository_id + points[1].point_id
    source = scene.opened_source()
    assert read_disk(source, back.disks[0]) == scene.contents[points[1].point_id][0]
    assert scene.copy() == []
    scene.assert_copied(points[0], points[2])


def test_an_older_program_knew_no_copies() -> None:
    """It wrote a catalogue that does not tell; the points do."""
    scene = CopyScene()
    points = history(scene, "web", 2, seed=9)
    scene.copy()
    copier = scene.copier()
    known = copier._target.catalog._known
    for name, summary in known.items():
        assert summary is not None
        known[name] = summary._replace(origin=b"")
    copier.look()
    assert copy_all(copier) == []
    scene.assert_copied(*points)


def test_damage_at_the_source_costs_one_point_and_no_more() -> None:
    """The point that cannot be read is told, the others are there, and nothing half."""
    scene = CopyScene()
    lost = scene.point("web", random_disk(MIB, 10))
    (pack,) = keys_of(scene.here, Kind.DATA_PACK)
    kept = [scene.point("db", random_disk(MIB, 11)), scene.point("web", random_disk(MIB, 12))]
    data = bytearray(scene.here.get(pack))
    data[200:2000] = bytes(1800)
    scene.here.delete(pack)
    scene.here.put(pack, [data])
    outcomes = copy_all(scene.copier())
    fates = {outcome.point.point_id: outcome.fate for outcome in outcomes}
    assert fates[lost.point_id] is Fate.DAMAGED
    assert [fates[point.point_id] for point in kept] == [Fate.COPIED] * 2
    (why,) = next(outcome.why for outcome in outcomes if outcome.fate is Fate.DAMAGED)
    assert why.startswith("disk0: bytes ")
    assert len(keys_of(scene.there, Kind.POINT)) == 2
    assert_all_clean(scene.there, THERE, scene.clock)


def test_a_rotten_point_object_is_told_and_others_are_copied() -> None:
    scene = CopyScene()
    points = history(scene, "web", 3, seed=13)
    copier = scene.copier()
    key = f"points/{points[1].point_id.hex()}"
    data = scene.here.get(key)
    scene.here.delete(key)
    scene.here.put(key, [data[:-1] + b"x"])
    fates = [outcome.fate for outcome in copy_all(copier)]
    assert fates == [Fate.COPIED, Fate.DAMAGED, Fate.COPIED]
    assert len(keys_of(scene.there, Kind.POINT)) == 2
    assert_all_clean(scene.there, THERE, scene.clock)


def test_a_point_that_is_pruned_while_it_is_copied_is_copied_whole() -> None:
    """Its lease keeps what it needs from the collector; the base goes as well."""
    scene = CopyScene()
    points = history(scene, "web", 2, seed=14, size=100 * MIB)
    copier = scene.copier()

    def prune() -> None:
        scene.remove(scene.source, *points)
        collected(scene, there=False)

    copies = [copier.copy(p, Watch(once(prune), fail)) for p in list(copier.source.points)[:1]]
    assert [outcome.fate for outcome in copies] == [Fate.COPIED]
    assert [outcome.fate for outcome in copy_all(copier)] == [Fate.GONE] * 2
    target = scene.opened_target()
    (summary,) = target.catalog.refresh()
    content = read_disk(target, target.point(summary.point_id).disks[0])
    assert content == scene.contents[points[0].point_id][0]
    collected(scene, there=False)
    scene.assert_clean()


def test_a_collector_at_the_destination_takes_nothing_of_a_copy_under_way() -> None:
    """Not even where the copy that it stands on is removed meanwhile."""
    scene = CopyScene()
    points = history(scene, "web", 2, seed=15, size=100 * MIB)
    copier = scene.copier()
    first, second = list(copier.source.points)
    base = copier.copy(first, Watch(tell=fail)).copied
    assert base is not None

    def prune() -> None:
        scene.remove(scene.target, base.point)
        collected(scene, there=True)

    assert copier.copy(second, Watch(once(prune), fail)).fate is Fate.COPIED
    collected(scene, there=True)
    scene.assert_copied(points[1])


def test_a_base_that_is_gone_is_done_without() -> None:
    scene = CopyScene()
    points = history(scene, "web", 3, seed=16)
    copier = scene.copier()
    first, second, third = list(copier.source.points)
    assert copier.copy(first, Watch(tell=fail)).copied
    scene.remove(scene.source, points[0])
    assert copier.copy(second, Watch(tell=fail)).fate is Fate.COPIED
    scene.remove(scene.target, *map(scene.target.point, ids_there(scene)))
    assert copier.copy(third, Watch(tell=fail)).fate is Fate.COPIED
    scene.assert_copied(points[2])


def test_a_source_that_cannot_be_written_is_copied_and_the_risk_told() -> None:
    scene = CopyScene()
    points = history(scene, "web", 1, seed=17)
    scene.here.read_only = True
    told: list[str] = []
    outcomes = copy_all(scene.copier(), Watch(tell=told.append))
    assert [outcome.fate for outcome in outcomes] == [Fate.COPIED]
    assert "if this point is pruned while it is read" in told[0]
    scene.here.read_only = False
    scene.assert_copied(*points)


def test_credentials() -> None:
    """What is read needs the owner of the source; the destination's agent may write."""
    scene = CopyScene()
    points = history(scene, "web", 1, seed=18)
    agent_there = as_agent(scene.target)
    with pytest.raises(OwnerKeyNeeded, match="has other keys than here"):
        Copier(as_agent(scene.source), scene.opened_target())
    with pytest.raises(OwnerKeyNeeded, match="owner of there"):
        Copier(scene.opened_source(), agent_there, verify=True)
    with pytest.raises(UsageError, match="is the repository to be copied"):
        Copier(scene.opened_source(), scene.opened_source())
    copier = Copier(scene.opened_source(), agent_there)
    copier.look()
    assert [outcome.fate for outcome in copy_all(copier)] == [Fate.COPIED]
    scene.assert_copied(*points)


def test_a_copy_that_differs_is_taken_back() -> None:
    """Nothing is built on it; once a check has marked what is rotten, the copy is made well."""
    scene = CopyScene()
    points = history(scene, "web", 2, seed=20)
    scene.there.rots = True
    copier = scene.copier(verify=True)
    outcomes = copy_all(copier)
    assert {outcome.fate for outcome in outcomes} == {Fate.DIFFERS}
    assert all("the copy was removed again" in outcome.why[-1] for outcome in outcomes)
    assert not keys_of(scene.there, Kind.POINT)
    scene.there.rots = False
    assert copy_all(scene.copier(verify=True))[0].fate is Fate.DIFFERS
    assert check_repository(scene.opened_target(), read_share=1.0).marked
    scene.copy(verify=True)
    scene.assert_copied(*points)


def test_an_empty_folder_is_no_repository_without_points() -> None:
    """What was mounted there is away: neither is the source in step nor the destination empty."""
    scene = CopyScene()
    history(scene, "web", 1, seed=19)
    copier = scene.copier()
    for store in (scene.here, scene.there):
        config = store.get("config")
        store.delete("config")
        with pytest.raises(StoreUnavailable, match=f"the repository at {store.name} is away"):
            copier.look()
        store.put("config", [config])
    copier.look()
    scene.copy()
    scene.assert_clean()


def ids_there(scene: CopyScene) -> list[bytes]:
    return [bytes.fromhex(key.removeprefix("points/")) for key in keys_of(scene.there, Kind.POINT)]


def collected(scene: CopyScene, *, there: bool) -> None:
    """A collector of another process, with nothing to wait for."""
    repository = scene.opened_target() if there else scene.opened_source()
    collect(repository, CollectTerms(wait_s=0.0), Silent(), lambda _: None)
