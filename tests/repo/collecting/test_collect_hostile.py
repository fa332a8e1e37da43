"""Somebody with the agent credential, who can add anything and delete nothing, makes a collector
delete nothing that is needed."""

from __future__ import annotations

import secrets
from contextlib import ExitStack

import pytest

from backpoint_repo.backup_session import BackupSession, DiskJob
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.collecting import marking, rescue
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index import Index, stored_packs
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.keyring import DATA_KEY_SIZE, data_key_id
from backpoint_repo.lease import BACKUP, Lease, LeaseTerms
from backpoint_repo.map_node import leaf_of
from backpoint_repo.node_reader import node_id_of
from backpoint_repo.pack import PackBuilder
from backpoint_repo.point import POINT_ID_SIZE, ConfigFile, Disk, Point
from backpoint_repo.sealing import node_blob_key, seal_blob
from backpoint_repo.trash import put_trash, read_trash
from repo.collecting.collect_scene import SIZE, Scene, filled_disk
from small_repository import keys_of, reopened

HOSTILE = b"h" * 16


@pytest.fixture
def half(scene: Scene) -> Scene:
    """Of two points of a VM the first is removed: its packs are half used."""
    scene.remove(scene.history("a", 2)[0])
    return scene


def put_pack(
    scene: Scene, kind: Kind, blobs: list[tuple[bytes, bytes]], name: bytes | None = None
) -> PackRef:
    """A pack of (content id, sealed bytes), whatever they are. With a name, they say that they are
    sealed with the key that it lists."""
    sealed_key = scene.sealed.keyring.seal_data_key(
        bytes(DATA_KEY_SIZE), scene.sealed.repository_id
    )
    builder = PackBuilder(kind, name or secrets.token_bytes(16), HOSTILE)
    for content_id, blob in blobs:
        builder.add(content_id, data_key_id(sealed_key) + blob[16:] if name else blob, 4096)
    keys = {data_key_id(sealed_key): sealed_key} if kind is Kind.DATA_PACK else {}
    keyring = scene.sealed.keyring
    scene.store.put(builder.key, builder.finish(keys, keyring.meta_key, scene.sealed.packer))
    return PackRef(kind, builder.name)


def all_places(scene: Scene) -> list[tuple[bytes, Location]]:
    found = []
    for pack in stored_packs(scene.sealed):
        directory = scene.sealed.directory(*pack)
        for at, offset in enumerate(directory.offsets.tolist()):
            place = Location(pack, offset, int(directory.lengths[at]))
            found.append((directory.ids[at].tobytes(), place))
    return found


def blob_at(scene: Scene, place: Location) -> bytes:
    key = object_key(place.pack.kind, place.pack.name.hex())
    return scene.store.get_range(key, place.offset, place.length)


def test_a_segment_that_lists_everything_elsewhere(half: Scene) -> None:
    """It claims that one pack holds all chunks, so that all others look dead."""
    places = all_places(half)
    for kind in (Kind.DATA_PACK, Kind.NODE_PACK):
        empty = put_pack(half, kind, [])
        claims = [
            (content_id, Location(empty, 8, place.length))
            for content_id, place in places
            if place.pack.kind is kind
        ]
        Index(half.sealed).add(claims)
    half.collect()
    half.assert_whole()


def test_segments_that_leave_out_what_is_needed(half: Scene) -> None:
    """One row for each pack is all that the index knows: the packs' directories decide."""
    places = all_places(half)
    for key in keys_of(half.store, Kind.INDEX):
        half.store.delete(key)
    nodes = [item for item in places if item[1].pack.kind is Kind.NODE_PACK]
    first = {place.pack: (content_id, place) for content_id, place in reversed(places)}
    Index(half.sealed).add([*nodes, *first.values()])
    half.collect()
    # What no segment listed had to be copied nowhere; what was copied is indexed.
    for key in keys_of(half.store, Kind.INDEX):
        half.store.delete(key)
    half.assert_whole()


