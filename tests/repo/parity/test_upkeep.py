"""Parity kept up: all packs are protected, none twice, and no group goes that may be needed."""

from __future__ import annotations

import secrets
from collections import Counter
from itertools import count

import pytest

from backpoint_repo.errors import ObjectDamaged, RepositoryError
from backpoint_repo.format import HEADER, Kind, object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease import BACKUP, LIFETIME_S, Lease, LeaseTerms
from backpoint_repo.parity.group import Group, Member, Spare, column_digest
from backpoint_repo.parity.repair import read_groups, recover_pack
from backpoint_repo.parity.spare_object import put_spare
from backpoint_repo.parity.upkeep import Upkeep
from backpoint_repo.parity.upkeep_lease import upkeep_lease
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.trash import put_trash
from faults.failing_store import AFTER, BEFORE, FailingStore
from repo.parity.parity_scene import (
    COLUMN,
    add_vms,
    filled_repository,
    keep_up,
    key_of,
    lose,
    overwrite,
    packs_of,
)
from small_repository import (
    NOON,
    PASSPHRASE,
    StandingClock,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    reopened,
)
from synthetic_disk import SyntheticDisk


def assert_protected(repository: Repository, scheme: tuple[int, int]) -> None:
    """Each pack is in one group, all groups but one are full, and any pack can be lost."""
    groups = read_groups(repository.sealed)
    packs = packs_of(repository.sealed)
    assert Counter(pack for group in groups.spares for pack in group.packs) == Counter(packs.keys())
    assert sum(len(group.packs) < scheme[0] for group in groups.spares) <= 1
    for group, spares in groups.spares.items():
        assert {spare.name for spare in group.spares} == spares
        assert len(spares) == scheme[1]
    assert_recoverable(repository, packs)
    assert_clean(repository)


def assert_recoverable(repository: Repository, packs: dict[PackRef, bytes]) -> None:
    """Whichever one of these is lost."""
    sealed = repository.sealed
    groups = read_groups(sealed)
    for pack, data in packs.items():
        gone = lose(sealed.store, [found.key for found in sealed.store.list(key_of(pack))])
        assert recover_pack(sealed, groups, pack) == data
        for key, content in gone.items():
            sealed.store.put(key, [content])


def parity_of(repository: Repository) -> set[str]:
    return set(keys_of(repository.sealed.store, Kind.PARITY))


def packs_of_newest(repository: Repository) -> dict[PackRef, bytes]:
    """The packs that one more VM brings."""
    before = packs_of(repository.sealed)
    disk = SyntheticDisk(1 << 16)
    disk.write(0, secrets.token_bytes(30_000))
    back_up(repository, "one more", disk)
    return {p: data for p, data in packs_of(repository.sealed).items() if p not in before}


def remove_point(repository: Repository, vm: str) -> None:
    (point,) = [point for point in repository.catalog.refresh() if point.vm == vm]
    repository.sealed.delete(Kind.POINT, point.point_id.hex())


def test_all_packs_are_protected_and_a_second_run_has_nothing_to_do() -> None:
    repository = filled_repository(5)
    report = keep_up(repository, (4, 2))
    assert report.in_order((4, 2))
    assert report.made == 3
    assert report.coverage.covered_packs == report.coverage.packs == 10
    assert_protected(repository, (4, 2))
    before = parity_of(repository)
    again = keep_up(repository, (4, 2))
    assert (again.made, again.dropped) == (0, 0)
    assert parity_of(repository) == before


def test_new_packs_join_the_short_group() -> None:
    """Full groups stay as they are; there is one short group at most, however often it is run."""
    repository = filled_repository(0)
    full = set[Group]()
    for seed in range(5):
        add_vms(repository, 3, seed)
        assert keep_up(repository, (4, 1)).in_order((4, 1))
        groups = read_groups(repository.sealed).spares.keys()
        assert full <= groups
        full = {group for group in groups if len(group.packs) == 4}
        assert len(full) == 6 * (seed + 1) // 4
    assert_protected(repository, (4, 1))


def test_another_scheme_replaces_all_groups() -> None:
    repository = filled_repository(5)
    keep_up(repository, (4, 2))
    before = parity_of(repository)
    assert keep_up(repository, (3, 1)).dropped == 3
    assert before.isdisjoint(parity_of(repository))
    assert_protected(repository, (3, 1))


