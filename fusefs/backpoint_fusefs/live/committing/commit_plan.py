"""What of a cut session its new point keeps, says, and warns of. Pure.

Decides that a point is never less than it looks: what the machine did not see is refused, what is
left out is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from backpoint_fusefs.file_names import NAME_MAX
from backpoint_fusefs.inodes import CONFIG_FILES_MAX
from backpoint_fusefs.live.session_cut import CutFile, CutFolder
from backpoint_fusefs.live.session_record import SessionRecord
from backpoint_repo.errors import UsageError
from backpoint_repo.point import ORIGIN, Point

_OF_THE_RUN: Final = re.compile(r"(.*/)?(\.lck-.*|[^/]*\.lck(/.*)?|[^/]*\.vswp|\.nfs[0-9a-f]+)")
"""Locks, memory swapped out, files deleted while open: of the machine that runs, not of what it is.
A new session of the point would find itself locked."""
_IDENTITY: Final = (
    *("version", "kind", "vcenter", "instance", "uuid", "name", "moref", "datacenter", "folder"),
    *("pool", "host", "cluster", "guest_id", "guest_name", "vmx"),
)
"""What the agent records of which VM it was: its commit is restored as it is, and the name stays
that VM's. No change ids: they are not of this state."""
_NAMED_MAX: Final = 3
_TOLD_MAX: Final = 20


@dataclass(frozen=True)
class CommitPlan:
    """files: with the names they get in the point. deleted: numbers of disks whose file is gone."""

    vm: str
    files: tuple[tuple[str, CutFile], ...]
    deleted: frozenset[int]
    warnings: tuple[str, ...]
    capture: dict[str, Any]


def plan_commit(record: SessionRecord, below: Point, cut: CutFolder, vm: str | None) -> CommitPlan:
    """vm: whose point it becomes; None: the session's VM's. Raises UsageError."""
    _refuse_snapshots(cut.snapshot_files)
    if vm is not None and not 1 <= len(vm.encode("utf-8", "replace")) <= NAME_MAX:
        raise UsageError(f"a VM's name has 1 to {NAME_MAX} bytes; {vm!r} has not")
    name = record.vm if vm is None else vm
    there = {disk.number for disk in cut.disks}
    wanted = [file for file in cut.config_files if not _OF_THE_RUN.fullmatch(file.path)]
    kept = _distinct(wanted[:CONFIG_FILES_MAX])
    return CommitPlan(
        name,
        tuple(kept.items()),
        frozenset(range(len(below.disks))) - there,
        (
            *_about_disks(below, cut, there),
            *_about_files(cut, len(wanted) - len(kept)),
        ),
        _capture(record, below, same_vm=name == below.vm),
    )


def _refuse_snapshots(paths: tuple[str, ...]) -> None:
    if paths:
        raise UsageError(
            f"the machine in this session has snapshots ({_some(paths)}), so its disks alone are "
            "not what it sees: delete its snapshots (which consolidates its disks), or power it "
            "off and remove those files, then commit again"
        )


def _about_disks(below: Point, cut: CutFolder, there: set[int]) -> Iterator[str]:
    for number, disk in enumerate(below.disks):
        if number not in there:
            yield (
                f"{disk.key} was deleted in the session; the point has it as the point before had"
            )
    for named in cut.disks:
        if named.path != f"disk{named.number}-flat.vmdk":
            yield f"{named.path} was disk{named.number}-flat.vmdk, and is called so in the point"


def _about_files(cut: CutFolder, too_many: int) -> Iterator[str]:
    lost = [left for left in cut.left_out if not _OF_THE_RUN.fullmatch(left.path)]
    for left in lost[:_TOLD_MAX]:
        yield f"{left.path} ({left.size} bytes) is not in the point: {left.why}"
    if len(lost) > _TOLD_MAX:
        yield f"{len(lost) - _TOLD_MAX} more files are not in the point"
    if too_many:
        yield f"{too_many} small files are not in the point, which can hold {CONFIG_FILES_MAX}"


def _distinct(files: list[CutFile]) -> dict[str, CutFile]:
    """By the name each gets in the point."""
    named: dict[str, CutFile] = {}
    for file in files:
        name, number = file.point_name, 1
        while name in named:
            number += 1
            name = f"{file.point_name}~{number}"
        named[name] = file
    return named


def _capture(record: SessionRecord, below: Point, *, same_vm: bool) -> dict[str, Any]:
    known = below.capture.items() if same_vm else ()
    which = {name: fact for name, fact in known if name in _IDENTITY}
    origin = {
        "session": record.name,
        "session_id": record.session_id,
        "origin": record.origin,
        "started": record.created,
    }
    return {**which, ORIGIN: origin}


def _some(paths: tuple[str, ...]) -> str:
    more = len(paths) - _NAMED_MAX
    return ", ".join(paths[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
