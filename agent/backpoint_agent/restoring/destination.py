"""Where the restored VM will be: folder, pool, host, and a datastore for each of its disks.

Pure. What the user names is taken; for the rest the origin's places, as long as they exist. Nothing
is guessed across: what is missing is asked for, with what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from backpoint_agent.inventory_names import path_matches
from backpoint_agent.restoring.machine_plan import Network
from backpoint_agent.restoring.places import Datastore, Host, Place, Pool, PossiblePlaces
from backpoint_repo.errors import UsageError
from backpoint_repo.sizes import format_size

_SHOWN_MAX: Final = 20
P = TypeVar("P", bound=Place)


@dataclass(frozen=True)
class Origin:
    """The VM's places when it was backed up, as the point recorded them: paths, and the host's
    name. files: of the disks, by their keys in the point, and of the VM itself as ""."""

    folder: str = ""
    pool: str = ""
    host: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlaceChoices:
    """Names, or paths and their ends, that the user gave."""

    folder: str | None = None
    pool: str | None = None
    host: str | None = None
    datastore: str | None = None


@dataclass(frozen=True)
class Destination:
    """datastores: names, by the disks' keys in the point, and of the VM's own files as ""."""

    folder: Place
    pool: Pool
    host: Host
    datastores: Mapping[str, str]
    networks: tuple[Network, ...]

    @property
    def datacenter(self) -> str:
        """Its inventory path."""
        return self.folder.datacenter


def plan_destination(
    places: PossiblePlaces, origin: Origin, choices: PlaceChoices, needs: Mapping[str, int]
) -> Destination:
    """needs: bytes that each disk will take, by its key in the point.

    Raises UsageError where a place is missing, ambiguous, cut off from another, or too small.
    """
    folder = choose_place(
        [place for place in places.folders if "/vm" in place.path], choices.folder, origin.folder,
        "folder", "--folder",
    )  # fmt: skip
    here = folder.datacenter
    named_host = _named_host(places.hosts, choices.host, here)
    pool = _pool(places, choices, origin, named_host, here)
    datastores = _datastores(places, origin, choices, needs, here)
    host = named_host or _some_host(places.hosts, pool, origin, datastores.values())
    if host.compute != pool.compute:
        raise UsageError(f"the host {host.name} is not one of those of the pool {pool.path}")
    _refuse_unreachable(host, datastores.values())
    _refuse_full(datastores, needs)
    networks = [places.networks[moref] for moref in host.networks if moref in places.networks]
    return Destination(
        folder,
        pool,
        host,
        {key: datastore.name for key, datastore in datastores.items()},
        tuple(sorted(networks, key=lambda network: (network.name, network.moref))),
    )


def _named_host(hosts: Sequence[Host], wanted: str | None, datacenter: str) -> Host | None:
    if wanted is None:
        return None
    host = choose_place(
        [h for h in hosts if h.datacenter == datacenter], wanted, "", "host", "--host"
    )
    if not host.usable:
        raise UsageError(f"the host {host.name} is not connected, or in maintenance")
    return host


def _pool(
    places: PossiblePlaces,
    choices: PlaceChoices,
    origin: Origin,
    host: Host | None,
    datacenter: str,
) -> Pool:
    pools = [pool for pool in places.pools if pool.datacenter == datacenter]
    if choices.pool is None and host is not None:
        own = [pool for pool in pools if pool.compute == host.compute]
        same = [pool for pool in own if pool.path == origin.pool]
        roots = [pool for pool in own if pool.root]
        if same or roots:
            return (same or roots)[0]
    return choose_place(pools, choices.pool, origin.pool, "resource pool", "--pool")


def _datastores(
    places: PossiblePlaces,
    origin: Origin,
    choices: PlaceChoices,
    needs: Mapping[str, int],
    datacenter: str,
) -> dict[str, Datastore]:
    """By disk key, and "" for the VM's own files."""
    there = [found for found in places.datastores if found.datacenter == datacenter]
    chosen = {}
    for key in ("", *needs):
        file = origin.files.get(key) or origin.files.get("", "")
        name = file[1:].partition("] ")[0] if file.startswith("[") else ""
        before = next((found.path for found in there if found.name == name), name)
        chosen[key] = choose_place(there, choices.datastore, before, "datastore", "--datastore")
    return chosen


def _some_host(
    hosts: Sequence[Host], pool: Pool, origin: Origin, datastores: Iterable[Datastore]
) -> Host:
    """The origin's if it will do, else the first that reaches all datastores."""
    needed = {datastore.moref for datastore in datastores}
    able = [
        host
        for host in hosts
        if host.compute == pool.compute and host.usable and needed <= host.datastores
    ]
    if not able:
        names = ", ".join(sorted({datastore.name for datastore in datastores}))
        raise UsageError(f"no host of the pool {pool.path} is in order and reaches {names}")
    return min(able, key=lambda host: (host.name != origin.host, host.path))


def _refuse_unreachable(host: Host, datastores: Iterable[Datastore]) -> None:
    for datastore in datastores:
        if datastore.moref not in host.datastores or not datastore.accessible:
            raise UsageError(f"the host {host.name} does not reach the datastore {datastore.name}")


def _refuse_full(datastores: Mapping[str, Datastore], needs: Mapping[str, int]) -> None:
    wanted: dict[str, int] = {}
    for key, size in needs.items():
        moref = datastores[key].moref
        wanted[moref] = wanted.get(moref, 0) + size
    for datastore in datastores.values():
        need = wanted.get(datastore.moref, 0)
        if need > datastore.free:
            raise UsageError(
                f"the datastore {datastore.name} has {format_size(datastore.free)} free and the "
                f"disks need {format_size(need)}; choose another with --datastore"
            )


def choose_place(there: Sequence[P], wanted: str | None, before: str, what: str, option: str) -> P:
    """The one the user means, or the origin's (before: its path).

    what, option: for the message. Raises UsageError where there is none or several.
    """
    if wanted is None:
        same = [place for place in there if before and place.path == before]
        if len(same) == 1:
            return same[0]
        was = f"the {what} {before!r} of the original VM is not here" if before else (
            f"the point does not say the {what}"
        )  # fmt: skip
        raise UsageError(f"{was}; say {option}; there are: {_shown(there, lambda p: p.path)}")
    found = [place for place in there if wanted in (place.path, place.moref)] or [
        place for place in there if path_matches(place.path, place.datacenter, wanted)
        and path_matches(place.name, "", wanted.rpartition("/")[2])
    ]  # fmt: skip
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{wanted!r} may be any of: {_shown(found, lambda p: p.path)}")
    raise UsageError(f"there is no {what} {wanted!r}; there are: {_shown(there, lambda p: p.path)}")


def _shown(there: Sequence[P], name: Callable[[P], str]) -> str:
    names = sorted(map(name, there))
    return (", ".join(names[:_SHOWN_MAX]) or "none") + (", ..." if len(names) > _SHOWN_MAX else "")