def test_off_leaves_nothing() -> None:
    repository = filled_repository(3)
    keep_up(repository, (4, 2))
    assert keep_up(repository, None).in_order(None)
    assert not parity_of(repository)
    assert_clean(repository)


def test_off_spares_what_may_repair_a_loss() -> None:
    repository = filled_repository(3)
    keep_up(repository, (4, 2))
    pack, data = next(iter(packs_of(repository.sealed).items()))
    lose(repository.sealed.store, [key_of(pack)])
    (doubt,) = keep_up(repository, None).in_doubt
    assert "heal" in doubt
    assert recover_pack(repository.sealed, read_groups(repository.sealed), pack) == data


def test_packs_deleted_on_purpose_leave_their_group() -> None:
    """What is left of the group is covered anew, and the old group goes."""
    repository = filled_repository(4)
    packs = packs_of_newest(repository)
    keep_up(repository, (4, 2))
    remove_point(repository, "one more")
    lose(repository.sealed.store, [*map(key_of, packs)])
    report = keep_up(repository, (4, 2))
    assert report.in_order((4, 2)), report
    assert report.dropped >= 1
    assert_protected(repository, (4, 2))


def test_a_group_stays_while_a_backup_may_need_what_is_gone() -> None:
    """The backup may have been deduplicated onto the pack before that went."""
    clock = StandingClock()
    repository = new_repository(MemoryStore(), clock)
    packs = packs_of_newest(repository)
    keep_up(repository, (4, 2))
    remove_point(repository, "one more")
    lease = Lease(repository.sealed, bytes(16), LeaseTerms(BACKUP, 0), clock)
    lose(repository.sealed.store, [key_of(next(iter(packs)))])
    (doubt,) = keep_up(repository, (4, 2)).in_doubt
    assert "backup on" in doubt
    lease.release()
    assert keep_up(repository, (4, 2)).in_order((4, 2))
    assert_protected(repository, (4, 2))


def test_a_lost_pack_keeps_its_group_until_it_is_healed() -> None:
    repository = filled_repository(5)
    keep_up(repository, (4, 2))
    before = packs_of(repository.sealed)
    pack = next(pack for pack in before if pack.kind is Kind.DATA_PACK)
    gone = lose(repository.sealed.store, [key_of(pack)])
    for _ in range(2):
        report = keep_up(repository, (4, 2))
        assert not report.in_order((4, 2))
        assert "stays" in report.in_doubt[0]
        assert recover_pack(repository.sealed, read_groups(repository.sealed), pack) == before[pack]
        assert report.coverage.covered_packs == 9
    repository.sealed.store.put(key_of(pack), list(gone.values()))
    assert keep_up(repository, (4, 2)).in_order((4, 2))
    assert_protected(repository, (4, 2))


def test_trash_keeps_its_protection_until_it_is_swept() -> None:
    """And what stays is in new groups before anything of the old one is deleted."""
    repository = filled_repository(4)
    packs = packs_of_newest(repository)
    keep_up(repository, (4, 2))
    remove_point(repository, "one more")
    assert put_trash(repository.sealed, 1, list(packs), swept=0, by=bytes(16), now=NOON)
    report = keep_up(repository, (4, 2))
    assert report.waiting >= 1
    assert report.in_order((4, 2))
    assert_recoverable(repository, packs_of(repository.sealed))
    lose(repository.sealed.store, [*map(key_of, packs)])
    report = keep_up(repository, (4, 2))
    assert (report.made, report.waiting) == (0, 0)
    assert report.in_order((4, 2))
    assert_protected(repository, (4, 2))


def test_a_damaged_pack_is_told_and_keeps_the_group_that_repairs_it() -> None:
    """Also when its group is to be replaced, by another scheme."""
    repository = filled_repository(4)
    keep_up(repository, (4, 2))
    before = packs_of(repository.sealed)
    pack = next(pack for pack in before if pack.kind is Kind.DATA_PACK)
    overwrite(repository.sealed.store, key_of(pack), 100, b"rot")
    for _ in range(2):
        report = keep_up(repository, (3, 1))
        assert not report.in_order((3, 1))
        assert any(key_of(pack) in problem for problem in report.coverage.problems)
        assert report.coverage.covered_packs == 7
        assert recover_pack(repository.sealed, read_groups(repository.sealed), pack) == before[pack]
    overwrite(repository.sealed.store, key_of(pack), 0, before[pack])
    assert keep_up(repository, (3, 1)).in_order((3, 1))
    assert_protected(repository, (3, 1))


