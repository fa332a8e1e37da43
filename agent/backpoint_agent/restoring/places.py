"""Where VMs can be in a vCenter, as a restore sees it: folders, pools, hosts, datastores, networks.

Decides what of them is asked for, in one sweep. Which ones are taken is for `destination.py`. The
answers are a stranger's: what does not fit together is left out, not believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from backpoint_agent.restoring.machine_plan import Network
from backpoint_agent.vsphere.disk_facts import text_of
from backpoint_agent.vsphere.places import WANTED, Places
from backpoint_agent.vsphere.property_sweep import Swept, Wanted, reference_of, sweep_below
from backpoint_agent.vsphere.vcenter import VCenter

_CONNECTION: Final = "runtime.connectionState"
_MAINTENANCE: Final = "runtime.inMaintenanceMode"
_ASKED: Final[Wanted] = {
    **WANTED,
    "ResourcePool": ("name", "parent", "owner"),
    "HostSystem": ("name", "parent", "datastore", "network", _CONNECTION, _MAINTENANCE),
    "Datastore": ("name", "parent", "summary.freeSpace", "summary.accessible"),
    "Network": ("name", "parent", "summary"),
    "DistributedVirtualSwitch": ("name", "parent", "uuid", "portgroup"),
}
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Anything with a path in the inventory: "DC0/vm/production". datacenter: its path."""

    moref: str
    name: str
    path: str
    datacenter: str


@dataclass(frozen=True)
class Host(Place):
    """compute: moref of its cluster, or its own compute resource. datastores, networks: morefs.

    usable: connected and not in maintenance.
    """

    compute: str
    datastores: frozenset[str]
    networks: frozenset[str]
    usable: bool


@dataclass(frozen=True)
class Pool(Place):
    """compute: moref of the compute resource it belongs to. root: it is the top one there."""

    compute: str
    root: bool


@dataclass(frozen=True)
class Datastore(Place):
    """free: bytes."""

    free: int
    accessible: bool


@dataclass(frozen=True)
class PossiblePlaces:
    """All there is. networks: by moref."""

    folders: tuple[Place, ...]
    hosts: tuple[Host, ...]
    pools: tuple[Pool, ...]
    datastores: tuple[Datastore, ...]
    networks: Mapping[str, Network]


def read_possible_places(vcenter: VCenter) -> PossiblePlaces:
    """One sweep. Raises as `VCenter.call`."""
    what = "reading where VMs can be"
    swept = vcenter.call(what, lambda: list(sweep_below(vcenter.content, _ASKED)))
    found = _Found(swept)
    switches = _switches(swept)
    return PossiblePlaces(
        found.all(("Folder",), lambda item, where: Place(*where)),
        found.all(("HostSystem",), _host),
        found.all(("ResourcePool", "VirtualApp"), _pool),
        found.all(("Datastore",), _datastore),
        {item.moref: _network(item, switches) for item in swept if item.kind in _NETWORKS},
    )


_NETWORKS: Final = ("Network", "DistributedVirtualPortgroup", "OpaqueNetwork")
Where = tuple[str, str, str, str]
"""moref, name, path, datacenter."""


class _Found:
    """What was swept, with its paths."""

    def __init__(self, swept: Iterable[Swept]) -> None:
        self._swept = list(swept)
        self._places = Places(self._swept)

    def all(self, kinds: Iterable[str], make: Callable[[Swept, Where], T | None]) -> tuple[T, ...]:
        made = (make(item, self._where(item)) for item in self._swept if item.kind in kinds)
        return tuple(place for place in made if place is not None)

    def _where(self, item: Swept) -> Where:
        places, moref = self._places, item.moref
        return moref, places.name(moref), places.path(moref), places.datacenter(moref)


def _host(item: Swept, where: Where) -> Host:
    facts = item.properties
    return Host(
        *where,
        compute=reference_of(facts.get("parent")),
        datastores=_morefs(facts.get("datastore")),
        networks=_morefs(facts.get("network")),
        usable=facts.get(_CONNECTION) == "connected" and facts.get(_MAINTENANCE) is False,
    )


def _pool(item: Swept, where: Where) -> Pool:
    owner = reference_of(item.properties.get("owner"))
    root = reference_of(item.properties.get("parent")) == owner
    return Pool(*where, compute=owner, root=root)


def _datastore(item: Swept, where: Where) -> Datastore:
    free = item.properties.get("summary.freeSpace")
    accessible = item.properties.get("summary.accessible") is True
    return Datastore(*where, free=free if isinstance(free, int) else 0, accessible=accessible)


def _switches(swept: Iterable[Swept]) -> dict[str, str]:
    """Uuid of its switch, by moref of a distributed portgroup."""
    return {
        portgroup: text_of(item.properties.get("uuid"))
        for item in swept
        for portgroup in _morefs(item.properties.get("portgroup"))
    }


def _network(item: Swept, switches: Mapping[str, str]) -> Network:
    summary = item.properties.get("summary")
    distributed = item.kind == "DistributedVirtualPortgroup"
    return Network(
        text_of(item.properties.get("name")),
        item.moref,
        # A portgroup's key is its moref; vSphere's own tools count on that.
        portgroup=item.moref if distributed else "",
        switch=switches.get(item.moref, "") if distributed else "",
        opaque_id=text_of(getattr(summary, "opaqueNetworkId", None)),
        opaque_type=text_of(getattr(summary, "opaqueNetworkType", None)),
    )


def _morefs(objects: Any) -> frozenset[str]:
    return frozenset(reference_of(found) for found in objects or ())
