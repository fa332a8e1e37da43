"""The agent credential alone, with real calls: it backs up, and opens not one data blob.

And the other way round: what a hostile agent plants is never taken for somebody's data.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from blake3 import blake3

from backpoint_repo.check import check_repository
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunk_reader import WantedChunk
from backpoint_repo.errors import ObjectDamaged, OwnerKeyNeeded
from backpoint_repo.format import HEADER, Kind
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.keyring import data_key_id
from backpoint_repo.node_reader import node_id_of
from backpoint_repo.pack import PackBuilder
from backpoint_repo.repository import Repository
from backpoint_repo.sealing import blob_key_id, node_blob_key, open_blob, seal_blob
from small_repository import as_agent, assert_clean, back_up, keys_of, read_disk, reopened
from synthetic_disk import SyntheticDisk, random_disk

MIB = 1 << 20
SECRET = b"the text that the agent must never see "


@pytest.fixture
def disk() -> SyntheticDisk:
    disk = random_disk(2 * MIB, 1)
    disk.write(4096, SECRET * 500)
    return disk


def blobs_of(repository: Repository, kind: Kind) -> Iterator[tuple[bytes, bytes, int]]:
    """(id, blob, plain length) of every blob in every pack of a kind."""
    for key in keys_of(repository.sealed.store, kind):
        name = bytes.fromhex(key.rpartition("/")[2])
        directory = repository.sealed.directory(kind, name)
        for at, row in enumerate(directory.ids):
            offset, length = int(directory.offsets[at]), int(directory.lengths[at])
            blob = repository.sealed.store.get_range(key, offset, length)
            yield row.tobytes(), blob, int(directory.plain_lengths[at])


def test_the_agent_deduplicates_against_the_owners_points(
    repository: Repository, disk: SyntheticDisk
) -> None:
    owners = back_up(repository, "vm", disk)
    agent = as_agent(repository)
    again = back_up(agent, "vm", disk)
    assert (again.traffic.new, again.traffic.stored) == (0, 0)
    assert again.disks == owners.disks
    disk.write(MIB, b"new")
    changed = back_up(as_agent(repository), "vm", disk, changed=[(MIB, 3)])
    assert not changed.warnings
    assert changed.traffic.read <= 64 << 10
    assert [point.vm for point in as_agent(repository).catalog.refresh()] == ["vm"] * 3
    assert read_disk(reopened(repository), changed.disks[0]) == disk.content(0, disk.size)
    assert check_repository(as_agent(repository)).clean
    assert check_repository(as_agent(repository), read_share=1.0).clean, "rot, without a key"
    assert_clean(repository)


def test_every_way_to_read_data_asks_for_the_owner(
    repository: Repository, disk: SyntheticDisk
) -> None:
    with repository.begin_backup("vm") as session:
        session.store_file("vm.vmx", SECRET)
        point = session.publish(time=None, label="")
    point_of_disk = back_up(repository, "vm", disk)
    agent = as_agent(repository)
    reader = agent.open_disk(point_of_disk.disks[0], ChunkCache(MIB))
    leaf = agent.disk_map(point_of_disk.disks[0]).leaf(0)
    at = leaf.holes.tolist().index(False)
    start, end, content_id = leaf.entry_at(at)
    (place,) = agent.index.copies(content_id)
    length = (end - start) * 4096
    with pytest.raises(OwnerKeyNeeded):
        reader.read(4096, 10)
    assert reader.read_cached(4096, 10) is None
    with pytest.raises(OwnerKeyNeeded):
        reader.prefetch(4096, 10)
    with pytest.raises(OwnerKeyNeeded):
        agent.read_file(agent.point(point.point_id).files[0])
    with pytest.raises(OwnerKeyNeeded):
        agent.chunks.read([WantedChunk(content_id, length, place)])
    with pytest.raises(OwnerKeyNeeded):
        agent.chunks.read_copy(content_id, length, place)
    assert [stretch.data for stretch in reader.stretches(0, disk.size)]


def test_no_key_the_agent_can_derive_opens_a_data_blob(
    repository: Repository, disk: SyntheticDisk
) -> None:
    back_up(repository, "vm", disk)
    agent = as_agent(repository)
    keyring, packer = agent.sealed.keyring, agent.sealed.packer
    tried = opened = 0
    for content_id, blob, plain_length in blobs_of(agent, Kind.DATA_PACK):
        key_id = blob_key_id(blob)
        candidates = [
            node_blob_key(keyring.meta_key, key_id),
            node_blob_key(keyring.secret, key_id),
            *(getattr(keyring, f"{name}_key") for name in ("meta", "config", "cut")),
            keyring.chunk_id_key,
            keyring.node_id_key,
            keyring.secret,
            keyring.owner_public[:32],
            content_id,
            blake3(key_id, key=keyring.meta_key).digest(),
            bytes(32),
        ]
        for key in candidates:
            with pytest.raises(ObjectDamaged, match="authentication"):
                open_blob(blob, content_id, key, packer, plain_length)
            tried += 1
    for node_id, blob, plain_length in blobs_of(agent, Kind.NODE_PACK):
        node_key = node_blob_key(keyring.meta_key, blob_key_id(blob))
        plain = open_blob(blob, node_id, node_key, packer, plain_length)
        assert node_id_of(plain, keyring.node_id_key) == node_id
        opened += 1
    assert tried > 100
    assert opened >= 1, "maps are the agent's to read"


def test_nothing_in_the_store_shows_what_was_stored(
    repository: Repository, disk: SyntheticDisk
) -> None:
    """Not the data, not the names; and nothing a listing shows tells the VM or the time."""
    back_up(repository, "very-secret-vm", disk, label="secret label")
    for found in repository.sealed.store.list(""):
        data = repository.sealed.store.get(found.key)
        for text in (SECRET, b"very-secret-vm", b"secret label", b"disk0"):
            assert text not in data, found.key
        assert b"very-secret" not in found.key.encode()


def plant(
    agent: Repository, victim: bytes, plain: bytes, *, as_kind: Kind = Kind.DATA_PACK
) -> PackRef:
    """Seal wrong content under somebody's chunk id, as an agent that knows the format could."""
    sealed, keyring = agent.sealed, agent.sealed.keyring
    data_key = secrets.token_bytes(32)
    sealed_key = keyring.seal_data_key(data_key, sealed.repository_id)
    key_id = data_key_id(sealed_key)
    builder = PackBuilder(as_kind, secrets.token_bytes(16), bytes(16))
    blob = seal_blob(plain, victim, data_key, key_id, 0, sealed.packer)
    offset = builder.add(victim, blob, len(plain))
    keys = {key_id: sealed_key} if as_kind is Kind.DATA_PACK else {}
    sealed.store.put(builder.key, builder.finish(keys, keyring.meta_key, sealed.packer))
    pack = PackRef(as_kind, builder.name)
    agent.index.add([(victim, Location(pack, offset, len(blob)))])
    return pack