def test_a_pack_that_was_damaged_before_there_was_parity_is_left_out() -> None:
    repository = filled_repository(4)
    pack, data = next(iter(packs_of(repository.sealed).items()))
    overwrite(repository.sealed.store, key_of(pack), 100, b"rot")
    report = keep_up(repository, (4, 2))
    assert report.coverage.covered_packs == 7
    overwrite(repository.sealed.store, key_of(pack), 0, data)
    assert keep_up(repository, (4, 2)).in_order((4, 2))
    assert_protected(repository, (4, 2))


class Crash(Exception):
    """The process is gone."""


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
def test_a_crash_at_any_write_loses_no_protection(moment: str) -> None:
    """While the scheme changes, packs are new and others were deleted. The next run brings
    everything in order."""
    for at in count(1):
        repository = filled_repository(2, seed=at)
        extra = packs_of_newest(repository)
        keep_up(repository, (3, 2))
        remove_point(repository, "one more")
        lose(repository.sealed.store, [*map(key_of, extra)])
        covered = packs_of(repository.sealed)
        add_vms(repository, 1, seed=-at)
        dying = FailingStore(
            repository.sealed.store, at, crash, moment, only=frozenset({"put", "delete"})
        )
        crashed = False
        try:
            keep_up(open_repository(dying, PASSPHRASE, repository.clock), (2, 1))
        except Crash:
            crashed = True
        assert_recoverable(repository, covered)
        assert keep_up(repository, (2, 1)).in_order((2, 1))
        assert_protected(repository, (2, 1))
        if not crashed:
            assert at > 6, "it is done in fewer steps than it takes"
            break


def crash() -> None:
    raise Crash


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


def test_a_damaged_spare_does_not_keep_groups_whose_packs_were_deleted() -> None:
    repository = filled_repository(4)
    packs = packs_of_newest(repository)
    keep_up(repository, (2, 2))
    remove_point(repository, "one more")
    lose(repository.sealed.store, [*map(key_of, packs)])
    whole = [
        group for group in read_groups(repository.sealed).spares if group.packs.isdisjoint(packs)
    ]
    key = whole[0].spares[1].key
    overwrite(repository.sealed.store, key, repository.sealed.store.size(key) - 40, b"rot")
    assert keep_up(repository, (2, 2)).in_order((2, 2))
    assert_protected(repository, (2, 2))


def test_a_lost_spare_is_replaced_with_its_group() -> None:
    repository = filled_repository(2)
    keep_up(repository, (4, 2))
    lose(repository.sealed.store, sorted(parity_of(repository))[:1])
    assert keep_up(repository, (4, 2)).in_order((4, 2))
    assert_protected(repository, (4, 2))


def test_packs_that_are_too_large_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = filled_repository(3)
    sizes = sorted(map(len, packs_of(repository.sealed).values()))
    monkeypatch.setattr("backpoint_repo.parity.plan.MEMBER_SIZE_MAX", sizes[-2])
    report = keep_up(repository, (4, 2))
    assert report.coverage.covered_packs == 5
    assert "too many" in report.coverage.problems[0]
    assert not report.in_order((4, 2))
    assert_clean(repository)


def test_one_upkeep_at_a_time() -> None:
    clock = StandingClock()
    repository = new_repository(MemoryStore(), clock)
    with (
        upkeep_lease(repository.sealed, clock, ignore),
        pytest.raises(RepositoryError, match="already"),
        upkeep_lease(repository.sealed, clock, ignore),
    ):
        pass
    assert not keys_of(repository.sealed.store, Kind.LEASE)
    Lease(repository.sealed, bytes(16), LeaseTerms("parity", 0), clock)
    clock.now += LIFETIME_S + 1
    with upkeep_lease(repository.sealed, clock, ignore):
        pass


def ignore(_: RepositoryError) -> None:
    pass


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
