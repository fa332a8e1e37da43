"""Where things stand in vCenter's inventory: folders, clusters, pools, hosts and datastores by
name, and their paths.

Decides how a path is put together out of parents. Names in paths stay as vCenter keeps them
("%2f"), so that its search index finds them. Refuses to know VMs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import dropwhile
from typing import Final

from backpoint_agent.inventory_names import unescape
from backpoint_agent.vsphere.disk_facts import text_of
from backpoint_agent.vsphere.property_sweep import Swept, reference_of

_DEPTH_MAX: Final = 64
"""Inventories nest some ten deep; a ring of parents would never end."""

WANTED: Final = {
    # Before its base type, and with all that is asked of that: whichever of the two a server takes
    # for a vApp, it says enough.
    "VirtualApp": ("name", "parent", "parentFolder"),
    "ResourcePool": ("name", "parent"),
    "ComputeResource": ("name", "parent"),
    "HostSystem": ("name", "parent"),
    "Folder": ("name", "parent"),
    "Datacenter": ("name", "parent"),
    "Datastore": ("name",),
}


@dataclass(frozen=True)
class _Place:
    """parent: of a vApp its pool. folder: of a vApp that stands in a folder, else ""."""

    kind: str
    name: str
    parent: str
    folder: str


class Places:
    """Every place of one sweep, by moref. A place that the account may not see has no name, and
    paths begin below it."""

    def __init__(self, swept: Iterable[Swept]) -> None:
        self._places = {
            found.moref: _Place(
                found.kind,
                text_of(found.properties.get("name")),
                reference_of(found.properties.get("parent")),
                reference_of(found.properties.get("parentFolder")),
            )
            for found in swept
        }
        self._paths: dict[str, str] = {}

    def name(self, moref: str) -> str:
        """As vSphere shows it; "" where it is not known."""
        place = self._places.get(moref)
        return unescape(place.name) if place else ""

    def path(self, moref: str) -> str:
        """From below the inventory's root: "DC0/vm/production"."""
        if moref not in self._paths:
            self._paths[moref] = _joined(self._upwards(moref))
        return self._paths[moref]

    def folder_of_vapp(self, moref: str) -> str:
        """Path that the VMs of a vApp have: "DC0/vm/production/shop"."""
        names: list[str] = []
        for place in self._upwards(moref):
            names.insert(0, place.name)
            if place.folder:
                return "/".join([self.path(place.folder), *names])
        return ""

    def datacenter(self, moref: str) -> str:
        """Path of the datacenter that the place is in."""
        return self._path_of_first(moref, "Datacenter")

    def cluster(self, host: str) -> str:
        """Path of the host's cluster, "" for a stand-alone host."""
        return self._path_of_first(host, "ClusterComputeResource")

    def _path_of_first(self, moref: str, kind: str) -> str:
        return _joined(dropwhile(lambda place: place.kind != kind, self._upwards(moref)))

    def _upwards(self, moref: str) -> Iterator[_Place]:
        for _ in range(_DEPTH_MAX):
            place = self._places.get(moref)
            if place is None:
                return
            yield place
            moref = place.parent


def _joined(upwards: Iterable[_Place]) -> str:
    names = [place.name for place in upwards if place.parent or place.kind != "Folder"]
    return "/".join(reversed(names))
