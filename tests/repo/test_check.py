"""What check tells the agent, who cannot open data, what it did not do, and what moves meanwhile.

That each kind of damage is found is `tests/faults/test_broken_objects.py`.
"""

from __future__ import annotations

import random

import pytest

from backpoint_repo.check import check_repository
from backpoint_repo.format import FOLDERS, Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.phase_progress import Silent
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from backpoint_repo.scrubbing.readings import PackAges
from backpoint_repo.scrubbing.scrub import Scrub
from backpoint_repo.scrubbing.scrub_report import ScrubTerms
from backpoint_repo.store.contract import Store
from backpoint_repo.trash import put_trash
from backpoint_repo.verbatim_copy import VerbatimCopies
from small_repository import (
    NOON,
    as_agent,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    reopened,
)
from synthetic_disk import SyntheticDisk


def flip_bit(store: Store, key: str, offset: int) -> None:
    data = bytearray(store.get(key))
    data[offset] ^= 0x10
    store.delete(key)
    store.put(key, [data])


def stored_disk(repository: Repository) -> SyntheticDisk:
    disk = SyntheticDisk(1 << 20)
    disk.write(0, random.Random(5).randbytes(300_000))
    back_up(repository, "vm", disk)
    return disk


def test_the_agent_finds_rot_it_cannot_read(store: Store) -> None:
    repository = new_repository(store)
    disk = stored_disk(repository)
    report = check_repository(as_agent(repository), read_share=1.0)
    assert report.clean
    assert any("sealed" in note for note in report.notes)
    (pack,) = keys_of(store, Kind.DATA_PACK)
    flip_bit(store, pack, 100_000)
    report = check_repository(as_agent(reopened(repository)), read_share=1.0)
    assert [item.key for item in report.damaged] == [pack]
    assert [item.vm for item in report.hurt] == ["vm"]
    assert report.marked == 1
    back_up(reopened(repository), "vm", disk)
    assert_clean(repository)


def test_without_reading_rot_in_data_is_not_claimed_to_be_absent(store: Store) -> None:
    repository = new_repository(store)
    stored_disk(repository)
    (pack,) = keys_of(store, Kind.DATA_PACK)
    flip_bit(store, pack, 100_000)
    report = check_repository(reopened(repository))
    assert report.clean
    assert report.read_bytes == 0


def test_what_a_collector_took_is_no_damage_and_no_noise(store: Store) -> None:
    """The index names its packs for a while."""
    repository = new_repository(store)
    stored_disk(repository)
    gone = back_up(repository, "gone", disk_with(b"other"))
    repository.sealed.delete(Kind.POINT, gone.point_id.hex())
    for kind in (Kind.DATA_PACK, Kind.NODE_PACK):
        for key in keys_of(store, kind):
            name = bytes.fromhex(key.rpartition("/")[2])
            if repository.sealed.directory(kind, name).session == gone.point_id:
                store.delete(key)
    report = check_repository(reopened(repository))
    assert (report.damaged, report.hurt, report.marked, report.notes) == ((), (), 0, ())
    assert not keys_of(store, Kind.DAMAGE)
    assert_clean(repository)


def test_a_collector_that_moves_chunks_while_trees_are_walked(store: Store) -> None:
    """The copy is indexed before the old pack goes: what was loaded before is looked at again."""
    repository = new_repository(store)
    stored_disk(repository)
    (key,) = keys_of(store, Kind.DATA_PACK)
    checking = reopened(repository)

    class Moving(Silent):
        def phase(self, name: str, total: int) -> None:
            if name == "packs":
                move(repository, key)

    report = check_repository(checking, progress=Moving())
    assert report.clean, report
    assert keys_of(store, Kind.DATA_PACK) != [key]
    assert_clean(repository)


