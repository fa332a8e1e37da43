"""A VM out of vCenter's properties, and a fresh look at one VM or one snapshot.

Decides which properties are read and what each becomes; the sweep of the inventory uses the same.
Whatever a server may answer gives a `Machine`: one that vCenter does not describe says so in its
hindrances. Refuses to know what is done with a VM.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pyVmomi import vim, vmodl

from backpoint_agent.errors import ObjectGone
from backpoint_agent.inventory_names import unescape
from backpoint_agent.live.vmx_plan import MARK
from backpoint_agent.machine import Identity, Machine, PowerState, SnapshotNote, VirtualDisk
from backpoint_agent.vsphere.disk_facts import DISKS_MAX, read_disks, text_of
from backpoint_agent.vsphere.places import WANTED as PLACES
from backpoint_agent.vsphere.places import Places
from backpoint_agent.vsphere.property_sweep import Swept, reference_of, sweep_from
from backpoint_agent.vsphere.vcenter import VCenter

_LIVE: Final = f'config.extraConfig["{MARK}"]'
"""One of some hundred advanced settings, by its key: all of them would double what is read."""
MACHINE: Final = (
    "name",
    "parent",
    "parentVApp",
    "resourcePool",
    "datastore",
    "customValue",
    "snapshot",
    "runtime.host",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.question",
    "runtime.consolidationNeeded",
    "capability.changeTrackingSupported",
    "guest.toolsRunningStatus",
    "config.uuid",
    "config.instanceUuid",
    "config.template",
    "config.version",
    "config.guestId",
    "config.guestFullName",
    "config.files.vmPathName",
    "config.changeTrackingEnabled",
    "config.ftInfo",
    "config.hardware.device",
    _LIVE,
    # What vCenter itself remembers of a VM that no host describes any more.
    "summary.config.uuid",
    "summary.config.instanceUuid",
    "summary.config.template",
    "summary.config.vmPathName",
)
NOT_ASKED: Final = "only a sweep of the whole inventory reads them"

_SNAPSHOTS_MAX: Final = 1024
"""vSphere allows 32 in a row; the tree may be broader."""
_ATTRIBUTES_MAX: Final = 1024
_DATASTORES_MAX: Final = 1024
_STATES: Final = {
    "disconnected": "its host is not connected to vCenter",
    "orphaned": "vCenter lists it and no host has it any more (orphaned)",
    "inaccessible": "its host cannot reach its files (inaccessible)",
    "invalid": "its configuration file is not valid (invalid)",
}
_POWER: Final[dict[str, PowerState]] = {
    "poweredOn": "poweredOn",
    "poweredOff": "poweredOff",
    "suspended": "suspended",
}
_SECONDARY: Final = 2
"""FaultToleranceConfigInfo.role; the primary is 1."""


@dataclass(frozen=True)
class Surroundings:
    """What a VM's properties refer to. attributes: names of custom attributes by key."""

    vcenter: str
    places: Places
    attributes: Mapping[int, str]


def read_machine(vcenter: VCenter, moref: str) -> Machine:
    """One VM as it is now, in one exchange; its tags are not asked for.

    Raises ObjectGone and as `VCenter.call`.
    """
    swept = vcenter.call(f"looking at {moref}", lambda: list(_sweep_machine(vcenter, moref)))
    found = [each for each in swept if each.moref == moref]
    if not found:
        raise ObjectGone(f"vCenter {vcenter.name} has no VM {moref} any more")
    around = Surroundings(vcenter.uuid, Places(swept), attribute_names(swept))
    return machine_of(found[0], around, (), NOT_ASKED)


def snapshot_disks(vcenter: VCenter, moref: str) -> tuple[VirtualDisk, ...]:
    """The disks as the snapshot froze them, with its change ids and frozen files.

    Raises ObjectGone and as `VCenter.call`.
    """
    snapshot = vcenter.object("VirtualMachineSnapshot", moref)
    wanted = {"VirtualMachineSnapshot": ("config.hardware.device",)}
    swept = vcenter.call(
        f"looking at {moref}",
        lambda: list(sweep_from(vcenter.content, [(snapshot, ())], wanted)),
    )
    if not swept:
        raise ObjectGone(f"vCenter {vcenter.name} has no {moref} any more")
    return read_disks(swept[0].properties.get("config.hardware.device"))


