"""What looks left over although no ledger knows of it: a lost state folder, another agent, a bug.

Pure. Decides what is only told, because nothing proves that it is ours, and what is done when the
user asks for it by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from backpoint_agent import snapshot_name
from backpoint_agent.machine import Machine, SnapshotNote
from backpoint_agent.reaping.step import Step

ORPHAN_AGE_S: Final = 86_400.0
"""A younger one may belong to a run of an agent on another machine."""

_DELTA: Final = re.compile(r"-\d{6}\.vmdk$")


@dataclass(frozen=True)
class Wishes:
    """What the user asked for. now: seconds since 1970."""

    now: float
    orphans: bool = False
    consolidate: bool = False


def plan_strays(
    machines: Iterable[Machine],
    open_numbers: Collection[str],
    busy: Collection[str],
    wishes: Wishes,
) -> list[Step]:
    """Steps for what is found on the VMs of one vCenter.

    open_numbers: of all open effects, of living processes too. busy: morefs of VMs that have one:
    their delta disks and snapshots are being dealt with.
    """
    steps: list[Step] = []
    for machine in machines:
        steps += _orphans(machine, open_numbers, wishes)
        if machine.moref not in busy:
            steps += _merging(machine, wishes)
    return steps


def _orphans(machine: Machine, open_numbers: Collection[str], wishes: Wishes) -> Iterator[Step]:
    for snapshot in machine.snapshots:
        number = snapshot_name.parse_name(snapshot.name)
        if number is None or number in open_numbers:
            continue
        doubt = _doubt(snapshot, wishes)
        yield Step(
            "tell" if doubt else "remove-snapshot",
            machine.moref,
            machine.name,
            f"remove snapshot {snapshot.name}",
            doubt or "it has our name and mark, is older than a day, and no ledger knows it",
            "by name" if snapshot_name.parse_description(snapshot.description) else "likely",
            snapshot.moref,
        )


def _doubt(snapshot: SnapshotNote, wishes: Wishes) -> str:
    """Why the snapshot is not removed, "" where it may be."""
    mark = snapshot_name.parse_description(snapshot.description)
    if mark is None:
        return "it has our name, but its description is not ours: not touched"
    made_by = f"made by an agent on {mark.host}"
    if wishes.now - max(snapshot.created, mark.at) < ORPHAN_AGE_S:
        return f"{made_by}, less than a day ago: a run may be using it"
    if not wishes.orphans:
        return f"{made_by}, and this ledger does not know it; --orphans removes it"
    return ""


def _merging(machine: Machine, wishes: Wishes) -> Iterator[Step]:
    deltas = [d.file for d in machine.disks if d.has_parent or _DELTA.search(d.file)]
    if machine.consolidation_needed:
        why = "vCenter says that its disks need consolidation"
    elif deltas and not machine.snapshots:
        why = f"it runs on {deltas[0]}, a delta disk, without any snapshot (or is a linked clone)"
    else:
        return
    if not wishes.consolidate:
        why += "; --consolidate does it"
    yield Step(
        "consolidate" if wishes.consolidate else "tell",
        machine.moref,
        machine.name,
        "consolidate its disks",
        why,
        "likely",
    )
