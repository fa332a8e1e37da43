"""What the repository still has: marked copies that read well, blobs of spoilt packs, parity."""

from __future__ import annotations

import random

import pytest

from backpoint_repo.exclusions import mark_damaged, read_exclusions
from backpoint_repo.format import Kind
from backpoint_repo.healing.heal import plan_heal
from backpoint_repo.index import stored_packs
from backpoint_repo.parity.upkeep import Upkeep
from backpoint_repo.phase_progress import Silent
from repo.healing.damage_scene import (
    DamageScene,
    counts,
    delete,
    flip_bits,
    rot_all,
    spoil_directory,
    truncate,
)
from small_repository import as_agent, reopened
from synthetic_disk import SyntheticDisk

OWN = "from copies that read well again"
PARITY = "from parity packs"


def mark_everything(scene: DamageScene) -> None:
    """As after memory that was bad, or as somebody does who means harm."""
    sealed = scene.repository.sealed
    for pack in list(stored_packs(sealed)):
        ids = sealed.directory(pack.kind, pack.name).ids
        mark_damaged(sealed, [(row.tobytes(), pack) for row in ids], 1.0)


def add_parity(scene: DamageScene, data: int, spares: int) -> None:
    Upkeep(reopened(scene.repository), (data, spares), 4096).run(lambda _: None)


@pytest.fixture
def large(scene: DamageScene, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the data packs of one session, the largest first: packs are small here."""
    before = set(scene.keys(Kind.DATA_PACK))
    monkeypatch.setattr("backpoint_repo.pack_stream.PACK_SIZE", 64 << 10)
    disk = SyntheticDisk(1 << 20, name="large.img")
    disk.write(0, random.Random(8).randbytes(300_000))
    scene.back_up("large", disk)
    own = set(scene.keys(Kind.DATA_PACK)) - before
    return sorted(own, key=scene.store.size, reverse=True)


def test_good_copies_that_were_marked_are_stored_again(scene: DamageScene) -> None:
    mark_everything(scene)
    report = scene.heal()
    assert report.whole
    assert report.chunks
    assert report.nodes
    assert counts(report) == {OWN: (report.chunks, report.nodes)}
    scene.assert_whole()
    again = scene.heal()
    assert (again.chunks, again.nodes, again.stored) == (0, 0, 0), "marks stay, and hurt nobody"


def test_the_agent_believes_nodes_and_no_marked_chunk(scene: DamageScene) -> None:
    """Their digests are right, and so they would be of garbage stored under a known id."""
    mark_everything(scene)
    data = scene.keys(Kind.DATA_PACK)
    report = scene.heal(repository=as_agent(scene.repository))
    assert not report.whole
    assert counts(report) == {OWN: (0, report.nodes)}
    assert scene.keys(Kind.DATA_PACK) == data
    assert scene.heal().whole
    scene.assert_whole()


def test_a_spoilt_directory_where_another_pack_lists_the_keys(
    scene: DamageScene, large: list[str]
) -> None:
    spoil_directory(scene.store, large[0])
    scene.check()
    report = scene.heal()
    assert report.whole
    assert counts(report) == {OWN: (report.chunks, 0)}
    scene.assert_whole()


def test_what_a_truncated_pack_still_holds(scene: DamageScene, large: list[str]) -> None:
    truncate(scene.store, large[0])
    scene.check()
    report = scene.heal()
    ((saved, _),) = counts(report).values()
    assert 0 < saved < report.chunks
    assert {hurt.vm for hurt in report.lost} == {"large"}


def test_nothing_bad_is_taken_for_good(scene: DamageScene) -> None:
    for key in scene.keys(Kind.DATA_PACK, Kind.NODE_PACK):
        rot_all(scene.store, key)
    scene.check()
    before = scene.keys(Kind.DATA_PACK, Kind.NODE_PACK)
    report = scene.heal()
    assert not report.whole
    assert counts(report) == {}
    assert scene.keys(Kind.DATA_PACK, Kind.NODE_PACK) == before


def test_a_map_node_that_is_rotten_unnoticed_is_found_marked_and_healed(
    scene: DamageScene,
) -> None:
    """Walking maps opens every node, so no check need come first."""
    nodes = scene.keys(Kind.NODE_PACK)
    for key in nodes:
        flip_bits(scene.store, key, [60])
    assert not read_exclusions(scene.repository.sealed).damaged
    assert scene.heal(*scene.live()).whole
    marked = read_exclusions(scene.repository.sealed).damaged
    assert {pack.name.hex() for _, pack in marked} == {key[-32:] for key in nodes}
    scene.assert_whole()


def test_a_dry_run_says_the_same_and_writes_nothing(scene: DamageScene) -> None:
    for key in scene.keys(Kind.DATA_PACK):
        truncate(scene.store, key)
    before = {found.key for found in scene.store.list("")}
    plan = plan_heal(reopened(scene.repository), Silent())
    assert {found.key for found in scene.store.list("")} == before
    report = scene.heal()
    assert plan.chunks == report.chunks > 0
    assert {(hurt.vm, hurt.disk) for hurt in plan.lost} >= {("web", "disk0"), ("db", "disk0")}


@pytest.mark.parametrize("agent", [False, True])
@pytest.mark.parametrize("with_segments", [False, True])
def test_lost_packs_come_back_from_parity(
    scene: DamageScene, with_segments: bool, agent: bool
) -> None:
    """Also when no index segment tells any more what was in them."""
    add_parity(scene, 6, 2)
    for key in scene.keys(Kind.DATA_PACK)[:1] + scene.keys(Kind.NODE_PACK)[:1]:
        delete(scene.store, key)
    if with_segments:
        for key in scene.keys(Kind.INDEX):
            delete(scene.store, key)
    report = scene.heal(repository=as_agent(scene.repository) if agent else None)
    assert report.whole, report.lost
    assert counts(report) == {PARITY: (report.chunks, report.nodes)}
    scene.assert_whole()


@pytest.mark.parametrize("agent", [False, True])
def test_rotten_packs_are_mended_by_parity(scene: DamageScene, agent: bool) -> None:
    """The agent believes it: the bytes that are there are not those that were stored."""
    add_parity(scene, 6, 2)
    rot_all(scene.store, scene.keys(Kind.DATA_PACK)[0])
    scene.check()
    report = scene.heal(repository=as_agent(scene.repository) if agent else None)
    assert report.whole, report.lost
    assert report.chunks
    assert set(counts(report)) <= {PARITY, OWN}
    scene.assert_whole()


def test_to_the_agent_parity_of_what_was_marked_as_stored_proves_nothing(
    scene: DamageScene,
) -> None:
    add_parity(scene, 6, 2)
    mark_everything(scene)
    report = scene.heal(repository=as_agent(scene.repository))
    assert not report.whole
    assert sum(chunks for chunks, _ in counts(report).values()) == 0
    assert scene.heal().whole
    scene.assert_whole()