def machine_of(
    swept: Swept, around: Surroundings, tags: tuple[str, ...], no_tags: str | None
) -> Machine:
    """The VM that these properties tell of."""
    get = swept.properties.get
    places = around.places
    host = reference_of(get("runtime.host"))
    vapp, parent = reference_of(get("parentVApp")), reference_of(get("parent"))
    power = _POWER.get(str(get("runtime.powerState")), "poweredOff")
    current = getattr(get("snapshot"), "currentSnapshot", None)
    question = getattr(get("runtime.question"), "text", None)
    return Machine(
        moref=swept.moref,
        name=unescape(text_of(get("name"))),
        identity=Identity(around.vcenter, _config_text(swept, "instanceUuid")),
        uuid=_config_text(swept, "uuid"),
        datacenter=places.datacenter(parent or vapp),
        folder=places.path(parent) if parent else places.folder_of_vapp(vapp),
        pool=places.path(reference_of(get("resourcePool"))),
        host=places.name(host),
        cluster=places.cluster(host),
        datastores=_datastores(swept, places),
        tags=tags,
        attributes=_attributes(swept, around.attributes),
        template=bool(get("config.template", get("summary.config.template"))),
        power=power,
        hardware_version=_hardware_version(text_of(get("config.version"))),
        guest_id=text_of(get("config.guestId")),
        guest_name=text_of(get("config.guestFullName")),
        tools_running=get("guest.toolsRunningStatus") == "guestToolsRunning",
        vmx=text_of(get("config.files.vmPathName") or get("summary.config.vmPathName")),
        disks=read_disks(get("config.hardware.device")),
        snapshots=tuple(_snapshots(get("snapshot"))),
        current_snapshot=reference_of(current) or None,
        change_tracking=bool(get("config.changeTrackingEnabled")),
        change_tracking_supported=get("capability.changeTrackingSupported") is not False,
        consolidation_needed=bool(get("runtime.consolidationNeeded")),
        connected=get("runtime.connectionState") == "connected",
        question=None if question is None else text_of(question),
        hindrances=tuple(_hindrances(swept)),
        no_tags=no_tags,
        from_backup=text_of(getattr(get(_LIVE), "value", None)),
    )


def attribute_names(swept: list[Swept]) -> dict[int, str]:
    """Custom attributes by key, out of a sweep that met the manager of custom fields."""
    return {
        definition.key: text_of(definition.name)
        for found in swept
        if found.kind == "CustomFieldsManager"
        for definition in found.properties.get("field") or ()
    }


def attributes_start(content: Any) -> list[tuple[Any, list[Any]]]:
    """Where a sweep meets the manager of custom fields; nowhere on a server without."""
    manager = content.customFieldsManager
    return [] if manager is None else [(manager, [])]


ATTRIBUTES: Final = {"CustomFieldsManager": ("field",)}


def _sweep_machine(vcenter: VCenter, moref: str) -> Iterator[Swept]:
    traversal: Any = vmodl.query.PropertyCollector.TraversalSpec
    selection: Any = vmodl.query.PropertyCollector.SelectionSpec
    again = [selection(name="upwards")]
    machine, entity = vim.VirtualMachine, vim.ManagedEntity
    steps = [
        traversal(name="upwards", type=entity, path="parent", skip=False, selectSet=again),
        traversal(
            name="folder", type=vim.VirtualApp, path="parentFolder", skip=False, selectSet=again
        ),
        traversal(name="stores", type=machine, path="datastore", skip=False),
    ]
    for path in ("parentVApp", "resourcePool", "runtime.host"):
        onward = [*again, selection(name="folder")]
        steps.append(traversal(name=path, type=machine, path=path, skip=False, selectSet=onward))
    starts = [(vcenter.object("VirtualMachine", moref), steps)]
    starts += attributes_start(vcenter.content)
    wanted = {"VirtualMachine": MACHINE, **PLACES, **ATTRIBUTES}
    yield from sweep_from(vcenter.content, starts, wanted)


def _config_text(swept: Swept, name: str) -> str:
    get = swept.properties.get
    return text_of(get(f"config.{name}") or get(f"summary.config.{name}"))


def _datastores(swept: Swept, places: Places) -> tuple[str, ...]:
    references = swept.properties.get("datastore") or ()
    names = [places.name(reference_of(each)) for each in references[:_DATASTORES_MAX]]
    return tuple(name for name in names if name)


def _attributes(swept: Swept, names: Mapping[int, str]) -> dict[str, str]:
    values = swept.properties.get("customValue") or ()
    return {
        names[value.key]: text_of(getattr(value, "value", None))
        for value in values[:_ATTRIBUTES_MAX]
        if value.key in names
    }


def _hardware_version(version: str) -> int:
    found = re.fullmatch(r"vmx-(\d{1,4})", version)
    return int(found[1]) if found else 0


def _snapshots(info: Any) -> Iterator[SnapshotNote]:
    """Depth first, as the tree is shown."""
    waiting = [(node, 0) for node in reversed(getattr(info, "rootSnapshotList", None) or ())]
    for _ in range(_SNAPSHOTS_MAX):
        if not waiting:
            return
        node, depth = waiting.pop()
        created = node.createTime
        yield SnapshotNote(
            reference_of(node.snapshot),
            text_of(node.name),
            text_of(node.description),
            created.timestamp() if isinstance(created, datetime) else 0.0,
            depth,
        )
        waiting += [(child, depth + 1) for child in reversed(node.childSnapshotList or ())]


def _hindrances(swept: Swept) -> Iterator[str]:
    get = swept.properties.get
    state = text_of(get("runtime.connectionState"))
    if state != "connected":
        yield _STATES.get(state, f"vCenter is not connected with it ({state or 'no state told'})")
    elif "config.hardware.device" not in swept.properties:
        refused = next((why for path, why in swept.refused.items() if path == "config"), None)
        refused = refused or swept.refused.get("config.hardware.device")
        if refused:
            yield f"the account may not read its configuration ({refused})"
        else:
            yield "vCenter does not tell its configuration; it may just be being made"
    if getattr(get("config.ftInfo"), "role", None) == _SECONDARY:
        yield "it is the secondary of a fault tolerant VM: back up its primary"
    devices = get("config.hardware.device") or ()
    if sum(isinstance(device, vim.vm.device.VirtualDisk) for device in devices) > DISKS_MAX:
        yield f"vCenter lists more than {DISKS_MAX} disks, which no VM can have"
