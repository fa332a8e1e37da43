"""One backup of one VM: its disks are read and stored, then the point is made.

Packs, then index segments, then the point, whose order with others is kept in `publication.py`.
What fails before that leaves orphans, which the next session finds again. Knows disks as sources;
how a source came to be, and what the user is told, is the caller's business.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from backpoint_repo import version
from backpoint_repo.blob_writer import BlobWriter
from backpoint_repo.capture import Capture, refusal
from backpoint_repo.catalog import Catalog
from backpoint_repo.chunking import Cutter
from backpoint_repo.config_cut import cut_config_file
from backpoint_repo.disk_audit import Audit, audit_disk
from backpoint_repo.disk_ingest import Advance, DiskIngest
from backpoint_repo.disk_map import Geometry
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    UnknownFormat,
    UsageError,
)
from backpoint_repo.format import MAX_DISK_SIZE
from backpoint_repo.index import Index
from backpoint_repo.leaf_scan import plan_full
from backpoint_repo.node_reader import NodeReader
from backpoint_repo.pack_stream import uploads_at_once
from backpoint_repo.parent_point import ParentPoint, ReadPlan
from backpoint_repo.point import (
    ConfigFile,
    Disk,
    Point,
    Traffic,
    is_calendar_time,
)
from backpoint_repo.publication import Publication, PublicationParts
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.source.contract import ImageSource

WORKERS: Final = os.cpu_count() or 1


@dataclass(frozen=True)
class SessionParts:
    """What a session needs of a repository. clock: seconds since 1970."""

    sealed: SealedStore
    index: Index
    catalog: Catalog
    nodes: NodeReader
    cutter: Cutter
    clock: Callable[[], float]


@dataclass(frozen=True)
class DiskJob:
    """One disk to store. changed: (offset, length) in bytes since the parent, None: unknown.

    resizable: `changed` is right even where the disk has another size than in the parent; what
    neither has nor names is zero."""

    key: str
    source: ImageSource
    changed: Sequence[tuple[int, int]] | None = None
    resizable: bool = False


class BackupSession:
    """A context manager for one thread; leaving it without `publish` makes no point."""

    def __init__(self, parts: SessionParts, vm: str, parent: Point | None) -> None:
        """Put the lease, then read trash, then learn what is stored (the order matters).

        parent: the point to stand on, of whatever VM. Raises what a store raises.
        """
        if not vm or not _is_text(vm):
            raise UsageError(f"a VM needs a name, in UTF-8: {vm!r}")
        self._parts = parts
        self._vm = vm
        self.parent = parent
        self._parent = ParentPoint(parts.sealed, parts.index, parts.nodes, self.parent)
        own = PublicationParts(parts.sealed, parts.index, parts.catalog, parts.clock)
        self._publication = Publication(own, self.parent)
        self._lease = self._publication.lease
        self.point_id = self._publication.point_id
        self.warnings = self._publication.warnings
        self._workers = ThreadPoolExecutor(WORKERS, "seal")
        self._uploads = ThreadPoolExecutor(uploads_at_once(parts.sealed.store), "upload")
        try:
            self._writer = BlobWriter(
                parts.sealed, parts.index, self.point_id, self._workers, self._uploads
            )
        except BaseException:
            self._close()
            raise
        self._disks: list[Disk] = []
        self._files: list[ConfigFile] = []
        self._read = 0

    def __enter__(self) -> BackupSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def store_disk(self, job: DiskJob, advance: Advance) -> None:
        """Read and store one disk; the order of calls is the order of disks.

        Raises SourceError and what a store raises.
        """
        if job.source.size > MAX_DISK_SIZE:
            raise UsageError(f"{job.source.name} is larger than {MAX_DISK_SIZE} bytes")
        if not _is_text(job.key) or any(disk.key == job.key for disk in self._disks):
            raise UsageError(f"a disk's key must be UTF-8 and used once in a point: {job.key!r}")
        with self._publication.all_or_nothing():
            self._publication.refuse_lost_lease()
            self._disks.append(self._ingest(job, advance))
        at = len(self._disks) - 1

        def again() -> None:
            self._disks[at] = self._ingest(job, lambda _: None)

        self._publication.redo.append(again)

    def audit(self, job: DiskJob, sample: Sequence[tuple[int, int]]) -> Audit | str:
        """Compare parts of a disk that did not change with the parent, or why nothing can be.

        sample: (offset, length) in bytes; chunks that `job.changed` touches are left out. Raises
        SourceError.
        """
        base = self._parent.map_of(job.key, job.source)
        if isinstance(base, str):
            return base
        id_key = self._parts.sealed.keyring.chunk_id_key
        try:
            return audit_disk(job.source, base, sample, job.changed or (), id_key)
        except (ObjectMissing, ObjectDamaged, UnknownFormat) as error:
            return f"the earlier point's map has gaps: {error}"

    def store_file(self, name: str, data: bytes) -> None:
        """Store a configuration file of the VM. Raises UsageError where it is too large."""
        id_key = self._parts.sealed.keyring.chunk_id_key
        file, pieces = cut_config_file(_as_text(name), data, id_key)

        def store() -> None:
            self._writer.finish(self._writer.start(file.chunks, pieces.__getitem__))

        with self._publication.all_or_nothing():
            store()
        self._publication.redo.append(store)
        self._files.append(file)

    def publish(
        self,
        *,
        time: float | None,
        label: str,
        consistency: str = "crash",
        capture: Capture | None = None,
        generation: int | None = None,
    ) -> Point:
        """Make the point exist. time: the moment it shows, default: when the session began.
        generation: a copy's, which is the original's; by default one more than the parent's.

        Raises SessionRevoked where a collector took this session for dead, UsageError where no
        calendar shows `time`. May be tried again after StoreUnavailable.
        """
        shown = float(self._publication.started if time is None else time)
        if not is_calendar_time(shown):
            raise UsageError(f"a point cannot be of the time {shown}")
        capture = {} if capture is None else capture
        if why := refusal(capture):
            raise UsageError(f"what is to be recorded of the point's making {why}")
        with self._publication.all_or_nothing():
            self._publication.settle(self._writer.flush)
        written = self._writer.written
        point = Point(
            self.point_id,
            self._vm,
            shown,
            float(self._parts.clock()),
            _as_text(label),
            tuple(self._disks),
            tuple(self._files),
            self.parent.point_id if self.parent else None,
            self._generation() if generation is None else generation,
            Traffic(self._read, written.new_bytes, written.stored_bytes),
            max(0.0, float(self._parts.clock() - self._publication.started)),
            consistency,
            tuple(_as_text(warning) for warning in self.warnings),
            f"backpoint {version.VERSION}",
            capture,
        )
        return self._publication.put(point)

    def _generation(self) -> int:
        return self.parent.generation + 1 if self.parent else 0

    def _ingest(self, job: DiskJob, advance: Advance) -> Disk:
        plan = self._plan(job)
        geometry = Geometry(job.source.size)
        id_key = self._parts.sealed.keyring.chunk_id_key
        ingest = DiskIngest(self._writer, self._parts.cutter, id_key, self._workers, advance)
        stored = ingest.run(job.source, geometry, plan.base, plan.leaves)
        self._read += stored.read
        name = _as_text(job.source.name)
        return Disk(job.key, geometry.size, stored.root, stored.allocated, name)

    def _plan(self, job: DiskJob) -> ReadPlan:
        if job.changed is not None:
            plan = self._plan_changed(job, job.changed)
            if isinstance(plan, ReadPlan):
                return plan
            self._warn(f"{job.key}: changed-block list not used, read in full: {plan}")
        geometry = Geometry(job.source.size)
        return ReadPlan(None, plan_full(geometry, job.source.extents(0, geometry.size)))

    def _plan_changed(self, job: DiskJob, changed: Sequence[tuple[int, int]]) -> ReadPlan | str:
        if not job.resizable:
            return self._parent.plan_increment(job.key, job.source, changed)
        save = self._writer.save_node
        return self._parent.plan_resized(job.key, job.source, changed, save)

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _close(self) -> None:
        self._publication.close()
        self._workers.shutdown(cancel_futures=True)
        self._uploads.shutdown(cancel_futures=True)


def _is_text(name: str) -> bool:
    """False for a name that came out of bytes that are not UTF-8: no record can hold it."""
    return _as_text(name) == name


def _as_text(name: str) -> str:
    """Bytes that are no text, as backslash sequences."""
    return name.encode("utf-8", "backslashreplace").decode()
