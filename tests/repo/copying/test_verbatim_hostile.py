"""Copying from a source whose objects lie: nothing wrong is handed on, nothing goes on for ever.

Who has the agent credential can make all of these.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from backpoint_repo.copying.verbatim_fetch import VerbatimFetch, Wanted
from backpoint_repo.errors import ObjectDamaged, ObjectMissing
from backpoint_repo.format import BLOCK_SIZE, FANOUT, LEAF_BLOCKS, LEAF_SIZE, Kind
from backpoint_repo.index import Index
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.map_node import Inner, leaf_of
from backpoint_repo.pack import PackBuilder, blob_digest
from backpoint_repo.point import Disk, Point
from backpoint_repo.repository import Repository
from backpoint_repo.sealing import seal_record
from repo.copying.replica_scene import Scene
from small_repository import as_agent, assert_clean, back_up, keys_of, reopened
from synthetic_disk import SyntheticDisk, random_disk

ENDLESS = LEAF_SIZE * FANOUT**4 * 8
MIB = 1 << 20


@pytest.fixture
def scene() -> Scene:
    return Scene()


def one_chunk_disk(seed: int) -> SyntheticDisk:
    disk = SyntheticDisk(LEAF_SIZE, name="one chunk")
    disk.write(0, random.Random(seed).randbytes(BLOCK_SIZE))
    return disk


def chunk_of(repository: Repository, point: Point) -> bytes:
    return repository.disk_map(point.disks[0]).leaf(0).entry_at(0)[2]


def forged(scene: Scene, size: int, chunk: bytes, blocks: int) -> Point:
    """A point whose one disk has this chunk, said to be of so many blocks, in all its leaves."""
    with scene.source.begin_backup("forged") as session:
        save = session._writer.save_node
        leaf = leaf_of([0, blocks], [chunk, bytes(32)], LEAF_BLOCKS)
        node_id, nodes, level = save(leaf.encode()), size // LEAF_SIZE, 0
        while nodes > 1:
            children, level = min(FANOUT, nodes), level + 1
            ids = np.frombuffer(node_id * children, np.uint8).reshape(-1, 32)
            node_id = save(Inner(level, np.full(children, blocks, np.uint64), ids).encode())
            nodes //= children
        session._disks.append(Disk("made up", size, node_id, size, "nowhere"))
        return session.publish(time=None, label="")


@pytest.mark.timeout(60)
def test_an_endless_map_is_walked_once(scene: Scene) -> None:
    """One leaf in 2^35 places."""
    chunk = chunk_of(scene.source, back_up(scene.source, "vm", one_chunk_disk(1)))
    copy = scene.copy(forged(scene, ENDLESS, chunk, 1)).point
    assert copy.traffic.new == BLOCK_SIZE
    assert_clean(scene.owned())


@pytest.mark.parametrize("blocks", [2, 8000])
def test_a_chunk_of_another_length_than_the_map_says(scene: Scene, blocks: int) -> None:
    chunk = chunk_of(scene.source, back_up(scene.source, "vm", one_chunk_disk(1)))
    point = forged(scene, LEAF_SIZE, chunk, blocks)
    with pytest.raises(ObjectDamaged, match="another length than the map says"):
        scene.copy(point)


def test_a_map_that_contradicts_the_disk(scene: Scene) -> None:
    """Its root is a leaf, and the disk is larger than one."""
    point = back_up(scene.source, "vm", one_chunk_disk(1))
    disk = replace(point.disks[0], size=2 * LEAF_SIZE)
    with pytest.raises(ObjectDamaged, match="disk disk0: a map node has the wrong level"):
        scene.copy(replace(point, disks=(disk,)))


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (7, 50), (1 << 20, 1), (8, (1 << 32) - 1), ((1 << 32) - 1, 99)]
)
def test_an_index_that_lies_about_places(scene: Scene, offset: int, length: int) -> None:
    """The right place is found behind the wrong ones."""
    disk = one_chunk_disk(1)
    point = back_up(scene.source, "vm", disk)
    chunk, root = chunk_of(scene.source, point), point.disks[0].root
    liar = Index(scene.source.sealed)
    for pack in sorted(scene.source.index.packs() | reopened_packs(scene.source)):
        for content_id in (chunk, root):
            liar.add([(content_id, Location(pack, offset, length))] * 3)
    liar.add([(chunk, Location(PackRef(Kind.DATA_PACK, b"n" * 16), 8, 100))])
    scene.assert_same(scene.copy(point).point, disk)


def reopened_packs(repository: Repository) -> set[PackRef]:
    fresh = reopened(repository)
    fresh.index.refresh()
    return fresh.index.packs()


def test_a_blob_passed_off_as_another_is_not_copied(scene: Scene) -> None:
    """A pack lists somebody else's sealed bytes under a chunk's id, with a right digest: their
    length betrays them here, and a verification by the owner in any case."""
    one, two = one_chunk_disk(1), SyntheticDisk(LEAF_SIZE, name="two chunks")
    two.write(0, random.Random(2).randbytes(2 * BLOCK_SIZE))
    point = back_up(scene.source, "one", one)
    chunk = chunk_of(scene.source, point)
    other = chunk_of(scene.source, back_up(scene.source, "two", two))
    fresh = reopened(scene.source)
    fresh.index.refresh()
    (place,) = fresh.index.copies(other)
    (good,) = fresh.index.copies(chunk)
    sealed = scene.source.sealed
    directory = sealed.directory(place.pack.kind, place.pack.name)
    key = f"packs/{place.pack.name.hex()[:2]}/{place.pack.name.hex()}"
    blob = sealed.store.get_range(key, place.offset, place.length)
    builder = PackBuilder(Kind.DATA_PACK, b"f" * 16, b"s" * 16)
    offset = builder.add(chunk, blob, 2 * BLOCK_SIZE)
    keyring, packer = sealed.keyring, sealed.packer
    sealed.store.put(builder.key, builder.finish(directory.data_keys, keyring.meta_key, packer))
    sealed.store.delete(f"packs/{good.pack.name.hex()[:2]}/{good.pack.name.hex()}")
    forger = PackRef(Kind.DATA_PACK, b"f" * 16)
    Index(sealed).add([(chunk, Location(forger, offset, len(blob)))])
    assert blob_digest(blob) in {row.tobytes() for row in directory.digests}
    with pytest.raises(ObjectDamaged, match="another length"):
        scene.copy(point)


def test_a_pack_that_lists_another_key_is_passed_over(scene: Scene) -> None:
    """Its blobs could be opened by nobody."""
    disk = one_chunk_disk(1)
    point = back_up(scene.source, "vm", disk)
    here = scene.source.sealed
    (key,) = keys_of(here.store, Kind.DATA_PACK)
    name = bytes.fromhex(key.rpartition("/")[2])
    directory = here.directory(Kind.DATA_PACK, name)
    wrong = replace(directory, data_keys={found: bytes(1168) for found in directory.data_keys})
    whole = here.store.get(key)
    end = int(directory.offsets[-1] + directory.lengths[-1])
    record = seal_record(Kind.DATA_PACK, key, wrong.encode(), here.keyring.meta_key, here.packer)
    here.store.delete(key)
    trailer = len(record).to_bytes(4, "little") + bytes(4) + whole[-8:]
    here.store.put(key, [whole[:end], record, trailer])
    with pytest.raises(ObjectDamaged, match="no pack lists the data key"):
        scene.copy(point)


def test_what_is_fetched_ahead_is_bounded(scene: Scene) -> None:
    """However much is wanted, and however slowly it is taken."""
    point = back_up(scene.source, "vm", random_disk(16 * MIB, 1, extents=30))
    source = as_agent(scene.source)
    source.index.refresh()
    leaf = source.disk_map(point.disks[0]).leaf(0)
    lengths = (leaf.lengths * BLOCK_SIZE).tolist()
    chunks = [Wanted(*pair) for pair in zip(map(bytes, leaf.ids), lengths, strict=True)]
    chunks = [one for one in chunks if any(one.content_id)]
    drawn = 0

    def endless() -> Iterator[Wanted]:
        nonlocal drawn
        while True:
            for one in chunks:
                drawn += 1
                yield one

    with VerbatimFetch(source) as fetch, closing(fetch.fetch(Kind.DATA_PACK, endless())) as found:
        for _ in range(10):
            next(found)
        assert drawn < 20_000


def test_nothing_is_fetched_that_nobody_has(scene: Scene) -> None:
    source = as_agent(scene.source)
    with VerbatimFetch(source) as fetch, pytest.raises(ObjectMissing, match="in no index"):
        next(fetch.fetch(Kind.DATA_PACK, [Wanted(b"n" * 32, BLOCK_SIZE)]))
