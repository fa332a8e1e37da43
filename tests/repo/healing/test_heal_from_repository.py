"""Healed from another repository: a byte copy, one with other keys, and one that lies."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from backpoint_repo.check import check_repository
from backpoint_repo.format import Kind
from backpoint_repo.healing.donor import twin_copies
from backpoint_repo.healing.other_repository import OtherRepository
from backpoint_repo.index import stored_packs
from backpoint_repo.keyring import data_key_id
from backpoint_repo.pack import PackBuilder
from backpoint_repo.replica import same_keys
from backpoint_repo.repository import Repository
from backpoint_repo.sealing import seal_blob
from backpoint_repo.store.memory import MemoryStore
from repo.healing.damage_scene import DamageScene, counts, delete, rot_all
from small_repository import as_agent, back_up, new_repository, reopened
from synthetic_disk import random_disk

PACKS = (Kind.DATA_PACK, Kind.NODE_PACK)
Opening = Callable[[Repository], Repository]


def twin_of(scene: DamageScene) -> DamageScene:
    """A byte copy of the repository as it is."""
    return scene.on(MemoryStore())


def lose_all(scene: DamageScene) -> None:
    for key in scene.keys(*PACKS, Kind.INDEX):
        delete(scene.store, key)


def other_repository(scene: DamageScene, *, vm: str = "web") -> Repository:
    """Other keys, the same disks: the older state first."""
    other = new_repository(MemoryStore())
    for disk in (scene.old_disk, scene.disk):
        back_up(reopened(other), vm, disk)
    back_up(reopened(other), "db", scene.other)
    back_up(reopened(other), "stranger", random_disk(1 << 20, 9))
    return reopened(other)


def forge_everything(repository: Repository) -> None:
    """Every chunk replaced by garbage sealed under its id, as an agent credential can."""
    sealed = repository.sealed
    key = secrets.token_bytes(32)
    sealed_key = sealed.keyring.seal_data_key(key, sealed.repository_id)
    key_id, counter = data_key_id(sealed_key), 0
    for pack in list(stored_packs(sealed)):
        if pack.kind is not Kind.DATA_PACK:
            continue
        directory = sealed.directory(pack.kind, pack.name)
        builder = PackBuilder(pack.kind, secrets.token_bytes(16), directory.session)
        for row, length in zip(directory.ids, directory.plain_lengths.tolist(), strict=True):
            content_id = row.tobytes()
            garbage = secrets.token_bytes(length)
            blob = seal_blob(garbage, content_id, key, key_id, counter, sealed.packer)
            builder.add(content_id, blob, length)
            counter += 1
        pieces = builder.finish({key_id: sealed_key}, sealed.keyring.meta_key, sealed.packer)
        sealed.store.put(builder.key, pieces)
        sealed.store.delete(f"packs/{pack.name.hex()[:2]}/{pack.name.hex()}")


@pytest.mark.parametrize("ours", [reopened, as_agent])
@pytest.mark.parametrize("theirs", [reopened, as_agent])
def test_a_byte_copy_gives_everything(scene: DamageScene, ours: Opening, theirs: Opening) -> None:
    twin = theirs(twin_of(scene).repository)
    lose_all(scene)
    repository = ours(scene.repository)
    assert same_keys(repository, twin)
    report = scene.heal(twin_copies(repository, twin), repository=repository)
    assert report.whole, report.lost
    assert report.chunks
    assert report.nodes
    scene.assert_whole()


def test_two_copies_that_lost_different_packs_heal_each_other(scene: DamageScene) -> None:
    twin = twin_of(scene)
    ours, theirs = scene.keys(*PACKS)[::2], scene.keys(*PACKS)[1::2]
    for key in ours:
        rot_all(scene.store, key)
    for key in theirs:
        delete(twin.store, key)
    scene.check()
    twin.check()
    for one, another in ((scene, twin), (twin, scene)):
        source = twin_copies(one.repository, reopened(another.repository))
        assert one.heal(source).whole
        one.assert_whole()


def test_a_byte_copy_that_lies_is_not_believed_by_the_owner(scene: DamageScene) -> None:
    twin = twin_of(scene)
    forge_everything(twin.repository)
    for key in scene.keys(Kind.DATA_PACK):
        delete(scene.store, key)
    report = scene.heal(twin_copies(scene.repository, reopened(twin.repository)))
    assert not report.whole
    assert counts(report) == {}
    assert not scene.keys(Kind.DATA_PACK)
    assert scene.heal(*scene.live()).whole
    scene.assert_whole()


def test_nor_by_the_agent_once_its_owner_has_checked_it(scene: DamageScene) -> None:
    """Only who opens garbage sees that it is; marks hand that on."""
    twin = twin_of(scene)
    forge_everything(twin.repository)
    assert check_repository(reopened(twin.repository), read_share=1.0).marked
    for key in scene.keys(Kind.DATA_PACK):
        delete(scene.store, key)
    agent = as_agent(scene.repository)
    report = scene.heal(twin_copies(agent, as_agent(twin.repository)), repository=agent)
    assert counts(report) == {}
    assert scene.heal(*scene.live()).whole
    scene.assert_whole()


@pytest.mark.parametrize("vm", ["web", "renamed"])
def test_a_repository_with_other_keys_is_read_point_by_point(scene: DamageScene, vm: str) -> None:
    """What it never had (the file, and the inner nodes of maps) is lost still."""
    other = other_repository(scene, vm=vm)
    assert not same_keys(scene.repository, other)
    for key in scene.keys(Kind.DATA_PACK):
        delete(scene.store, key)
    report = scene.heal(OtherRepository(reopened(scene.repository), other))
    assert {hurt.disk for hurt in report.lost} == {"web.vmx"}
    assert not any(found.key.startswith("leases/") for found in other.sealed.store.list(""))
    assert scene.heal(scene.live()[-1]).whole
    scene.assert_whole()


def test_other_keys_and_lost_leaves(scene: DamageScene) -> None:
    """The leaves are cut again with our key; `db`, whose root is a leaf, is whole with that."""
    other = other_repository(scene)
    lose_all(scene)
    report = scene.heal(OtherRepository(reopened(scene.repository), other))
    assert {hurt.vm for hurt in report.lost} == {"web"}
    assert scene.heal(*scene.live()).whole
    scene.assert_whole()


def test_what_another_repository_lost_itself_is_noted(scene: DamageScene) -> None:
    other = other_repository(scene)
    for found in list(other.sealed.store.list("packs/"))[:2]:
        other.sealed.store.delete(found.key)
    for key in scene.keys(Kind.DATA_PACK):
        delete(scene.store, key)
    report = scene.heal(OtherRepository(reopened(scene.repository), reopened(other)))
    assert any("is missing" in note for note in report.notes)
    assert counts(report)
    assert scene.heal(*scene.live()).whole
    scene.assert_whole()
