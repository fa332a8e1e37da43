"""Scenes of upkeep: points go, space is given back, packs are copied, guarded and read again.

Nothing that a point needs may go with a power cut, and nothing that went may come back in parts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from backpoint_repo import segment_cache, segment_merge
from backpoint_repo.check import check_repository
from backpoint_repo.collecting import plan
from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectTerms
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import Kind
from backpoint_repo.healing.heal import heal
from backpoint_repo.index_rebuild import rebuild_index
from backpoint_repo.parity.group_book import read_groups
from backpoint_repo.parity.upkeep import Upkeep
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.retention.removal import remove_points
from backpoint_repo.scrubbing import reading_book
from backpoint_repo.scrubbing.scrub import Scrub
from backpoint_repo.scrubbing.scrub_report import ScrubTerms
from backpoint_repo.segment_cache import CachePlace
from backpoint_repo.segment_merge import merge_segments
from backpoint_repo.store.local import LocalStore
from faults.power_cut_journal import Journal
from faults.power_cut_scenes import DISK_SIZE, GOING, REMOVED, Scene, disk_of, opened, stored
from faults.power_cut_writing import begun, every_copy, two
from small_repository import NOON, PASSPHRASE, StandingClock, back_up, read_disk

LATER: Final = NOON + 86400.0
"""When the leases of whatever was cut off have expired."""
SCHEME: Final = (2, 1)


class Quiet:
    """Progress that nobody watches."""

    def phase(self, name: str, total: int) -> None:
        """Nothing."""

    def advance(self, steps: int) -> None:
        """Nothing."""


def later(root: Path) -> Repository:
    """As a process the day after sees it."""
    return open_repository(LocalStore(root), PASSPHRASE, StandingClock(LATER))


def three(root: Path) -> None:
    """Two points of one machine, one of another."""
    two(root)
    stored(root, "2 0")


def prune(root: Path, *labels: str) -> None:
    """Remove those of these points that are there."""
    repository = later(root)
    there = [point.point_id for point in repository.catalog.refresh() if point.label in labels]
    remove_points(repository.sealed, there, repository.clock)


def collect_all(root: Path) -> None:
    """Put what is dead into trash, and sweep it."""
    repository = later(root)
    report = collect(repository, CollectTerms(wait_s=0.0), Quiet(), lambda _: None)
    assert not report.stopped
    assert not report.damaged


def assert_collected(root: Path) -> None:
    """Nothing is left to be deleted, copied or swept."""
    repository = later(root)
    terms = CollectTerms(wait_s=0.0, dry_run=True)
    report = collect(repository, terms, Quiet(), lambda _: None)
    assert report.plan is not None
    assert not report.plan.dead
    assert not report.plan.repack
    assert len(list(repository.sealed.names(Kind.TRASH))) <= 1


def _prune(root: Path, journal: Journal) -> None:
    begun(journal, "1 1")
    prune(root, "1 0", "2 0")
    journal.promise(REMOVED + "1 0")
    journal.promise(REMOVED + "2 0")


def _prune_again(root: Path) -> None:
    prune(root, "1 0", "2 0")
    stored(root, "3 0")


def _without_two(root: Path) -> None:
    three(root)
    prune(root, "1 0", "2 0")


def _collect(root: Path, journal: Journal) -> None:
    begun(journal, "1 1")
    collect_all(root)


def _collect_again(root: Path) -> None:
    for _ in range(3):  # publishing, sweeping, and the trash before the newest
        collect_all(root)
    assert_collected(root)
    back_up(opened(root), "third", disk_of("1 2"), label="1 2")


def _prune_and_collect(root: Path, journal: Journal) -> None:
    begun(journal, "1 1")
    prune(root, "1 0", "2 0")
    collect_all(root)
    stored(root, "2 1")
    begun(journal, "2 1")
    journal.promise(GOING + "1 1")
    prune(root, "1 1")
    journal.promise(REMOVED + "1 1")
    collect_all(root)


def _guard(root: Path, journal: Journal) -> None:
    """Groups are made, and made anew when a collector has taken packs."""
    begun(journal, "1 1")
    _upkeep(root)
    journal.promise("guarded")
    prune(root, "1 0", "2 0")
    collect_all(root)
    _upkeep(root)


def _upkeep(root: Path) -> None:
    Upkeep(later(root), SCHEME, 4096).run(lambda _: None)


def _guarded(root: Path, promised: frozenset[str]) -> None:
    groups = read_groups(opened(root).sealed)
    assert not groups.damaged
    assert groups.spares or "guarded" not in promised


def _guard_again(root: Path) -> None:
    collect_all(root)
    _upkeep(root)
    coverage = Upkeep(later(root), SCHEME, 4096).coverage()
    assert coverage.covered_packs == coverage.packs
    assert not coverage.problems


def _merge(root: Path, journal: Journal) -> None:
    """Small segments into larger ones, after backups and by themselves."""
    begun(journal, "1 0", "1 1", "2 0")
    stored(root, "3 0")
    begun(journal, "3 0")
    _merge_again(root)


def _merge_again(root: Path) -> None:
    repository = later(root)
    merge_segments(repository.sealed, repository.index)
    stored(root, "4 0")


def _rebuild(root: Path, journal: Journal) -> None:
    begun(journal, "1 0", "1 1", "2 0")
    _rebuild_again(root)


def _rebuild_again(root: Path) -> None:
    assert not rebuild_index(later(root), Quiet()).damaged


def _scrub(root: Path, journal: Journal) -> None:
    """A reading for each pack, merged in between."""
    begun(journal, "1 0", "1 1", "2 0")
    _scrub_again(root)


def _scrub_again(root: Path) -> None:
    scrub = Scrub(later(root), ScrubTerms(oldest_first=True, save_bytes=1), lambda: 0.0)
    scrub.read()
    report = scrub.report()
    assert not report.damaged
    assert not report.unreadable
    assert report.packs


def _heal(root: Path, journal: Journal) -> None:
    """Every copy is said to be damaged, and is good."""
    begun(journal, "1 0", "1 1", "2 0")
    repository = later(root)
    mark_damaged(repository.sealed, every_copy(repository), NOON)
    _heal_again(root)


def _heal_again(root: Path) -> None:
    heal(later(root), (), Quiet())
    repository = later(root)
    repository.index.refresh()
    report = check_repository(repository, read_share=None)
    assert not report.hurt, "what was marked has been stored anew"


def _cached(root: Path) -> Repository:
    """With index segments in local files, on the same disk."""
    place = CachePlace(root.parent / "cache")
    return open_repository(LocalStore(root), PASSPHRASE, StandingClock(), caches=place)


def _use_cache(root: Path, journal: Journal) -> None:
    begun(journal, "1 0", "1 1")
    _read_all(_cached(root))


def _read_all(repository: Repository) -> None:
    for point in repository.catalog.refresh():
        content = read_disk(repository, repository.point(point.point_id).disks[0])
        assert content == disk_of(point.label).content(0, DISK_SIZE)


def _cache_holds(root: Path, _promised: frozenset[str]) -> None:
    _read_all(_cached(root))


def _use_cache_again(root: Path) -> None:
    _read_all(_cached(root))


def _as_scene(work: Callable[[Path], None]) -> Scene:
    """For a first process that is killed: promises nothing."""
    return Scene(three, lambda root, _: work(root), three)


_MERGING: Final = ((plan, "SMALL_MANY", 3),)
SCENES: Final = {
    "prune": Scene(three, _prune, _prune_again),
    "collect": Scene(_without_two, _collect, _collect_again),
    "collect and merge": Scene(_without_two, _collect, _collect_again, patches=_MERGING),
    "prune and collect": Scene(three, _prune_and_collect, _collect_again),
    "merge segments": Scene(
        three, _merge, _merge_again, patches=((segment_merge, "A_LEVEL_HOLDS", 2),)
    ),
    "rebuild index": Scene(three, _rebuild, _rebuild_again),
    "scrub": Scene(three, _scrub, _scrub_again, patches=((reading_book, "MERGE_AFTER", 4),)),
    "heal": Scene(three, _heal, _heal_again),
    "index cache": Scene(
        two, _use_cache, _use_cache_again, _cache_holds, ((segment_cache, "FILE_FROM", 1),)
    ),
    "parity": Scene(three, _guard, _guard_again, _guarded),
}
KILLED: Final = {
    "prune, then collect": (
        _as_scene(lambda root: prune(root, "1 0", "2 0")),
        Scene(three, _collect, _collect_again),
    ),
    "collect, then collect": (
        Scene(_without_two, _collect, three),
        Scene(three, _collect, _collect_again),
    ),
    "backup, then collect": (
        _as_scene(lambda root: stored(root, "3 0")),
        Scene(three, _collect, _collect_again),
    ),
}
