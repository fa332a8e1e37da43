"""Somebody holds the agent credential and writes whatever they like, rightly sealed.

Records of every shape; frames that claim to unpack to more than there is memory; maps that name one
node so often that nobody could walk them. BACKPOINT_FUZZ_OBJECTS=N tries N records of each kind.
"""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backpoint_repo import catalog
from backpoint_repo.check import check_repository
from backpoint_repo.errors import BackpointError, ObjectDamaged, WrongPassphrase
from backpoint_repo.format import (
    CODEC_ZSTD,
    FANOUT,
    HEADER,
    LEAF_BLOCKS,
    LEAF_SIZE,
    Kind,
    header,
    parse_header,
)
from backpoint_repo.map_node import Inner, leaf_of
from backpoint_repo.point import Disk, Point
from backpoint_repo.repository import Passphrase, Repository, open_repository
from backpoint_repo.sealing import OBJECT_SIZE_MAX, Packer, open_object, seal_object
from backpoint_repo.store.memory import MemoryStore
from faults.fuzz_workout import OPERATIONS, readable_points, work_out
from faults.fuzzed_objects import SEALED, Loose
from faults.odd_content import FLOATS, NUMBERS, TEXTS
from faults.rich_repository import SECOND_PASSPHRASE, build_in, owner_of
from small_repository import back_up
from synthetic_disk import SyntheticDisk

