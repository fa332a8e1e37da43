"""Parity beside the real collector and the real healing: protection follows what is stored."""

from __future__ import annotations

from collections.abc import Iterable

from backpoint_repo.check import check_repository
from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectTerms
from backpoint_repo.format import Kind
from backpoint_repo.healing.heal import heal
from backpoint_repo.index_segment import PackRef
from backpoint_repo.parity.repair import read_groups, recover_blobs
from backpoint_repo.parity.upkeep import Upkeep
from backpoint_repo.phase_progress import Silent
from backpoint_repo.repository import Repository
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
from small_repository import assert_clean, read_disk, reopened
from synthetic_disk import SyntheticDisk

SCHEME = (4, 2)


def data_packs(repository: Repository) -> list[PackRef]:
    return [pack for pack in packs_of(repository.sealed) if pack.kind is Kind.DATA_PACK]


def assert_covered(repository: Repository) -> None:
    """Every pack is in a group, and nothing is left to do."""
    report = keep_up(repository, SCHEME)
    assert report.in_order(SCHEME), report
    assert (report.made, report.dropped) == (0, 0)
    packs = frozenset(packs_of(repository.sealed))
    assert (
        frozenset[PackRef]().union(*(g.packs for g in read_groups(repository.sealed).spares))
        == packs
    )


def assert_reads_back(repository: Repository, disks: dict[str, SyntheticDisk]) -> None:
    fresh = reopened(repository)
    for summary in fresh.catalog.refresh():
        (disk,) = fresh.point(summary.point_id).disks
        assert read_disk(fresh, disk) == disks[summary.vm].content(0, disk.size)


def verified(repository: Repository) -> Upkeep:
    upkeep = Upkeep(reopened(repository), SCHEME, COLUMN)
    upkeep.verify(lambda _: None)
    return upkeep


def remove(repository: Repository, vms: Iterable[str]) -> None:
    for point in repository.catalog.refresh():
        if point.vm in vms:
            repository.sealed.delete(Kind.POINT, point.point_id.hex())


def test_what_is_collected_leaves_its_groups() -> None:
    """Before, between and after the steps of the collector every pack is protected."""
    repository = filled_repository(0)
    disks = add_vms(repository, 8, seed=3)
    keep_up(repository, SCHEME)
    for vms in (["vm3-0"], ["vm3-2", "vm3-5"]):
        remove(repository, vms)
        report = collect(reopened(repository), CollectTerms(wait_s=0.0), Silent(), lambda _: None)
        assert report.freed_packs == 2 * len(vms)
        assert keep_up(repository, SCHEME).dropped >= 1
        assert_covered(repository)
    assert_reads_back(repository, disks)
    assert_clean(repository)


def test_lost_and_rotten_packs_are_healed_and_all_is_protected_again() -> None:
    """A rotten pack stays, as its other blobs are in use: it is covered as it is."""
    repository = filled_repository(0)
    disks = add_vms(repository, 5, seed=4)
    keep_up(repository, SCHEME)
    lost, rotten, *_ = data_packs(repository)
    lose(repository.sealed.store, [key_of(lost)])
    overwrite(repository.sealed.store, key_of(rotten), 100, b"rot")
    assert not check_repository(reopened(repository), read_share=1.0).clean
    assert not keep_up(repository, SCHEME).in_order(SCHEME)
    report = heal(reopened(repository), [], Silent())
    assert not report.lost
    assert keep_up(repository, SCHEME).in_order(SCHEME)
    assert_covered(repository)
    assert_reads_back(repository, disks)
    assert_clean(repository)
    assert verified(repository).run(lambda _: None).in_order(SCHEME)
    assert not verified(repository).plan.build
    lose(repository.sealed.store, [key_of(rotten)])
    found = recover_blobs(repository.sealed, read_groups(repository.sealed), rotten)
    assert found is not None
    assert found.good.tolist().count(False) == 1


def test_a_pack_with_a_spoilt_directory_that_nobody_needs_asks_for_nothing() -> None:
    repository = filled_repository(0)
    disks = add_vms(repository, 5, seed=5)
    keep_up(repository, SCHEME)
    spoilt, *_ = data_packs(repository)
    size = repository.sealed.store.size(key_of(spoilt))
    overwrite(repository.sealed.store, key_of(spoilt), size - 30, b"rot")
    assert not check_repository(reopened(repository)).clean
    assert not heal(reopened(repository), [], Silent()).lost
    report = keep_up(repository, (3, 2))
    assert report.in_order((3, 2)), report
    assert report.coverage.covered_packs == report.coverage.packs
    assert_reads_back(repository, disks)
    assert_clean(repository)
