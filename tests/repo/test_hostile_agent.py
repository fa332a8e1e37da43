"""What somebody with the agent credential may write, and what it must not lead to."""

from __future__ import annotations

import secrets
import tracemalloc
from dataclasses import replace

import pytest

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.exclusions import read_exclusions
from backpoint_repo.format import CONFIG_KEY, Kind
from backpoint_repo.keyring import owner_public_of
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from counting_store import CountingStore
from small_repository import back_up, new_repository, reopened
from synthetic_disk import random_disk


def test_the_owner_notices_a_swapped_public_key(repository: Repository) -> None:
    """Its MAC is valid, because agents can make one."""
    sealed = repository.sealed
    swapped = replace(repository.config, owner_public=owner_public_of(b"e" * 32))
    sealed.store.delete(CONFIG_KEY)
    sealed.store.put(CONFIG_KEY, [swapped.encode(sealed.keyring.config_key)])
    with pytest.raises(ObjectDamaged, match="not the owner's"):
        reopened(repository)


@pytest.mark.parametrize(
    "row",
    [b"", b"short", bytes(17), bytes([Kind.POINT]) + bytes(16), bytes([Kind.DATA_PACK]) * 18],
    ids=["empty", "short", "no kind", "a point", "too long"],
)
def test_a_damage_mark_on_no_pack_is_told(repository: Repository, row: bytes) -> None:
    payload = encode_record({"marked": 1.0, "copies": [bytes(32) + row]})
    repository.sealed.put(Kind.DAMAGE, "d" * 32, payload)
    found = read_exclusions(repository.sealed)
    assert not found.damaged
    assert len(found.unreadable) == 1


def test_trash_of_no_pack_stops_a_writer(repository: Repository) -> None:
    payload = encode_record({"epoch": 1, "packs": [bytes(17)]})
    repository.sealed.put(Kind.TRASH, f"{1:016x}", payload)
    with pytest.raises(ObjectDamaged, match="no pack"):
        repository.begin_backup("vm")


def test_a_generation_so_high_that_none_could_follow_is_passed_over(
    repository: Repository,
) -> None:
    """The VM's next point stands on the last honest one, and is readable."""
    honest = back_up(repository, "vm", random_disk(1 << 16, 1))
    last = replace(honest, point_id=secrets.token_bytes(16), generation=(1 << 63) - 1)
    repository.sealed.put(Kind.POINT, last.point_id.hex(), last.encode())
    point = back_up(reopened(repository), "vm", random_disk(1 << 16, 2))
    assert (point.parent, point.generation) == (honest.point_id, honest.generation + 1)
    assert repository.point(point.point_id) == point


class WideStore(CountingStore):
    """As far away as an object store."""

    @property
    def lanes(self) -> int:
        return 16


def test_objects_that_unpack_to_a_lot_do_so_one_by_one() -> None:
    """A kilobyte that is stored can be a gigabyte that is not, in as many threads as read."""
    repository = new_repository(WideStore())
    honest = back_up(repository, "web", random_disk(1 << 20, seed=1))
    large = (40 << 20) + 1
    forged = [secrets.token_hex(16) for _ in range(16)]
    for name in forged:
        repository.sealed.put(Kind.POINT, name, bytes(large))
    found = reopened(repository)
    tracemalloc.start()
    try:
        points = found.catalog.refresh()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [point.point_id for point in points] == [honest.point_id]
    assert found.catalog.broken.keys() == set(forged)
    assert peak < 6 * large  # one, with its copies, and the one before in its error
