"""Parity kept up: all packs are protected, none twice, and no group goes that may be needed."""

from __future__ import annotations

import secrets
from itertools import count

import pytest

from backpoint_repo.errors import RepositoryError
from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease import BACKUP, LIFETIME_S, Lease, LeaseTerms
from backpoint_repo.parity.group import Group
from backpoint_repo.parity.repair import read_groups, recover_pack
from backpoint_repo.parity.upkeep_lease import upkeep_lease
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.trash import put_trash
from faults.failing_store import AFTER, BEFORE, FailingStore
from repo.parity.parity_scene import (
    add_vms,
    assert_protected,
    assert_recoverable,
    filled_repository,
    keep_up,
    key_of,
    lose,
    overwrite,
    packs_of,
    parity_of,
)
from small_repository import (
    NOON,
    PASSPHRASE,
    StandingClock,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
)
from synthetic_disk import SyntheticDisk


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