def chunk_lengths(repository: Repository, number: int) -> list[tuple[bytes, int]]:
    repository.index.refresh()
    (summary, *_) = repository.catalog.refresh()
    disk = repository.point(summary.point_id).disks[number]
    leaf = repository.disk_map(disk).leaf(0)
    return [
        (row.tobytes(), int(length) * 4096)
        for row, length in zip(leaf.ids, leaf.lengths, strict=True)
        if row.any()
    ]


@pytest.mark.parametrize("length_change", [0, -4096, 4096])
@pytest.mark.parametrize("as_kind", [Kind.DATA_PACK, Kind.NODE_PACK])
def test_planted_copies_beside_good_ones_change_nothing(
    repository: Repository, disk: SyntheticDisk, length_change: int, as_kind: Kind
) -> None:
    point = back_up(repository, "vm", disk)
    agent = as_agent(repository)
    for content_id, length in chunk_lengths(reopened(repository), 0):
        wrong = b"evil" * ((length + length_change) // 4)
        for _ in range(3):
            plant(agent, content_id, wrong, as_kind=as_kind)
    assert read_disk(reopened(repository), point.disks[0]) == disk.content(0, disk.size)


@pytest.mark.parametrize("length_change", [0, -4096, 4096])
def test_a_planted_chunk_alone_is_noticed_and_never_returned(
    repository: Repository, length_change: int
) -> None:
    """Planted before the victim's content is first stored, so that it is deduplicated onto."""
    agent = as_agent(repository)
    plain = secrets.token_bytes(4096)
    content_id = blake3(plain, key=repository.sealed.keyring.chunk_id_key).digest()
    plant(agent, content_id, b"evil" * ((4096 + length_change) // 4))
    disk = SyntheticDisk(4096)
    disk.write(0, plain)
    point = back_up(reopened(repository), "vm", disk)
    fresh = reopened(repository)
    with pytest.raises(ObjectDamaged):
        read_disk(fresh, point.disks[0])
    report = check_repository(reopened(repository), read_share=1.0)
    assert not report.clean
    back_up(reopened(repository), "vm", disk)
    assert read_disk(reopened(repository), point.disks[0]) == plain, "marked, stored anew, healed"
    assert_clean(repository)


def test_a_planted_map_node_is_noticed(repository: Repository, disk: SyntheticDisk) -> None:
    point = back_up(repository, "vm", disk)
    agent = as_agent(repository)
    keyring, packer = agent.sealed.keyring, agent.sealed.packer
    (found, *_) = blobs_of(agent, Kind.NODE_PACK)
    node_id = found[0]
    for plain in (b"", b"nonsense", bytes(500)):
        builder = PackBuilder(Kind.NODE_PACK, secrets.token_bytes(16), bytes(16))
        key_id = secrets.token_bytes(16)
        node_key = node_blob_key(keyring.meta_key, key_id)
        blob = seal_blob(plain, node_id, node_key, key_id, 0, packer)
        offset = builder.add(node_id, blob, len(plain))
        agent.sealed.store.put(builder.key, builder.finish({}, keyring.meta_key, packer))
        place = Location(PackRef(Kind.NODE_PACK, builder.name), offset, len(blob))
        agent.index.add([(node_id, place)])
        with pytest.raises(ObjectDamaged):
            agent.nodes.load_from(node_id, place)
    assert read_disk(reopened(repository), point.disks[0]) == disk.content(0, disk.size)


def test_a_pack_that_lists_a_data_key_under_anothers_name(
    repository: Repository, disk: SyntheticDisk
) -> None:
    """The id of a data key is the hash of what is stored of it: it cannot be taken over."""
    back_up(repository, "vm", disk)
    (key, *_) = keys_of(repository.sealed.store, Kind.DATA_PACK)
    name = bytes.fromhex(key.rpartition("/")[2])
    (victim_key_id,) = repository.sealed.directory(Kind.DATA_PACK, name).data_keys
    agent = as_agent(repository)
    sealed, keyring = agent.sealed, agent.sealed.keyring
    data_key, plain = secrets.token_bytes(32), b"evil" * 1024
    content_id = blake3(plain, key=keyring.chunk_id_key).digest()
    builder = PackBuilder(Kind.DATA_PACK, secrets.token_bytes(16), bytes(16))
    blob = seal_blob(plain, content_id, data_key, victim_key_id, 0, sealed.packer)
    assert builder.add(content_id, blob, len(plain)) == HEADER.size
    keys = {victim_key_id: keyring.seal_data_key(data_key, sealed.repository_id)}
    sealed.store.put(builder.key, builder.finish(keys, keyring.meta_key, sealed.packer))
    place = Location(PackRef(Kind.DATA_PACK, builder.name), HEADER.size, len(blob))
    with pytest.raises(ObjectDamaged):
        reopened(repository).chunks.read_copy(content_id, len(plain), place)
