"""Lost and rotten packs from the rest of their group: bit for bit, or a clear no."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpoint_repo.errors import StoreUnavailable
from backpoint_repo.format import HEADER, Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.parity.group import Group
from backpoint_repo.parity.group_writer import Shape, StoredPack, problem_of, write_group
from backpoint_repo.parity.repair import read_groups, recover_blobs, recover_pack
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.store.memory import MemoryStore
from repo.parity.parity_scene import COLUMN, key_of, lose, overwrite, packs_of, put_pack
from small_repository import as_agent, new_repository

KINDS = (Kind.DATA_PACK, Kind.NODE_PACK)


def some_packs(sealed: SealedStore, sizes: list[int], seed: int = 0) -> list[StoredPack]:
    """Each with that many bytes in blobs of at most 1000."""
    content = random.Random(seed)
    packs = []
    for number, size in enumerate(sizes):
        lengths = [1000] * (size // 1000) + [size % 1000] * (size % 1000 > 0)
        blobs = [content.randbytes(length) for length in lengths]
        pack = put_pack(sealed, KINDS[number % 2], blobs)
        packs.append(StoredPack(pack, sealed.store.size(key_of(pack))))
    return packs


def one_group(sealed: SealedStore, packs: list[StoredPack], spares: int, column: int) -> Group:
    made = write_group(sealed, packs, Shape(spares, column), lambda _: None)
    assert made.group is not None, made.unfit
    return made.group


def keys_in(group: Group) -> list[str]:
    """Members, then spares."""
    return [key_of(member.pack) for member in group.members] + [s.key for s in group.spares]


@st.composite
def losses(draw: st.DrawFn) -> tuple[list[int], int, int, set[int]]:
    """Sizes of packs, spares, bytes of a column, and which objects of the group are lost."""
    sizes = draw(st.lists(st.integers(1, 6000), min_size=1, max_size=7))
    spares = draw(st.integers(1, 4))
    column = draw(st.sampled_from([512, 1000, 4096, 65536]))
    lost = draw(st.sets(st.integers(0, len(sizes) + spares - 1), max_size=spares))
    return sizes, spares, column, lost


@given(losses())
@settings(max_examples=60)
def test_as_many_as_there_are_spares_may_be_lost(
    case: tuple[list[int], int, int, set[int]],
) -> None:
    sizes, spares, column, lost = case
    sealed = new_repository(MemoryStore()).sealed
    group = one_group(sealed, some_packs(sealed, sizes), spares, column)
    assert problem_of(sealed, group) is None
    groups = read_groups(sealed)
    assert list(groups.spares) == [group]
    before = packs_of(sealed)
    lose(sealed.store, [keys_in(group)[number] for number in lost])
    for pack, data in before.items():
        assert recover_pack(sealed, groups, pack) == data


def test_one_more_is_too_many() -> None:
    """Every choice of 3 of 4 + 2: a lost pack is not given back, and what is there still is."""
    sealed = new_repository(MemoryStore()).sealed
    group = one_group(sealed, some_packs(sealed, [3000] * 4), 2, 512)
    groups, before = read_groups(sealed), packs_of(sealed)
    for lost in combinations(range(6), 3):
        gone = lose(sealed.store, [keys_in(group)[number] for number in lost])
        for number, member in enumerate(group.members):
            there = None if number in lost else before[member.pack]
            assert recover_pack(sealed, groups, member.pack) == there
        for key, data in gone.items():
            sealed.store.put(key, [data])


@given(st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_rot_is_repaired_by_the_column(chance: random.Random) -> None:
    """All packs and spares are rotten, no column of them more often than there are spares."""
    sealed = new_repository(MemoryStore()).sealed
    group = one_group(sealed, some_packs(sealed, [9000] * 5), 2, 1024)
    groups, before = read_groups(sealed), packs_of(sealed)
    for at in range(group.size // 1024):
        for number in chance.sample(range(7), 2):
            offset = at * 1024 + (0 if number < 5 else HEADER.size) + chance.randrange(900)
            overwrite(sealed.store, keys_in(group)[number], offset, chance.randbytes(100))
    assert problem_of(sealed, group) is not None
    for pack, data in before.items():
        assert recover_pack(sealed, groups, pack) == data


def test_what_can_be_had_of_a_pack_is_had() -> None:
    """Three rotten columns at one place of 3 + 2: the blobs elsewhere come back, and are told from
    those that do not."""
    sealed = new_repository(MemoryStore()).sealed
    group = one_group(sealed, some_packs(sealed, [9000] * 3), 2, 1024)
    groups, before = read_groups(sealed), packs_of(sealed)
    for member in group.members:
        overwrite(sealed.store, key_of(member.pack), 2048, bytes(1024))
    overwrite(sealed.store, key_of(group.members[0].pack), 5000, bytes(64))
    pack = group.members[0].pack
    assert recover_pack(sealed, groups, pack) is None
    found = recover_blobs(sealed, groups, pack)
    assert found is not None
    assert not found.whole
    assert found.good.tolist() == [True, True, False, False, *[True] * 5]
    for at in (0, 1, 4, 8):
        start = HEADER.size + 1000 * at
        assert bytes(found.blob(at)) == before[pack][start : start + 1000]


def test_an_agent_repairs_what_it_cannot_read() -> None:
    repository = new_repository(MemoryStore())
    group = one_group(repository.sealed, some_packs(repository.sealed, [5000, 400]), 1, COLUMN)
    agent = as_agent(repository).sealed
    before = packs_of(agent)
    pack = group.members[0].pack
    lose(agent.store, [key_of(pack)])
    assert recover_pack(agent, read_groups(agent), pack) == before[pack]


class Unreadable(MemoryStore):
    """Some objects cannot be read now."""

    blocked: frozenset[str] = frozenset()

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        if key in self.blocked:
            raise StoreUnavailable(f"cannot read {key}: Input/output error")
        return super().get_range(key, offset, length)


def test_what_cannot_be_read_now_counts_as_lost_and_is_no_verdict() -> None:
    store = Unreadable()
    sealed = new_repository(store).sealed
    group = one_group(sealed, some_packs(sealed, [5000, 4000, 3000]), 1, COLUMN)
    groups, before = read_groups(sealed), packs_of(sealed)
    first, second, _ = (member.pack for member in group.members)
    store.blocked = frozenset({key_of(first)})
    assert recover_pack(sealed, groups, first) == before[first]
    lose(store, [key_of(second)])
    with pytest.raises(StoreUnavailable, match="Input/output"):
        recover_pack(sealed, groups, second)


def test_a_pack_that_no_group_covers_cannot_be_had() -> None:
    sealed = new_repository(MemoryStore()).sealed
    one_group(sealed, some_packs(sealed, [5000]), 1, COLUMN)
    assert recover_pack(sealed, read_groups(sealed), PackRef(Kind.DATA_PACK, bytes(16))) is None


def test_a_rotten_pack_gets_no_spare() -> None:
    """Else its rot would be what is protected."""
    sealed = new_repository(MemoryStore()).sealed
    packs = some_packs(sealed, [5000, 4000, 3000, 2000])
    overwrite(sealed.store, packs[0].key, 1500, b"rot")
    overwrite(sealed.store, packs[1].key, packs[1].size - 40, b"rot")
    lose(sealed.store, [packs[2].key])
    made = write_group(sealed, packs, Shape(2, 512), lambda _: None)
    assert made.group is None
    assert packs[1].pack in made.unfit
    assert packs[2].pack in made.unfit
    made = write_group(sealed, [packs[0], packs[3]], Shape(2, 512), lambda _: None)
    assert list(made.unfit) == [packs[0].pack]
    assert "1 of its 5 blobs" in str(made.unfit[packs[0].pack])
    assert not read_groups(sealed).spares


def test_many_spares_are_made_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room in memory for one at a time they are the same as all at once."""
    sealed = new_repository(MemoryStore()).sealed
    packs = some_packs(sealed, [5000, 4000, 3000])
    together = one_group(sealed, packs, 5, 512)
    monkeypatch.setattr("backpoint_repo.parity.group_writer._SPARE_BYTES_MAX", 1)
    apart = one_group(sealed, packs, 5, 512)
    assert apart.members == together.members
    assert [s.digests for s in apart.spares] == [s.digests for s in together.spares]
    assert problem_of(sealed, apart) is None