@pytest.mark.parametrize("marked", [False, True], ids=["unmarked", "originals marked"])
def test_packs_that_claim_to_hold_everything(half: Scene, marked: bool) -> None:
    """Copies with a digest of their own and no content; the true ones may be marked as damaged."""
    places = all_places(half)
    for kind in (Kind.DATA_PACK, Kind.NODE_PACK):
        own = [item for item in places if item[1].pack.kind is kind]
        forged = put_pack(half, kind, [(one, secrets.token_bytes(p.length)) for one, p in own])
        directory = half.sealed.directory(*forged)
        rows = zip(own, directory.offsets.tolist(), strict=True)
        Index(half.sealed).add([(one, Location(forged, at, p.length)) for (one, p), at in rows])
    if marked:
        mark_damaged(half.sealed, [(one, place.pack) for one, place in places], 1.0)
    half.collect()
    read_past_forgeries(half)
    # And when the true ones are in trash already.
    originals = {place.pack for _, place in places} & set(stored_packs(half.sealed))
    put_trash(half.sealed, read_trash(half.sealed).newest + 1, originals, 0, HOSTILE, 1.0)
    report = half.collect()
    read_past_forgeries(half)
    # What is marked is copied nowhere, and what nothing stands in for stays.
    assert bool(originals & set(stored_packs(half.sealed))) == bool(report.damaged) == marked


def read_past_forgeries(scene: Scene) -> None:
    """Points still read: of several copies one is good. `check` tells the forged ones."""
    owner = reopened(scene.repository)
    for point_id, content in scene.contents.items():
        reader = owner.open_disk(owner.point(point_id).disks[0], ChunkCache(1 << 20))
        assert reader.read(0, len(content)) == content


def forged_first(scene: Scene, kind: Kind, own: list[tuple[bytes, Location]]) -> PackRef:
    """A pack that claims to hold all this, with bytes of no content; it sorts before all others."""
    blobs = [(one, secrets.token_bytes(place.length)) for one, place in own]
    return put_pack(scene, kind, blobs, name=bytes(16))


@pytest.mark.parametrize("indexed", [False, True])
def test_forgeries_that_go_before_the_true_packs(half: Scene, indexed: bool) -> None:
    """What is copied out of a forged pack is no reason to leave the true blobs behind."""
    places = all_places(half)
    true = {place.pack for _, place in places}
    forged = []
    for kind in (Kind.DATA_PACK, Kind.NODE_PACK):
        own = [item for item in places if item[1].pack.kind is kind]
        pack = forged_first(half, kind, own)
        forged.append(pack)
        if indexed:
            offsets = half.sealed.directory(*pack).offsets.tolist()
            rows = zip(own, offsets, strict=True)
            Index(half.sealed).add([(one, Location(pack, at, p.length)) for (one, p), at in rows])
    put_trash(half.sealed, 1, [*forged, *true], 0, HOSTILE, 1.0)
    half.collect()
    assert not {*forged, *true} & set(stored_packs(half.sealed))
    read_past_forgeries(half)


def test_true_bytes_under_ids_that_begin_alike(half: Scene) -> None:
    """They are copied as what they are listed as: that is no copy of what they truly are."""
    nodes = [item for item in all_places(half) if item[1].pack.kind is Kind.NODE_PACK]
    blobs = [(one[:16] + secrets.token_bytes(16), blob_at(half, place)) for one, place in nodes]
    builder = PackBuilder(Kind.NODE_PACK, bytes(16), HOSTILE)
    for content_id, blob in blobs:
        builder.add(content_id, blob, 4096)
    keyring = half.sealed.keyring
    half.store.put(builder.key, builder.finish({}, keyring.meta_key, half.sealed.packer))
    put_trash(half.sealed, 1, list(stored_packs(half.sealed)), 0, HOSTILE, 1.0)
    half.collect()
    half.assert_whole()


