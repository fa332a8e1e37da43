"""Real damage, healed each way: afterwards check is clean and every point reads back whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backpoint_repo.format import Kind
from backpoint_repo.healing.heal_report import HealReport
from backpoint_repo.healing.live_source import LiveSource
from backpoint_repo.store.contract import Store
from repo.healing.damage_scene import DamageScene, flip_bits, replaced, rot_all


def delete(store: Store, key: str) -> None:
    store.delete(key)


def truncate(store: Store, key: str) -> None:
    replaced(store, key, store.get(key)[: store.size(key) // 3])


def spoil_directory(store: Store, key: str) -> None:
    flip_bits(store, key, [store.size(key) - 40])


DAMAGES: tuple[Callable[[Store, str], None], ...] = (delete, truncate, spoil_directory, rot_all)


def healed(report: HealReport) -> dict[str, int]:
    return {item.way: item.chunks + item.nodes for item in report.healed}


def test_a_whole_repository_has_nothing_to_heal(store: Store) -> None:
    scene = DamageScene(store)
    before = {found.key for found in store.list("")}
    report = scene.heal(LiveSource(scene.repository, scene.disk, quick=False))
    assert (report.chunks, report.nodes, report.stored) == (0, 0, 0)
    assert report.whole
    assert {found.key for found in store.list("")} == before


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_each_damage_to_every_data_pack_is_healed_from_the_live_disks(
    store: Store, damage: Callable[[Store, str], None]
) -> None:
    """What the older point of `web` alone had is on no live disk, and stays lost."""
    scene = DamageScene(store)
    for key in scene.keys(Kind.DATA_PACK):
        damage(store, key)
    scene.check()
    live = (scene.disk, scene.other)
    report = scene.heal(*(LiveSource(scene.repository, disk, quick=False) for disk in live))
    assert report.chunks
    lost = {(hurt.point_id, hurt.disk) for hurt in report.lost}
    assert lost <= {(scene.web[0].point_id, "disk0"), *((p.point_id, "web.vmx") for p in scene.web)}
