"""Where in vCenter a VM that runs from the backup goes: the host named, a folder, a pool. Pure.

The origin's folder and pool are taken where that host can have them; else its datacenter's and its
own topmost ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backpoint_agent.restoring.destination import choose_place
from backpoint_agent.restoring.places import Host, Place, Pool, PossiblePlaces
from backpoint_repo.errors import UsageError


@dataclass(frozen=True)
class PlaceWishes:
    """Names, paths or their ends, that the user gave."""

    host: str
    folder: str | None = None
    pool: str | None = None


@dataclass(frozen=True)
class LivePlace:
    """All of one datacenter; the pool is one of the host's."""

    host: Host
    folder: Place
    pool: Pool


def plan_live_place(
    places: PossiblePlaces, capture: Mapping[str, Any], wishes: PlaceWishes
) -> LivePlace:
    """capture: of the point. Raises UsageError where a place is missing or ambiguous."""
    host = choose_place(places.hosts, wishes.host, "", "host", "--host")
    if not host.usable:
        raise UsageError(f"the host {host.name} is not connected, or in maintenance")
    root = f"{host.datacenter}/vm"
    folders = [place for place in places.folders if _is_below(place.path, root)]
    pools = [pool for pool in places.pools if pool.compute == host.compute]
    before = [folder.path for folder in folders if folder.path == capture.get("folder")]
    folder = choose_place(folders, wishes.folder, (before or [root])[0], "folder", "--folder")
    had = [pool.path for pool in pools if pool.path == capture.get("pool")]
    tops = [pool.path for pool in pools if pool.root]
    pool = choose_place(pools, wishes.pool, (had or tops or [""])[0], "resource pool", "--pool")
    return LivePlace(host, folder, pool)


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")
