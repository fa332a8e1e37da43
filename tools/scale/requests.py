"""A day's requests of one repository: what was counted on a small one, with as many pages of a
listing, and as many objects, as a large one has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from tools.scale.measured import Measured, Requests
from tools.scale.workload import Contents, Workload, leases_of_a_day, pages

STEPS: Final = ("backup", "prune", "collect")


def requests_of_a_day(
    fleet: Workload, held: Contents, counted: Measured
) -> Mapping[str, Counter[str]]:
    """By step, by verb. fleet: as of one repository. Each VM is backed up once, then points are
    pruned and space is given back."""
    return {
        "backup": _backups(fleet, held, counted.backup),
        "prune": _prune(fleet, held, counted.prune),
        "collect": _collect(fleet, held, counted.collect),
    }


def listed(held: Contents) -> Mapping[str, int]:
    """Keys below each folder; where none is named there are few."""
    return {
        "packs": held.packs,
        "nodes": held.node_packs,
        "index": held.segments,
        "points": held.points,
        "catalog": held.catalog,
        "leases": held.leases,
    }


def _backups(fleet: Workload, held: Contents, counted: Requests) -> Counter[str]:
    total = Counter[str]()
    for (verb, folder), number in _paged(counted, held).items():
        if (verb, folder) not in (("put", "packs"), ("put", "nodes"), ("put", "leases")):
            total[verb] += number * fleet.vms
    total["put"] += held.packs_day + held.node_packs_day + leases_of_a_day(fleet)
    return total


def _prune(fleet: Workload, held: Contents, counted: Requests) -> Counter[str]:
    """A point of each VM goes, and all points of a VM that loses one are read."""
    total = _lists(counted, held)
    total["get"] += held.points + held.catalog + held.leases
    total["delete"] += fleet.vms
    return total


def _collect(fleet: Workload, held: Contents, counted: Requests) -> Counter[str]:
    """Every point and every pack of nodes is read; of what is dead the directories, too."""
    total = _lists(counted, held)
    dead = held.packs_day + held.node_packs_day
    total["get"] += held.points + held.node_packs + dead
    total["delete"] += dead + held.leases
    if fleet.append_only:
        # Of each session: its last lease is read, its key is tried, and its point looked at.
        total["get"] += 2 * fleet.vms
        total["put"] += fleet.vms
    return total


def _lists(counted: Requests, held: Contents) -> Counter[str]:
    paged = _paged(counted, held)
    return Counter({"list": sum(n for (verb, _), n in paged.items() if verb == "list")})


def _paged(counted: Requests, held: Contents) -> Requests:
    keys = listed(held)
    return Counter(
        {
            (verb, folder): number * (pages(keys.get(folder, 0)) if verb == "list" else 1)
            for (verb, folder), number in counted.items()
        }
    )