def test_true_bytes_in_a_pack_that_does_not_list_them(half: Scene) -> None:
    """A copy that only the index knows would be gone with the next rebuild of the index."""
    places = [item for item in all_places(half) if item[0] in half.live_chunks()]
    blobs = [(content_id, blob_at(half, place)) for content_id, place in places]
    # Most are listed, and all are needed, so that nobody takes the pack for dead or sparse.
    listed = [
        (content_id if at % 8 else secrets.token_bytes(32), blob)
        for at, (content_id, blob) in enumerate(blobs)
    ]
    hidden = put_pack(half, Kind.DATA_PACK, listed)
    offsets = half.sealed.directory(*hidden).offsets.tolist()
    Index(half.sealed).add(
        [
            (one, Location(hidden, at, p.length))
            for (one, p), at in zip(places, offsets, strict=True)
        ]
    )
    half.collect()
    half.store.delete(object_key(hidden.kind, hidden.name.hex()))
    for key in keys_of(half.store, Kind.INDEX):
        half.store.delete(key)
    half.assert_whole()


def test_true_copies_without_their_data_key(half: Scene) -> None:
    """The sealed bytes are right, and nobody could open them there."""
    places = [item for item in all_places(half) if item[1].pack.kind is Kind.DATA_PACK]
    copies = put_pack(half, Kind.DATA_PACK, [(one, blob_at(half, place)) for one, place in places])
    offsets = half.sealed.directory(*copies).offsets.tolist()
    Index(half.sealed).add(
        [
            (one, Location(copies, at, p.length))
            for (one, p), at in zip(places, offsets, strict=True)
        ]
    )
    half.collect()
    read_past_forgeries(half)
    half.store.delete(object_key(copies.kind, copies.name.hex()))
    for key in keys_of(half.store, Kind.INDEX):
        half.store.delete(key)
    half.assert_whole()


def test_trash_that_names_every_pack(half: Scene) -> None:
    """What is needed is copied out of each before it goes."""
    packs = list(stored_packs(half.sealed))
    assert put_trash(half.sealed, 1, packs, 0, HOSTILE, 1.0)
    report = half.collect()
    assert report.freed_packs == len(packs)
    assert not set(packs) & set(stored_packs(half.sealed))
    half.assert_whole()
    half.assert_tidy()


def test_trash_of_everything_again_and_again(half: Scene) -> None:
    """Also under numbers far ahead, and beside packs that there never were."""
    for epoch in (1, 2, 1000, (1 << 40) + 5):
        packs = [*stored_packs(half.sealed), PackRef(Kind.DATA_PACK, secrets.token_bytes(16))]
        put_trash(half.sealed, epoch, packs, 0, HOSTILE, 1.0)
        half.collect()
        half.assert_whole()
    half.assert_tidy()
    assert len(keys_of(half.store, Kind.TRASH)) == 4


def test_packs_of_an_epoch_far_ahead_that_must_wait(half: Scene) -> None:
    """Somebody is there who has not seen it. What honest epochs say of what is over stays true."""
    put_trash(half.sealed, 9, list(stored_packs(half.sealed)), 0, HOSTILE, 1.0)
    half.point("b", filled_disk(5))
    terms = LeaseTerms(BACKUP, 0)
    lease = Lease(half.sealed, b"w" * 16, terms, half.repository.clock)
    for seed in (6, 7):
        half.remove(half.point("c", filled_disk(seed)))
        half.collect()
    assert read_trash(half.sealed).newest == 2
    assert read_trash(half.sealed).swept == 0
    lease.release()
    half.collect()
    half.assert_whole()
    half.assert_tidy()


