"""What check tells the agent, who cannot open data, and that it says what it did not do.

That each kind of damage is found is `tests/faults/test_broken_objects.py`.
"""

from __future__ import annotations

import random

from backpoint_repo.check import check_repository
from backpoint_repo.format import Kind
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Store
from small_repository import as_agent, assert_clean, back_up, keys_of, new_repository, reopened
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
