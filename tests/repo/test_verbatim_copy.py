"""Copies of sealed blobs: read like their originals, by whoever could read those."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator

import pytest

from backpoint_repo import verbatim_copy
from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index import stored_packs
from backpoint_repo.index_segment import PackRef
from backpoint_repo.keyring import data_key_id
from backpoint_repo.pack import PackDirectory
from backpoint_repo.repository import Repository
from backpoint_repo.sealing import blob_key_id
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.verbatim_copy import VerbatimCopies
from small_repository import (
    as_agent,
    assert_clean,
    back_up,
    new_repository,
    read_disk,
    reopened,
)
from synthetic_disk import SyntheticDisk

SIZE = 3 << 20
SESSION = b"collector's id.."


@pytest.fixture
def filled() -> Repository:
    """Three points of three VMs, each sealed with a data key of its own."""
    repository = new_repository(MemoryStore())
    for seed in range(3):
        back_up(repository, f"vm{seed}", disk_of(seed))
    return repository


def disk_of(vm: int) -> SyntheticDisk:
    disk = SyntheticDisk(SIZE)
    disk.write(0, random.Random(vm).randbytes(SIZE))
    return disk


def blobs_of(
    repository: Repository, pack: PackRef
) -> Iterator[tuple[bytes, bytes, int, PackDirectory]]:
    """(content id, sealed bytes, plain length, directory) of every blob of a pack."""
    key = object_key(pack.kind, pack.name.hex())
    directory = repository.sealed.directory(pack.kind, pack.name)
    for at, offset in enumerate(directory.offsets.tolist()):
        length = int(directory.lengths[at])
        blob = repository.sealed.store.get_range(key, offset, length)
        yield directory.ids[at].tobytes(), blob, int(directory.plain_lengths[at]), directory


def copy_all(repository: Repository) -> frozenset[PackRef]:
    """Every blob once more; the originals are deleted then."""
    originals = list(stored_packs(repository.sealed))
    copies = VerbatimCopies(repository.sealed, repository.index, SESSION)
    for pack in originals:
        for content_id, blob, plain_length, directory in blobs_of(repository, pack):
            key_id = blob_key_id(blob)
            sealed_key = directory.data_keys.get(key_id)
            data_key = None if sealed_key is None else (key_id, sealed_key)
            copies.add(pack.kind, content_id, blob, plain_length, data_key)
    new = copies.flush()
    for pack in originals:
        repository.sealed.store.delete(object_key(pack.kind, pack.name.hex()))
    return new


def test_an_agent_copies_what_only_the_owner_can_read(filled: Repository) -> None:
    agent = as_agent(filled)
    new = copy_all(agent)
    assert new == set(stored_packs(filled.sealed))
    # Small blobs of three sessions meet in one pack of each kind, with the keys of all three.
    assert {pack.kind for pack in new} == {Kind.DATA_PACK, Kind.NODE_PACK}
    assert len(new) == 2
    keys = [len(filled.sealed.directory(*pack).data_keys) for pack in sorted(new)]
    assert keys == [3, 0]
    owner = reopened(filled)
    for seed, summary in enumerate(owner.catalog.refresh()):
        disk = owner.point(summary.point_id).disks[0]
        assert read_disk(owner, disk) == disk_of(seed).content(0, SIZE)
    assert_clean(filled)


def test_few_keys_to_a_pack(filled: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more keys meet than one pack may list, another pack is begun."""
    monkeypatch.setattr(verbatim_copy, "KEYS_MAX", 2)
    new = copy_all(as_agent(filled))
    keys = [len(filled.sealed.directory(*pack).data_keys) for pack in new]
    assert sorted(keys) == [0, 1, 2]
    assert_clean(filled)


def test_packs_are_closed_when_they_are_full(
    filled: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbatim_copy, "PACK_SIZE", 1 << 20)
    monkeypatch.setattr(verbatim_copy, "_SEGMENT_AFTER", 20)
    new = copy_all(as_agent(filled))
    assert len(new) > 5
    sizes = [filled.sealed.store.size(object_key(kind, name.hex())) for kind, name in new]
    assert max(sizes) < 2 << 20
    assert_clean(filled)


def test_nothing_counts_before_it_is_flushed(filled: Repository) -> None:
    filled.index.refresh()
    copies = VerbatimCopies(filled.sealed, filled.index, SESSION)
    before = set(stored_packs(filled.sealed))
    assert copies.flush() == frozenset()
    pack = next(pack for pack in before if pack.kind is Kind.NODE_PACK)
    content_id, blob, plain_length, _ = next(blobs_of(filled, pack))
    copies.add(pack.kind, content_id, blob, plain_length, None)
    assert set(stored_packs(filled.sealed)) == before
    new = copies.flush()
    assert set(stored_packs(filled.sealed)) - before == new
    assert (copies.blobs, copies.stored) == (1, len(blob))
    places = filled.index.copies(content_id)
    assert {place.pack for place in places} == {pack, *new}
    assert copies.flush() == frozenset()


def test_a_copy_is_never_listed_with_another_key(filled: Repository) -> None:
    """Its owner could not open it."""
    copies = VerbatimCopies(filled.sealed, filled.index, SESSION)
    pack = next(pack for pack in stored_packs(filled.sealed) if pack.kind is Kind.DATA_PACK)
    content_id, blob, plain_length, directory = next(blobs_of(filled, pack))
    strange = secrets.token_bytes(1168)
    forged = (blob_key_id(blob), strange)
    for data_key in (None, (data_key_id(strange), strange), forged):
        with pytest.raises(ObjectDamaged):
            copies.add(pack.kind, content_id, blob, plain_length, data_key)
    assert copies.flush() == frozenset()
    assert directory.data_keys.keys() == {blob_key_id(blob)}
