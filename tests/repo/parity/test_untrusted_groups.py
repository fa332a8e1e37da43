"""Groups are what their own bytes prove: forged, rotten and impossible ones are seen through."""

from __future__ import annotations

import secrets

import pytest

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import HEADER, Kind, object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.parity.group import Group, Member, Spare, column_digest
from backpoint_repo.parity.repair import read_groups
from backpoint_repo.parity.spare_object import put_spare
from backpoint_repo.parity.upkeep import Upkeep
from backpoint_repo.repository import Repository
from repo.parity.parity_scene import (
    COLUMN,
    assert_protected,
    assert_recoverable,
    filled_repository,
    keep_up,
    lose,
    overwrite,
    packs_of,
    parity_of,
)
from small_repository import (
    reopened,
)


def forged(repository: Repository, group: Group, number: int) -> None:
    """An agent can seal whatever record it likes, at places that are free."""
    put_spare(repository.sealed, group, group.spares[number], [bytes(group.size)])


def test_a_forged_group_takes_no_other_groups_spares_with_it() -> None:
    """It names them as its own, and a pack that never was, so that it is dropped."""
    repository = filled_repository(2)
    keep_up(repository, (4, 2))
    (true,) = read_groups(repository.sealed).spares
    zeros = column_digest(bytes(COLUMN))
    member = Member(PackRef(Kind.DATA_PACK, bytes(16)), COLUMN, zeros)
    spares = tuple(Spare(spare.name, zeros) for spare in true.spares)
    forged(repository, Group(COLUMN, (member,), (Spare(bytes(16), zeros), *spares)), 0)
    report = keep_up(repository, (4, 2))
    assert (report.made, report.dropped) == (0, 1)
    assert list(read_groups(repository.sealed).spares) == [true]
    assert_protected(repository, (4, 2))


def test_a_forged_group_is_no_reason_to_drop_a_true_one() -> None:
    """It claims all packs; the true group goes by another scheme, but not on that word."""
    repository = filled_repository(2)
    keep_up(repository, (4, 2))
    before = packs_of(repository.sealed)
    (true,) = read_groups(repository.sealed).spares
    members = tuple(
        Member(member.pack, member.size, column_digest(before[member.pack]))
        for member in true.members
    )
    spare = Spare(secrets.token_bytes(16), column_digest(bytes(true.size)))
    forged(repository, Group(true.size, members, (spare,)), 0)
    report = keep_up(repository, (4, 1))
    assert any(true.title in doubt for doubt in report.in_doubt)
    assert_recoverable(repository, before)
    upkeep = Upkeep(reopened(repository), (4, 1), COLUMN)
    upkeep.verify(lambda _: None)
    assert upkeep.run(lambda _: None).in_order((4, 1))
    assert_protected(repository, (4, 1))


def test_verifying_replaces_groups_with_rotten_spares() -> None:
    repository = filled_repository(4)
    keep_up(repository, (4, 2))
    rotten = max(parity_of(repository), key=repository.sealed.store.size)
    overwrite(repository.sealed.store, rotten, HEADER.size + 5000, b"rot")
    assert keep_up(repository, (4, 2)).made == 0
    upkeep = Upkeep(reopened(repository), (4, 2), COLUMN)
    told = list[int]()
    upkeep.verify(told.append)
    assert sum(told) == upkeep.groups == 2
    assert "column 1" in upkeep.coverage().hurt[0]
    report = upkeep.run(lambda _: None)
    assert report.in_order((4, 2))
    assert (report.made, report.dropped) == (1, 1)
    assert not report.coverage.hurt
    assert rotten not in parity_of(repository)
    assert_protected(repository, (4, 2))


def test_a_spare_with_a_damaged_record_is_replaced_and_goes() -> None:
    """Also one of which nobody knows any more whose it was."""
    repository = filled_repository(2)
    keep_up(repository, (4, 2))
    store = repository.sealed.store
    rotten = sorted(parity_of(repository))[0]
    overwrite(store, rotten, store.size(rotten) - 40, b"rot")
    store.put(object_key(Kind.PARITY, "0" * 32), [b"nothing of ours"])
    hurt = Upkeep(repository, (4, 2)).coverage()
    assert "lacks 0 of its 4 packs" in hurt.hurt[0]
    assert len(hurt.problems) == 2
    assert keep_up(repository, (4, 2)).in_order((4, 2))
    assert rotten not in parity_of(repository)
    assert_protected(repository, (4, 2))


def test_a_lost_spare_is_replaced_with_its_group() -> None:
    repository = filled_repository(2)
    keep_up(repository, (4, 2))
    lose(repository.sealed.store, sorted(parity_of(repository))[:1])
    assert keep_up(repository, (4, 2)).in_order((4, 2))
    assert_protected(repository, (4, 2))


def test_groups_that_cannot_be_are_damaged() -> None:
    repository = filled_repository(2)
    keep_up(repository, (4, 2))
    (group,) = read_groups(repository.sealed).spares
    one, other = group.members[0], group.spares[0]
    for wrong in (
        Group(0, group.members, group.spares),
        Group(1 << 25, group.members, group.spares),
        Group(COLUMN, (), group.spares),
        Group(COLUMN, group.members, ()),
        Group(COLUMN, (*group.members, one), group.spares),
        Group(COLUMN, group.members, (other, other)),
        Group(COLUMN // 2, group.members, group.spares),
        Group(COLUMN, (Member(one.pack, 1 << 40, one.digests),), group.spares),
        Group(COLUMN, (Member(PackRef(Kind.POINT, one.pack.name), one.size, b""),), group.spares),
        Group(COLUMN, (Member(PackRef(one.pack.kind, b""), one.size, b""),), group.spares),
        Group(COLUMN, group.members, (Spare(b"short", other.digests),)),
    ):
        with pytest.raises(ObjectDamaged, match="spare"):
            Group.decode(wrong.encode(), "spare")
    assert Group.decode(group.encode(), "spare") == group
