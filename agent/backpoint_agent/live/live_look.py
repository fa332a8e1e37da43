"""What there is to see of a VM that runs from a session, and of the datastore it runs from."""

from __future__ import annotations

from typing import Any

from backpoint_agent.effect import Effect
from backpoint_agent.errors import ObjectGone
from backpoint_agent.live.judgement import LiveSight
from backpoint_agent.live.live_facts import LiveFacts, datastore_facts, live_facts
from backpoint_agent.live.nas_datastore import NasDatastore, find_mounted
from backpoint_agent.live.nas_mounting import read_nas_datastores
from backpoint_agent.live.vmx_plan import MARK
from backpoint_agent.machine import Machine
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.property_sweep import reference_of
from backpoint_agent.vsphere.running_tasks import unfinished_tasks
from backpoint_agent.vsphere.vcenter import VCenter

_MOVING = ("relocate", "migrate", "register", "poweron", "destroy")
"""Parts of the names of tasks that may change where it is, or whether it is there."""


def look_at_live(vcenter: VCenter, effect: Effect, *, fresh: bool) -> LiveSight:
    """One look. Raises as `VCenter.call`."""
    facts = live_facts(effect.facts)
    machine = find_live(vcenter, facts)
    names = names_of_export(vcenter, facts)
    if machine is None:
        return LiveSight(None, False, names, _tasks_of_folder(vcenter, facts.folder), fresh)
    marked = _has_mark(vcenter, machine.moref, effect.number)
    managed = vcenter.object("VirtualMachine", machine.moref)
    return LiveSight(machine, marked, names, _running(vcenter, managed), fresh)


def names_of_export(vcenter: VCenter, facts: LiveFacts) -> frozenset[str]:
    """What its datastores are called now."""
    datastores = read_nas_datastores(vcenter)
    return frozenset(each.name for each in datastores if each.remote == facts.remote)


def look_at_datastore(vcenter: VCenter, effect: Effect) -> NasDatastore | None:
    """The export as the host has it mounted. Raises as `VCenter.call`."""
    facts = datastore_facts(effect.facts)
    return find_mounted(read_nas_datastores(vcenter), facts.remote, facts.host)


def find_live(vcenter: VCenter, facts: LiveFacts) -> Machine | None:
    """The VM of the moref that was learned, or the one that is registered with our .vmx."""
    if facts.moref and (known := _machine(vcenter, facts.moref)) is not None:
        return known
    if not facts.datacenter or not facts.vmx:
        return None
    index = vcenter.content.searchIndex
    datacenter = vcenter.object("Datacenter", facts.datacenter)
    found = vcenter.call(
        f"looking for {facts.vmx}",
        lambda: index.FindByDatastorePath(datacenter=datacenter, path=facts.vmx),
    )
    return _machine(vcenter, reference_of(found)) if found is not None else None


def _machine(vcenter: VCenter, moref: str) -> Machine | None:
    try:
        return read_machine(vcenter, moref)
    except ObjectGone:
        return None


def _has_mark(vcenter: VCenter, moref: str, number: str) -> bool:
    machine = vcenter.object("VirtualMachine", moref)
    config = vcenter.call("reading the VM's settings", lambda: machine.config)
    settings = list(config.extraConfig or ()) if config else []
    return any(s.key == MARK and str(s.value) == number for s in settings)


def _running(vcenter: VCenter, entity: Any) -> tuple[str, ...]:
    names = unfinished_tasks(vcenter, entity)
    return tuple(name for name in names if any(part in name.lower() for part in _MOVING))


def _tasks_of_folder(vcenter: VCenter, path: str) -> tuple[str, ...]:
    index = vcenter.content.searchIndex
    folder = vcenter.call(
        f"looking for {path}", lambda: index.FindByInventoryPath(inventoryPath=path)
    )
    return _running(vcenter, folder) if folder is not None else ()
