"""Which VMs and names of a vCenter a restore is about.

Decides how the original VM is known (instanceUuid and vCenter), how a user may name another, and
which names are free in a folder. Changes nothing.
"""

from __future__ import annotations

from typing import Final

from backpoint_agent.inventory_names import unescape
from backpoint_agent.machine import Machine
from backpoint_agent.restoring.destination import Destination
from backpoint_agent.restoring.stored_machine import StoredMachine
from backpoint_agent.vsphere.disk_facts import text_of
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.places import WANTED, Places
from backpoint_agent.vsphere.property_sweep import reference_of, sweep_below
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import UsageError

_TRIES: Final = 100
_SHOWN_MAX: Final = 10


def find_origin(vcenter: VCenter, stored: StoredMachine) -> Machine | None:
    """The VM that the point was made of, if it still is in this vCenter. Raises as `call`."""
    if not stored.instance or stored.vcenter != vcenter.uuid:
        return None
    index = vcenter.content.searchIndex
    found = vcenter.call(
        "looking for the original VM",
        lambda: index.FindByUuid(uuid=stored.instance, vmSearch=True, instanceUuid=True),
    )
    return None if found is None else read_machine(vcenter, reference_of(found))


def find_named(vcenter: VCenter, wanted: str) -> Machine:
    """The VM of this name, inventory path or moref.

    Raises UsageError where there is none or several, and as `VCenter.call`.
    """
    asked = {**WANTED, "VirtualMachine": ("name", "parent")}
    swept = vcenter.call(f"looking for {wanted}", lambda: list(sweep_below(vcenter.content, asked)))
    places = Places(swept)
    found = {}
    for item in swept:
        if item.kind == "VirtualMachine":
            path = f"{places.path(reference_of(item.properties.get('parent')))}/"
            path += text_of(item.properties.get("name"))
            if wanted in (item.moref, path, unescape(path.rpartition("/")[2])):
                found[item.moref] = path
    if len(found) == 1:
        return read_machine(vcenter, next(iter(found)))
    if found:
        paths = ", ".join(sorted(found.values())[:_SHOWN_MAX])
        raise UsageError(f"there are several VMs {wanted!r}; name one by its path: {paths}")
    raise UsageError(f"vCenter {vcenter.name} has no VM {wanted!r}")


def choose_name(
    vcenter: VCenter, destination: Destination, wanted: str | None, origin: str, *, exists: bool
) -> str:
    """The new VM's name, as vCenter keeps it. origin: the original's name; exists: it is there.

    Raises UsageError, proposing a free one, where the wanted name is taken.
    """
    name = wanted or (f"{origin}-restored" if exists else origin)
    if not name.strip() or len(name) > 80:
        raise UsageError(f"{name!r} cannot be a VM's name: 1 to 80 characters")
    if not _is_taken(vcenter, destination, name):
        return kept_name(name)
    free = next(
        (
            proposal
            for number in range(2, _TRIES)
            if not _is_taken(vcenter, destination, proposal := f"{name}-{number}")
        ),
        None,
    )
    hint = f"; --name {free} is free" if free else ""
    raise UsageError(f"there is something named {name!r} in {destination.folder.path}{hint}")


def kept_name(name: str) -> str:
    """As vCenter keeps a name: "/", "\\" and "%" would be parts of a path."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def _is_taken(vcenter: VCenter, destination: Destination, name: str) -> bool:
    index = vcenter.content.searchIndex
    path = f"{destination.folder.path}/{kept_name(name)}"
    found = vcenter.call(
        f"looking whether {name} is free", lambda: index.FindByInventoryPath(inventoryPath=path)
    )
    return found is not None