EXAMPLES = int(os.environ.get("BACKPOINT_FUZZ_OBJECTS", "8"))
RECORDS: Final = tuple(kind for kind in SEALED if kind is not Kind.INDEX)
LEAF_PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(FLOATS)),
    *(st.sampled_from(TEXTS), st.binary(max_size=64), st.text(max_size=20)),
)
ANYTHING = st.recursive(
    LEAF_PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


class Rich:
    """A repository in memory. keys: one object of each kind that is a sealed record."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(catalog, "COMPACT_AFTER", 0)
            self.points, keys = build_in(self.store, 1)
        self.owner = owner_of(self.store)
        self.keys: dict[Kind, str] = {}
        there = {found.key for found in self.store.list("")}
        for key in keys:
            if key in there:
                self.keys.setdefault(parse_header(self.store.get(key), key), key)

    def fields(self, kind: Kind) -> dict[str, Any]:
        """What the object of this kind says."""
        key, keyring = self.keys[kind], self.owner.sealed.keyring
        packer = self.owner.sealed.packer
        payload = open_object(kind, key, self.store.get(key), keyring.meta_key, packer)
        return dict(msgpack.unpackb(payload))

    def with_object(self, kind: Kind, payload: bytes, packer: Packer | None = None) -> Loose:
        """A copy in which the object of this kind says this."""
        key, keyring = self.keys[kind], self.owner.sealed.keyring
        store = Loose(self.store)
        packer = packer or self.owner.sealed.packer
        store.objects[key] = seal_object(kind, key, payload, keyring.meta_key, packer)
        return store


@pytest.fixture(scope="module")
def rich() -> Rich:
    return Rich()


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.name)
@given(data=st.data())
@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_records_of_any_shape(rich: Rich, kind: Kind, data: st.DataObject) -> None:
    """Every reader refuses them in our own words, or takes them for what they say."""
    fields = rich.fields(kind)
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3)):
        if data.draw(st.booleans()):
            fields[name] = data.draw(ANYTHING)
        else:
            fields.pop(name, None)
    if data.draw(st.booleans()):
        fields[data.draw(st.text(max_size=5))] = data.draw(ANYTHING)
    try:
        payload = bytes(msgpack.packb(fields))
    except (ValueError, OverflowError):
        return
    store = rich.with_object(kind, payload)
    for name in ("list", "notes", "check", "policy"):
        with suppress(BackpointError):
            OPERATIONS[name](owner_of(store))
    forged = rich.keys[Kind.POINT]
    other = next(one for one in rich.points if not forged.endswith(one.point.point_id.hex()))
    assert readable_points(store, (other,)) == {other.name}


class _Bomb(Packer):
    """Packs to a frame that claims to be so large, with or without as many zeros in it."""

    def __init__(self, claimed: int, blocks: int) -> None:
        super().__init__(1)
        self._frame = _frame(claimed, blocks)

    def pack(self, plain: bytes | memoryview) -> tuple[int, bytes]:
        return CODEC_ZSTD, self._frame


def _frame(claimed: int, blocks: int) -> bytes:
    """A zstd frame (RFC 8878) of blocks that each repeat a zero 128 Ki times."""
    window = 0x58  # 2 MiB
    head = struct.pack("<IBBQ", 0xFD2FB528, 0b1100_0000, window, claimed)
    size = 128 << 10
    last = struct.pack("<I", (size << 3) | (1 << 1) | 1)[:3] + b"\0"
    other = struct.pack("<I", (size << 3) | (1 << 1))[:3] + b"\0"
    return head + other * (blocks - 1) + last


@pytest.mark.parametrize("claimed", [OBJECT_SIZE_MAX + 1, 1 << 40, (1 << 64) - 1, 4096])
@pytest.mark.parametrize("kind", SEALED, ids=lambda kind: kind.name)
def test_what_claims_to_be_huge(rich: Rich, kind: Kind, claimed: int) -> None:
    """It is refused before memory is asked for; also what is more than it claims."""
    store = rich.with_object(kind, b"", _Bomb(claimed, 512))
    key = rich.keys[kind]
    tracemalloc.start()
    try:
        with pytest.raises(ObjectDamaged, match=key.rpartition("/")[2]):
            owner_of(store).sealed.get(kind, key.rpartition("/")[2])
        report = check_repository(owner_of(store))
        assert tracemalloc.get_traced_memory()[1] < 96 << 20
    finally:
        tracemalloc.stop()
    assert key in {item.key for item in report.damaged} | set(report.notes)


def _endless_map(repository: Repository, chunk: bytes) -> tuple[int, bytes]:
    """(size, root) of a disk all of whose 2^35 leaves are the same one."""
    size = LEAF_SIZE * FANOUT**4 * 8
    with repository.begin_backup("endless") as session:
        node_id = session._writer.save_node(leaf_of([0], [chunk], LEAF_BLOCKS).encode())
        for level in range(1, 6):
            children = FANOUT if level < 5 else 8
            ids = np.frombuffer(node_id * children, np.uint8).reshape(-1, 32)
            blocks = np.full(children, LEAF_BLOCKS, np.uint64)
            node_id = session._writer.save_node(Inner(level, blocks, ids).encode())
        session._writer.flush()
    return size, node_id


def _forged_point(repository: Repository, like: Point, size: int, root: bytes) -> Point:
    disk = Disk("disk0", size, root, size, "endless")
    point = replace(like, point_id=b"endless point id", vm="alpha", disks=(disk,), files=())
    repository.sealed.put(Kind.POINT, point.point_id.hex(), point.encode())
    return point


@pytest.mark.timeout(100)
@pytest.mark.parametrize("chunk", [bytes(31) + b"x", None], ids=["missing", "there"])
def test_a_map_without_end(rich: Rich, chunk: bytes | None) -> None:
    """Nothing walks the same node again and again, whether it is whole or not."""
    store = Loose(rich.store)
    repository = owner_of(store)
    like = rich.points[1].point
    if chunk is None:
        whole = SyntheticDisk(LEAF_SIZE, name="one chunk")
        whole.write(0, b"y")
        made = back_up(repository, "one", whole)
        leaf = repository.disk_map(made.disks[0]).leaf(0)
        chunk = leaf.entry_at(0)[2]
    _forged_point(repository, like, *_endless_map(repository, chunk))
    before = readable_points(store, rich.points)
    assert before == {expected.name for expected in rich.points}
    done = [name for name, refused in work_out(store, rich.points[0]) if refused is None]
    assert {"check", "backup", "collect", "scrub", "heal"} <= set(done)
    after = readable_points(store, rich.points[1:])
    assert after == {expected.name for expected in rich.points[1:]}


@pytest.mark.parametrize("size", [LEAF_SIZE + 1, 1 << 40, 4096])
def test_a_root_of_another_disk(rich: Rich, size: int) -> None:
    """It leads to nothing at this size; a check tells, although the nodes are whole."""
    store = Loose(rich.store)
    like = rich.points[1].point
    point = _forged_point(owner_of(store), like, size, like.disks[0].root)
    report = check_repository(owner_of(store))
    assert {item.point_id for item in report.hurt} == {point.point_id}


def _slot(rich: Rich, change: Callable[[dict[str, Any]], None]) -> Loose:
    store = Loose(rich.store)
    key = rich.keys[Kind.SLOT]
    fields = msgpack.unpackb(store.objects[key][HEADER.size :])
    change(fields)
    store.objects[key] = header(Kind.SLOT) + bytes(msgpack.packb(fields))
    return store


@pytest.mark.parametrize("n", [1 << 20, 1 << 40, 3, 0, -2, (1 << 63) - 1])
def test_a_slot_that_asks_for_all_memory(rich: Rich, n: int) -> None:
    """It is passed over; the others open."""
    store = _slot(rich, lambda fields: fields.update(n=n))
    with pytest.raises(WrongPassphrase, match="one is damaged"):
        owner_of(store)
    assert open_repository(store, Passphrase(SECOND_PASSPHRASE)).sealed.keyring.owner_private
