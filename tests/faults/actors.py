"""Who uses a repository at the same time as others: each a function to be run by turns.

What they do is what the program does, call by call, on real objects; the mount's and the session's
steps are those of their event loops, one after the other. Decides what each is promised, by raising
`Broken` where a promise was not kept; whatever else the program raises for good reason is theirs.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectTerms
from backpoint_repo.copying.contract import Watch
from backpoint_repo.copying.verbatim import copy_point_verbatim
from backpoint_repo.errors import ObjectDamaged, ObjectMissing
from backpoint_repo.lease import MOUNT, READ, Lease, LeaseTerms
from backpoint_repo.lease_book import read_leases, revoke
from backpoint_repo.phase_progress import Silent
from backpoint_repo.pin import pin_of
from backpoint_repo.point import POINT_ID_SIZE, Point
from backpoint_repo.point_hold import Hold, drop_hold, put_hold
from backpoint_repo.reading import reading
from backpoint_repo.repository import Repository
from backpoint_repo.retention.removal import Removal, remove_points
from backpoint_repo.trash import newest_epoch
from small_repository import read_disk
from synthetic_disk import SyntheticDisk

WAIT_S: Final = 9.0
"""A collector looks three times whether others have seen its trash."""


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass(frozen=True)
class Backup:
    """What a backup stores. changed: since the parent, None: read in full. label: names it."""

    label: str
    vm: str
    disk: SyntheticDisk
    changed: tuple[tuple[int, int], ...] | None = None


def write(repository: Repository, backup: Backup, parent: bytes | None = None) -> Point:
    """Raises SessionRevoked, and ObjectMissing where the parent is gone."""
    with repository.begin_backup(backup.vm, parent) as session:
        job = DiskJob("disk0", backup.disk, backup.changed)
        session.store_disk(job, lambda _: None)
        return session.publish(time=None, label=backup.label)


def copy(source: Repository, repository: Repository, point: Point) -> Point:
    """A point of a replica, as it is sealed. Raises SessionRevoked."""
    return copy_point_verbatim(source, repository, point, None, Watch()).point


def prune(repository: Repository, *points: Point) -> Removal:
    ids = [point.point_id for point in points]
    return remove_points(repository.sealed, ids, repository.clock)


def restore(repository: Repository, point: Point, content: bytes) -> None:
    """A reader of one point. Raises ObjectMissing where it is gone before it is pinned."""
    troubles: list[str] = []
    with reading(repository, point, troubles.append):
        _read(repository, point, content, lambda: _pinned_by(repository, READ, point))


def mount(repository: Repository, point: Point, content: bytes) -> None:
    """Opens a disk, says so in its lease, and reads it late, after another look for trash.

    Raises ObjectMissing where the point is gone before it is pinned.
    """
    sealed = repository.sealed
    terms = LeaseTerms(MOUNT, newest_epoch(sealed))
    lease = Lease(sealed, secrets.token_bytes(POINT_ID_SIZE), terms, repository.clock)
    try:
        pin = pin_of(repository.point(point.point_id))
        for _ in range(2):
            lease.refresh(LeaseTerms(MOUNT, newest_epoch(sealed), (pin,)))
            if lease.lost:
                return
            if _ == 0:
                repository.point(point.point_id)
        _read(repository, point, content, lambda: _stands(lease))
    finally:
        lease.release()


def live(repository: Repository, base: Point, content: bytes, backup: Backup) -> Point:
    """A session on a held point: reads it late without any lease, then commits on it.

    Raises ObjectMissing where it is gone before it is held.
    """
    hold = Hold(base.point_id, secrets.token_hex(8), "a session", repository.clock())
    put_hold(repository.sealed, hold)
    _read(repository, base, content, lambda: True)
    try:
        made = write(repository, backup, base.point_id)
    except ObjectMissing as error:
        raise Broken(f"a held point is gone: {error}") from error
    drop_hold(repository.sealed, hold.point_id, hold.holder)
    return made


def collecting(repository: Repository, pause: Callable[[float], None]) -> None:
    report = collect(repository, CollectTerms(wait_s=WAIT_S), Silent(), pause)
    if report.stopped or report.damaged:
        raise Broken(f"a collector stopped: {report.stopped} {report.damaged}")


def reap(repository: Repository, purposes: frozenset[str]) -> None:
    """Takes every lease for these purposes for expired, whatever the clocks say."""
    for lease in read_leases(repository.sealed):
        if lease.purpose in purposes:
            session = secrets.token_bytes(POINT_ID_SIZE)
            revoke(repository.sealed, lease.session, session, repository.clock())


def _read(
    repository: Repository, point: Point, content: bytes, protected: Callable[[], bool]
) -> None:
    """Raises Broken for a wrong byte always, for a missing one where it was protected."""
    for disk in point.disks:
        try:
            found = read_disk(repository, disk)
        except (ObjectMissing, ObjectDamaged) as error:
            if protected():
                raise Broken(f"what was open is lost: {error}") from error
            return
        if found != content:
            raise Broken("wrong bytes were read")


def _stands(lease: Lease) -> bool:
    lease.look()
    return not lease.lost


def _pinned_by(repository: Repository, purpose: str, point: Point) -> bool:
    leases = read_leases(repository.sealed)
    return any(one.purpose == purpose and point.point_id in one.pins for one in leases)