def test_an_epoch_far_ahead_while_a_collector_looks(scene: Scene) -> None:
    """A backup begins after that, and says so. The collector publishes below it what the backup
    refers to; all may seem to be seen and over, and still the backup must learn of it."""
    disk = filled_disk(1)
    scene.remove(scene.point("a", disk))
    with ExitStack() as held:
        sessions: list[BackupSession] = []

        def ahead() -> None:
            put_trash(scene.sealed, 2, [], 0, HOSTILE, 1.0)
            backup = held.enter_context(reopened(scene.repository).begin_backup("b"))
            backup.store_disk(DiskJob("disk0", disk), lambda _: None)
            sessions.append(backup)

        report = scene.collect(scene.meddled("put", "trash/", ahead))
        assert (report.epoch, report.freed_packs) == (1, 0)
        assert "backup on" in report.waiting[0].by[0]
        put_trash(scene.sealed, 3, [], 2, HOSTILE, 1.0)
        scene.collect()
        made = sessions[0].publish(time=None, label="")
    scene.contents[made.point_id] = disk.content(0, disk.size)
    scene.collect()
    scene.assert_whole()


def test_trash_that_claims_others_are_over(scene: Scene) -> None:
    """A collector is about to delete the packs of epoch 1: the point that needed them has just
    gone. As long as they are there, trash must say so to whoever begins a backup now."""
    disk = filled_disk(1)
    point = scene.point("a", disk)
    packs = set(stored_packs(scene.sealed))
    put_trash(scene.sealed, 1, packs, 0, b"s" * 16, 1.0)
    put_trash(scene.sealed, 2, [], 1, HOSTILE, 1.0)
    scene.collect()
    scene.remove(point)
    scene.point("b", disk)
    for pack in packs:
        scene.sealed.delete(pack.kind, pack.name.hex())
    scene.assert_whole()
    scene.collect()
    scene.assert_tidy()
    assert 1 not in read_trash(scene.sealed).epochs


def test_a_node_listed_as_a_chunk_hides_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forged point lists another one's map nodes among the chunks of a file and of a leaf:
    what lies under them must be marked all the same."""
    monkeypatch.setattr(marking, "_POINTS_AT_ONCE", 1)
    victim = scene.point("a", filled_disk(1))
    nodes = [one for one, place in all_places(scene) if place.pack.kind is Kind.NODE_PACK]
    keyring = scene.sealed.keyring
    plain = leaf_of(list(range(len(nodes))), nodes, len(nodes)).encode()
    node_id = node_id_of(plain, keyring.node_id_key)
    key = node_blob_key(keyring.meta_key, b"k" * 16)
    blob = seal_blob(plain, node_id, key, b"k" * 16, 0, scene.sealed.packer)
    put_pack(scene, Kind.NODE_PACK, [(node_id, blob)])
    forged = Point(
        # Read before the victim, whatever the order is: there is one on either side.
        bytes(POINT_ID_SIZE),
        "forged",
        1.0,
        1.0,
        "",
        (Disk("d", len(nodes) * 4096, node_id, 0, ""),),
        (ConfigFile("f", 65536 * len(nodes), tuple(nodes)),),
    )
    for name in (bytes(POINT_ID_SIZE), b"\xff" * POINT_ID_SIZE):
        scene.sealed.put(Kind.POINT, name.hex(), forged.encode())
    rubbish = scene.point("b", filled_disk(2))
    scene.remove(rubbish)
    packs = [pack for pack in stored_packs(scene.sealed)]
    put_trash(scene.sealed, 1, packs, 0, HOSTILE, 1.0)
    assert scene.collect().freed > SIZE
    for name in (bytes(POINT_ID_SIZE), b"\xff" * POINT_ID_SIZE):
        scene.sealed.delete(Kind.POINT, name.hex())
    assert victim.point_id in scene.contents
    scene.assert_whole()


def test_a_giant_pack_is_copied_piece_by_piece(
    half: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers do not depend on the size of packs, so somebody may make one of 4 GB."""
    monkeypatch.setattr(rescue, "_PORTION", 100_000)
    put_trash(half.sealed, 1, list(stored_packs(half.sealed)), 0, HOSTILE, 1.0)
    half.collect()
    half.assert_whole()
    half.assert_tidy()
