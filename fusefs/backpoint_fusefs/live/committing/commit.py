"""A session becomes a restore point: cut, stored, published, and the session goes on over it.

Decides the order, so that a commit that ends anywhere loses nothing: until the session stands on
the new point it has all that was cut, and the next commit stores it again. Who has the session is
for `holder.py`, what a point keeps of it for `commit_plan.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.committing.commit_lock import alone_with
from backpoint_fusefs.live.committing.commit_plan import CommitPlan, plan_commit
from backpoint_fusefs.live.control.holder import hold
from backpoint_fusefs.live.errors import SessionDamaged, SessionInUse
from backpoint_fusefs.live.overlay.overlay_disk import CutDisk
from backpoint_fusefs.live.session_cut import CutFolder
from backpoint_fusefs.live.session_disks import DISKS
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_fusefs.live.session_names import checked_name
from backpoint_fusefs.live.session_record import SessionRecord, read_record
from backpoint_fusefs.live.system_refusal import told
from backpoint_repo.backup_session import DiskJob
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.disk_ingest import Advance
from backpoint_repo.errors import BackpointError
from backpoint_repo.opening import require_owner
from backpoint_repo.point import Point
from backpoint_repo.point_hold import Hold, drop_holds, put_hold
from backpoint_repo.point_record import point_name
from backpoint_repo.repository import Repository

_CACHE_BYTES: Final = 64 << 20
"""Only the borders of what was written are read from the point below."""

Watch = Callable[[int], AbstractContextManager[Advance]]
"""Called with the bytes of all disks together, once it is known: as `progress`."""


@dataclass(frozen=True)
class CommitWish:
    """label: kept with the point. vm: whose point it becomes; None: the session's VM's."""

    label: str = ""
    vm: str | None = None


def commit_session(
    repository: Repository, home: SessionHome, name: str, wish: CommitWish, watch: Watch
) -> Point:
    """The point that holds the session as it was at one moment of this call.

    The session can be written all the while. Raises NoSuchSession, SessionInUse, SessionDamaged,
    UsageError where the point would not be what the machine saw, and what a store raises.
    """
    require_owner(repository, "committing a session")
    folder = home.folder / checked_name(name)
    with told(f"the session {name} cannot be committed"), alone_with(folder):
        with hold(home, name) as holder:
            through = holder.cut()
            cut = _Cut(read_record(folder), through, repository.clock())
        point = _store(repository, folder, cut, wish, watch)
        _go_on(repository, home, cut, point)
    return point


@dataclass(frozen=True)
class _Cut:
    """at: seconds since 1970."""

    record: SessionRecord
    through: int
    at: float

    @property
    def below(self) -> bytes:
        return bytes.fromhex(self.record.point_id)


def _store(
    repository: Repository, folder: Path, cut: _Cut, wish: CommitWish, watch: Watch
) -> Point:
    below = repository.point(cut.below)
    files = CutFolder(folder, cut.through)
    plan = plan_commit(cut.record, below, files, wish.vm)
    with ExitStack() as opened:
        backup = opened.enter_context(repository.begin_backup(plan.vm, below.point_id))
        jobs = list(_open_jobs(repository, folder, cut, below, plan))
        for job in jobs:
            opened.callback(job.source.close)
        advance = opened.enter_context(watch(sum(job.source.size for job in jobs)))
        for job in jobs:
            backup.store_disk(job, advance)
        for name, file in plan.files:
            backup.store_file(name, files.read(file))
        backup.warnings += plan.warnings
        return backup.publish(time=cut.at, label=wish.label, capture=plan.capture)


def _open_jobs(
    repository: Repository, folder: Path, cut: _Cut, below: Point, plan: CommitPlan
) -> Iterator[DiskJob]:
    cache = ChunkCache(_CACHE_BYTES)
    for number, disk in enumerate(below.disks):
        base = repository.open_disk(disk, cache)
        # Of a deleted disk no layer counts: it is what lies below.
        floor = cut.through if number in plan.deleted else cut.record.floor
        source = CutDisk(folder / DISKS / str(number), base, floor, cut.through)
        source.name = f"live session {cut.record.name}, disk{number}"
        yield DiskJob(disk.key, source, source.written(), resizable=True)


def _go_on(repository: Repository, home: SessionHome, cut: _Cut, point: Point) -> None:
    """Held first, then stood upon; what a crash leaves is one hold too many, never one too few."""
    record, sealed = cut.record, repository.sealed
    why = f"live session {record.name} on {socket.gethostname()}"
    put_hold(sealed, Hold(point.point_id, record.session_id, why, repository.clock()))
    try:
        with hold(home, record.name) as holder:
            if holder.session_id != record.session_id:
                raise SessionDamaged(f"the session {record.name} is another one than was cut")
            holder.rebase(point.point_id.hex(), cut.through)
    except BackpointError as error:
        raise SessionInUse(
            f"{point_name(point)} is made and whole, but the session does not stand on it yet "
            f"({error}); it has lost nothing, and the next commit tries again"
        ) from error
    drop_holds(sealed, record.session_id, keep=[point.point_id])
