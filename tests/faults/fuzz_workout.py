"""All that is done to a repository, one operation after another, whatever lies in it.

Each may refuse in our own words; none may crash. What must still be true afterwards is for the
tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from backpoint_repo.check import check_repository
from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectTerms
from backpoint_repo.errors import BackpointError
from backpoint_repo.healing.heal import heal
from backpoint_repo.index_rebuild import rebuild_index
from backpoint_repo.lease_book import read_leases
from backpoint_repo.parity.upkeep import Upkeep
from backpoint_repo.point_hold import read_holds
from backpoint_repo.point_proof import newest_proofs
from backpoint_repo.policy import Policy, put_policy
from backpoint_repo.repository import Repository
from backpoint_repo.retention.removal import remove_points
from backpoint_repo.scrubbing.scrub import Scrub
from backpoint_repo.scrubbing.scrub_report import ScrubTerms
from backpoint_repo.store.contract import Store
from faults.rich_repository import DISK_SIZE, Expected, owner_of, reads_whole
from small_repository import NOON, StandingClock, back_up
from synthetic_disk import SyntheticDisk


class Quiet:
    """Progress that nobody watches."""

    def phase(self, name: str, total: int) -> None:
        """Nothing."""

    def advance(self, steps: int) -> None:
        """Nothing."""


def _list(repository: Repository) -> None:
    repository.catalog.refresh()
    repository.catalog.gone()
    read_leases(repository.sealed)


def _notes(repository: Repository) -> None:
    points = [point.point_id for point in repository.catalog.refresh()]
    newest_proofs(repository.sealed, points)
    read_holds(repository.sealed)


def _check(repository: Repository) -> None:
    check_repository(repository, read_share=1.0)


def _backup(repository: Repository) -> None:
    disk = SyntheticDisk(DISK_SIZE, name="alpha.img")
    disk.write(4096, b"all new" * 4096)
    back_up(repository, "alpha", disk)
    back_up(repository, "alpha", disk, changed=[(0, 8192)])


def _policy(repository: Repository) -> None:
    put_policy(repository.sealed, Policy(120.0, (2, 1)), repository.clock)


def _collect(repository: Repository) -> None:
    for _ in range(2):
        collect(repository, CollectTerms(wait_s=9.0), Quiet(), lambda _: None)


def _scrub(repository: Repository) -> None:
    scrub = Scrub(repository, ScrubTerms(oldest_first=True), lambda: 0.0)
    scrub.read()
    scrub.report()


def _heal(repository: Repository) -> None:
    heal(repository, (), Quiet())


def _rebuild(repository: Repository) -> None:
    rebuild_index(repository, Quiet())


def _parity(repository: Repository) -> None:
    Upkeep(repository, (2, 1), 4096).run(lambda _: None)


OPERATIONS: Final[dict[str, Callable[[Repository], None]]] = {
    "list": _list,
    "notes": _notes,
    "check": _check,
    "backup": _backup,
    "policy": _policy,
    "collect": _collect,
    "scrub": _scrub,
    "heal": _heal,
    "rebuild": _rebuild,
    "parity": _parity,
}


def readable_points(store: Store, points: tuple[Expected, ...]) -> set[str]:
    """Names of those that read in full, as a process sees it that has just begun. Fails where a
    wrong byte comes back."""
    try:
        repository = owner_of(store)
    except BackpointError:
        return set()
    return {expected.name for expected in points if reads_whole(repository, expected)}


def work_out(store: Store, going: Expected) -> Iterator[tuple[str, BackpointError | None]]:
    """Every operation, and how it refused; in between `going` is removed, and leases expire."""
    clock = StandingClock(NOON)

    def prune(repository: Repository) -> None:
        remove_points(repository.sealed, [going.point.point_id], repository.clock)

    for name, operation in {**OPERATIONS, "prune": prune, "and collect": _collect}.items():
        clock.now += 3600.0
        refused = None
        try:
            repository = owner_of(store)
            repository.clock = clock
            operation(repository)
        except BackpointError as error:
            refused = error
        yield name, refused
