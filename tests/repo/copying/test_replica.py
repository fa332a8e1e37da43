"""A second place with the same keys: how it is made, and what a later visit brings it."""

from __future__ import annotations

import pytest

from backpoint_repo.errors import ObjectDamaged, StoreUnavailable, UnknownFormat, UsageError
from backpoint_repo.format import CONFIG_KEY, Kind, object_key
from backpoint_repo.key_slots import add_slot, list_slots, revoke_slot
from backpoint_repo.replica import Replica, replicate, same_keys
from backpoint_repo.repository import Passphrase, open_repository
from backpoint_repo.store.contract import Piece, Store
from faults.failing_store import FailingStore
from repo.copying.replica_scene import NamedStore, Scene
from small_repository import (
    CHEAP,
    NOON,
    PASSPHRASE,
    as_agent,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
)
from synthetic_disk import random_disk


def test_it_opens_with_the_same_passphrase_and_is_its_own_place() -> None:
    """What is backed up in one is not in the other."""
    scene = Scene()
    back_up(scene.source, "vm", random_disk(1 << 20, 1))
    owned = scene.owned()
    assert owned.config == scene.source.config
    assert owned.catalog.refresh() == []
    assert same_keys(scene.source, owned)
    back_up(owned, "vm", random_disk(1 << 20, 2))
    assert_clean(owned)


def test_other_repositories_have_other_keys() -> None:
    scene = Scene()
    assert not same_keys(scene.source, new_repository(NamedStore("another")))


def test_an_agent_makes_it() -> None:
    """Byte for byte: configuration and slots, and nothing else."""
    scene = Scene()
    there = NamedStore("new")
    done = replicate(as_agent(scene.source), there)
    here = scene.source.sealed.store
    assert done.made
    assert {found.key: there.get(found.key) for found in there.list("")} == {
        key: here.get(key) for key in [CONFIG_KEY, *keys_of(here, Kind.SLOT)]
    }


def test_a_later_visit_adds_slots_and_tells_of_those_that_are_gone() -> None:
    """A slot that was revoked is told and not deleted: that is for who has rights there."""
    scene = Scene()
    there = scene.target.sealed.store
    (first,) = list_slots(scene.source.sealed)
    second = add_slot(scene.source.sealed, "battery staple", "second", CHEAP, NOON)
    assert replicate(scene.source, there) == Replica(False, (second.slot_id,), (), ())
    assert replicate(scene.source, there) == Replica(False, (), (), ())
    assert open_repository(there, Passphrase("battery staple")).config == scene.source.config
    revoke_slot(scene.source.sealed, first.slot_id, force=False)
    assert replicate(scene.source, there).surplus == (first.slot_id,)
    assert open_repository(there, PASSPHRASE).config == scene.source.config


def test_a_spoilt_slot_is_left_out() -> None:
    scene = Scene()
    here = scene.source.sealed.store
    (key,) = keys_of(here, Kind.SLOT)
    add_slot(scene.source.sealed, "battery staple", "second", CHEAP, NOON)
    spoilt = bytearray(here.get(key))
    spoilt[len(spoilt) // 2] ^= 1
    here.delete(key)
    here.put(key, [bytes(spoilt)])
    there = NamedStore("new")
    done = replicate(as_agent(scene.source), there)
    assert [object_key(Kind.SLOT, name) for name in done.spoiled] == [key]
    assert len(keys_of(there, Kind.SLOT)) == 1


def test_no_good_slot_makes_no_replica() -> None:
    scene = Scene()
    here = scene.source.sealed.store
    (key,) = keys_of(here, Kind.SLOT)
    agent = as_agent(scene.source)
    here.delete(key)
    there = NamedStore("new")
    with pytest.raises(ObjectDamaged, match="no key slot"):
        replicate(agent, there)
    assert list(there.list("")) == []


def test_another_repository_is_not_touched() -> None:
    scene = Scene()
    other = new_repository(NamedStore("other"))
    before = list(other.sealed.store.list(""))
    with pytest.raises(UsageError, match="another repository at other"):
        replicate(scene.source, other.sealed.store)
    with pytest.raises(UsageError, match="the repository itself"):
        replicate(scene.source, scene.source.sealed.store)
    assert list(other.sealed.store.list("")) == before


def test_a_swapped_configuration_is_not_handed_on() -> None:
    """By somebody who can write to the store, after it was opened."""
    scene = Scene()
    agent = as_agent(scene.source)
    here = scene.source.sealed.store
    strange = new_repository(NamedStore("strange")).sealed.store.get(CONFIG_KEY)
    here.delete(CONFIG_KEY)
    here.put(CONFIG_KEY, [strange])
    with pytest.raises(ObjectDamaged, match="fails authentication"):
        replicate(agent, NamedStore("new"))


def test_what_is_not_understood_is_not_replicated() -> None:
    scene = Scene()
    scene.source.sealed.store.put("requires/new-thing", [b""])
    with pytest.raises(UnknownFormat, match="new-thing"):
        replicate(scene.source, NamedStore("new"))


def unplugged() -> None:
    raise StoreUnavailable("unplugged")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("at", [1, 2])
def test_what_failed_is_made_by_the_next_try(at: int, moment: str) -> None:
    """Slots are there before the configuration, so a place is never one that nobody can open."""
    scene = Scene()
    there = NamedStore("new")
    failing: Store = FailingStore(there, at, unplugged, moment, only=frozenset({"put"}))
    with pytest.raises(StoreUnavailable):
        replicate(scene.source, failing)
    if any(found.key == CONFIG_KEY for found in there.list("")):
        assert keys_of(there, Kind.SLOT)
    replicate(scene.source, there)
    assert_clean(open_repository(there, PASSPHRASE))


def test_a_race_for_the_place_is_lost_with_a_sentence() -> None:
    """Somebody makes another repository there meanwhile; no stranger's slot stays in it."""
    scene = Scene()
    there = NamedStore("new")

    class Raced(FailingStore):
        def put(self, key: str, pieces: list[Piece]) -> None:
            if key == CONFIG_KEY:
                new_repository(there)
            super().put(key, pieces)

    with pytest.raises(UsageError, match="another repository"):
        replicate(scene.source, Raced(there, 0, unplugged))
    assert len(keys_of(there, Kind.SLOT)) == 1
    assert_clean(open_repository(there, PASSPHRASE))