def test_a_point_that_is_removed_while_it_is_looked_at(store: Store) -> None:
    repository = new_repository(store)
    stored_disk(repository)
    (point_id,) = points_of(repository)

    class Removing(Silent):
        def phase(self, name: str, total: int) -> None:
            if name == "packs":
                repository.sealed.delete(Kind.POINT, point_id.hex())
                for kind in (Kind.DATA_PACK, Kind.NODE_PACK):
                    for key in keys_of(store, kind):
                        store.delete(key)

    report = check_repository(reopened(repository), progress=Removing())
    assert (report.damaged, report.hurt, report.marked) == ((), (), 0)


def test_what_waits_in_trash_and_what_scrubs_have_read_is_told(store: Store) -> None:
    repository = new_repository(store)
    stored_disk(repository)
    assert check_repository(repository).ages == PackAges(2, None)
    scrub = Scrub(reopened(repository), ScrubTerms())
    scrub.read()
    (key,) = keys_of(store, Kind.DATA_PACK)
    report = check_repository(reopened(repository))
    assert (report.in_trash, report.ages) == (0, PackAges(0, NOON))
    pack = PackRef(Kind.DATA_PACK, bytes.fromhex(key.rpartition("/")[2]))
    put_trash(repository.sealed, 1, [pack], 0, bytes(16), NOON)
    report = check_repository(reopened(repository))
    assert (report.in_trash, report.clean, report.notes) == (1, True, ())


@pytest.mark.parametrize(
    ("kind", "name", "fields"),
    [
        (Kind.TRASH, "0000000000000001", {"epoch": 2, "packs": []}),
        (Kind.TRASH, "0000000000000001", {"epoch": 1, "packs": [b"no pack"]}),
        (Kind.TRASH, "0000000000000001", {"epoch": 1, "packs": [], "swept": 1}),
        (Kind.DAMAGE, "d" * 32, {"marked": 1.0, "copies": [b"x" * 49]}),
        (Kind.LEASE, "a" * 32 + "-00000000", {"session": b"b" * 16}),
        (Kind.POLICY, "e" * 32, {"min_age_s": -1.0, "parity": None, "set": 1.0}),
        (Kind.READING, "f" * 32, {"rows": bytes(5)}),
        (Kind.READING, "f" * 32, {"rows": None}),
        (Kind.INDEX, "f" * 32, {"no": "table"}),
    ],
)
def test_what_opens_and_means_nothing_is_damaged(
    store: Store, kind: Kind, name: str, fields: dict[str, object]
) -> None:
    """Anybody with an agent credential can seal such a thing; others stop at it, so it is told."""
    repository = new_repository(store)
    repository.sealed.put(kind, name, encode_record(fields))
    report = check_repository(reopened(repository))
    (found,) = report.damaged
    assert found.key.startswith(f"{FOLDERS[kind]}/{name}")
    mended = {Kind.INDEX: "rebuild-index", Kind.DAMAGE: "rebuild-index", Kind.READING: "scrub"}
    assert found.mended_by.removeprefix("backpoint ") == mended.get(kind, "")


def disk_with(content: bytes) -> SyntheticDisk:
    disk = SyntheticDisk(1 << 20)
    disk.write(0, random.Random(content).randbytes(100_000))
    return disk


def points_of(repository: Repository) -> list[bytes]:
    return [bytes.fromhex(name) for name in repository.sealed.names(Kind.POINT)]


def move(repository: Repository, key: str) -> None:
    """As a collector compacts: copies, their segment, then the old pack goes."""
    sealed, name = repository.sealed, bytes.fromhex(key.rpartition("/")[2])
    directory = sealed.directory(Kind.DATA_PACK, name)
    copies = VerbatimCopies(sealed, reopened(repository).index, b"c" * 16)
    (data_key,) = directory.data_keys.items()
    for at, content_id in enumerate(directory.ids):
        blob = sealed.store.get_range(key, int(directory.offsets[at]), int(directory.lengths[at]))
        plain_length = int(directory.plain_lengths[at])
        copies.add(Kind.DATA_PACK, content_id.tobytes(), blob, plain_length, data_key)
    copies.flush()
    sealed.store.delete(key)
