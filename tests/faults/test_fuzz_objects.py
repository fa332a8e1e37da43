"""Stored objects bent, swapped, hidden, brought back and forged by chance, and all done with them.

No crash, no hang, no wrong byte; refusals in our own words. What does not need the object reads on,
and no operation takes away what a point needs that could be read before. BACKPOINT_FUZZ_OBJECTS=N
tries N seeds of each kind of harm.
"""

from __future__ import annotations

import os
import random
import secrets
from dataclasses import dataclass

import pytest

from backpoint_repo import catalog
from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectTerms
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import CONFIG_KEY
from backpoint_repo.index import pack_sizes
from backpoint_repo.key_slots import add_slot, list_slots, revoke_slot
from backpoint_repo.retention.removal import remove_points
from backpoint_repo.store.contract import Store, Tail
from faults.fuzz_workout import Quiet, readable_points, work_out
from faults.fuzzed_objects import Fuzzer, History, Loose, Wrong, fuzzer_of
from faults.rich_repository import Expected, build_in, owner_of, reads_whole
from small_repository import CHEAP, NOON, StandingClock, back_up
from synthetic_disk import SyntheticDisk

SEEDS = int(os.environ.get("BACKPOINT_FUZZ_OBJECTS", "6"))
HARMS = {
    "bend": Fuzzer.bend,
    "swap": Fuzzer.swap,
    "hide": Fuzzer.hide,
    "replay": Fuzzer.replay,
    "forge": Fuzzer.forge,
}


@dataclass(frozen=True)
class Life:
    """A repository with a past. needs: name of a point -> keys without which it may not read."""

    fuzzer: Fuzzer
    points: tuple[Expected, ...]
    needs: dict[str, frozenset[str]]


@pytest.fixture(scope="module")
def life() -> Life:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "COMPACT_AFTER", 0)
        history = History()
        points, _ = build_in(history, 1)
        _live_on(history)
    needs = {expected.name: _keys_read(history, expected) for expected in points}
    return Life(fuzzer_of(owner_of(history), history), points, needs)


def _live_on(store: Store) -> None:
    """Points, packs, leases, trash and a key slot come and go."""
    for number in range(2):
        repository = owner_of(store)
        disk = SyntheticDisk(64 << 10, name="doomed.img")
        disk.write(0, random.Random(f"doomed {number}").randbytes(64 << 10))
        doomed = back_up(repository, "doomed", disk)
        remove_points(repository.sealed, [doomed.point_id], repository.clock)
        slot = add_slot(repository.sealed, f"gone {number}", "gone", CHEAP, NOON)
        assert len(list_slots(repository.sealed)) == 3
        revoke_slot(repository.sealed, slot.slot_id, force=False)
        later = owner_of(store)
        later.clock = StandingClock(NOON + 60)
        report = collect(later, CollectTerms(wait_s=0.0), Quiet(), lambda _: None)
        assert report.trashed_packs
    packs = [pack for pack, _ in pack_sizes(repository.sealed)]
    mark_damaged(repository.sealed, [(secrets.token_bytes(32), packs[0])], NOON)


class _Listened:
    """A store that notes what is read of it."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.read = set[str]()

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def get(self, key: str) -> bytes:
        self.read.add(key)
        return self._inner.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.read.add(key)
        return self._inner.get_range(key, offset, length)

    def get_tail(self, key: str, length: int) -> Tail:
        self.read.add(key)
        return self._inner.get_tail(key, length)


def _keys_read(store: Store, expected: Expected) -> frozenset[str]:
    listened = _Listened(store)
    assert reads_whole(owner_of(listened), expected)  # type: ignore[arg-type]
    hard = ("packs/", "nodes/", "points/", "slots/")
    return frozenset(key for key in listened.read if key.startswith(hard) or key == CONFIG_KEY)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("harm", HARMS)
def test_fuzz(life: Life, harm: str, seed: int) -> None:
    rng = random.Random(f"{harm} {seed}")
    store = Loose(life.fuzzer.history)
    wrong = HARMS[harm](life.fuzzer, store, rng)
    try:
        _assert_borne(life, store, wrong)
    except BaseException as error:
        error.add_note(wrong.what[:500])
        raise


def _assert_borne(life: Life, store: Loose, wrong: Wrong) -> None:
    before = readable_points(store, life.points)
    if not wrong.forged or not any(key.startswith("index/") for key in wrong.keys):
        spared = {name for name, keys in life.needs.items() if not keys & wrong.keys}
        assert spared <= before, "what has nothing to do with it does not read"
    going = life.points[0]
    for name, _ in work_out(store, going):
        if name not in {"collect", "rebuild", "parity", "and collect"}:
            continue  # the others take nothing away
        now = readable_points(store, life.points)
        assert before - {going.name} <= now, f"{name} took away what a point needs"
        before = now
