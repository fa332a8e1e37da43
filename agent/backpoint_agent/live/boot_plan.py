"""What a boot in a vCenter will be, found out before anything is done: place, name, disks, cards.

Reads vCenter and the point, changes nothing. The plan itself is carried out by `booting.py`.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any, Final

from backpoint_agent.errors import TaskFailed
from backpoint_agent.inventory_names import unescape
from backpoint_agent.live.booting import LivePlan
from backpoint_agent.live.disk_slots import disks_by_slot
from backpoint_agent.live.export_place import ExportPlace
from backpoint_agent.live.live_place import LivePlace, PlaceWishes, plan_live_place
from backpoint_agent.live.made_vmx import make_vmx
from backpoint_agent.live.vmx_plan import VmxChoices
from backpoint_agent.live.vmx_text import Vmx, parse_vmx
from backpoint_agent.restoring.description import (
    FILE_NAME,
    MachineDescription,
    decode_description,
)
from backpoint_agent.restoring.finding import kept_name
from backpoint_agent.restoring.places import read_possible_places
from backpoint_agent.settings.model import LiveSettings
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.property_sweep import reference_of
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import UsageError
from backpoint_repo.point import Point
from backpoint_repo.point_record import point_name
from backpoint_repo.repository import Repository

_NAME_MAX: Final = 80
_TRIES: Final = 100
_STEM_MAX: Final = 60
_STRANGE: Final = re.compile(r"[^A-Za-z0-9._+-]+")
_SAFE_FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._+()-]{0,99}\.vmx")


@dataclass(frozen=True)
class BootWishes:
    """What the user said. name: of the VM, None for the original's with -live. memory: MiB."""

    place: PlaceWishes
    name: str | None = None
    isolated: bool = False
    same_machine: bool = False
    power_on: bool = True
    memory: int | None = None
    cores: int | None = None


def plan_boot(
    vcenter: VCenter,
    repository: Repository,
    point: Point,
    export: ExportPlace,
    settings: LiveSettings,
    wishes: BootWishes,
) -> tuple[LivePlan, tuple[str, ...]]:
    """The plan, and what the user should know of it.

    Raises UsageError, ObjectDamaged, and as `VCenter.call`.
    """
    vmx, file_name, description = _read_hardware(repository, point)
    place = plan_live_place(read_possible_places(vcenter), point.capture, wishes.place)
    name = _choose_name(vcenter, place, wishes.name, point.vm)
    connected, note = _plan_networks(vcenter, point, settings, wishes)
    session = session_name(point.vm)
    choices = VmxChoices(
        unescape(name),
        "",
        disks_by_slot(point, vmx, description),
        connected,
        wishes.same_machine,
        wishes.memory,
        wishes.cores,
    )
    plan = LivePlan(
        f"{point.vm}@{point.point_id.hex()}",
        session,
        name,
        vmx,
        file_name or f"{session}.vmx",
        choices,
        place,
        _datacenter(vcenter, place.host.datacenter),
        export,
        settings.datastore,
        wishes.power_on,
    )
    return plan, (note,) if note else ()


def session_name(vm: str) -> str:
    """One that nobody else has chosen or will: what it names may be thrown away."""
    stem = _STRANGE.sub("-", vm).lstrip(".+-")[:_STEM_MAX] or "vm"
    return f"{stem}-live-{secrets.token_hex(4)}"


def _read_hardware(
    repository: Repository, point: Point
) -> tuple[Vmx, str, MachineDescription | None]:
    """The stored .vmx and its name; or one made of machine.json, without a name."""
    files = {file.name: file for file in point.files}
    description = None
    if FILE_NAME in files:
        what = f"{FILE_NAME} of {point_name(point)}"
        description = decode_description(repository.read_file(files[FILE_NAME]), what)
    names = sorted(name for name in files if name.lower().endswith(".vmx"))
    if names:
        data = repository.read_file(files[names[0]])
        safe = names[0] if _SAFE_FILE.fullmatch(names[0]) else ""
        return parse_vmx(data, f"{names[0]} of {point_name(point)}"), safe, description
    if description is None:
        raise UsageError(
            f"{point_name(point)} has neither a .vmx nor {FILE_NAME}: what VM it was is not known"
        )
    return make_vmx(description), "", description


def _choose_name(vcenter: VCenter, place: LivePlace, wanted: str | None, origin: str) -> str:
    """As vCenter keeps it. Raises UsageError where the wanted one is taken."""
    name = wanted or f"{origin[: _NAME_MAX - 8]}-live"
    if not name.strip() or len(name) > _NAME_MAX or not name.isprintable():
        raise UsageError(f"{name!r} cannot be a VM's name: 1 to {_NAME_MAX} characters")
    proposals = [name, *(f"{name}-{number}" for number in range(2, _TRIES))]
    free = next((n for n in proposals if not _is_taken(vcenter, place, n)), None)
    if free is None or (wanted and free != wanted):
        hint = f"; --name {free} is free" if free else ""
        raise UsageError(f"there is something named {name!r} in {place.folder.path}{hint}")
    return kept_name(free)


def _is_taken(vcenter: VCenter, place: LivePlace, name: str) -> bool:
    index = vcenter.content.searchIndex
    path = f"{place.folder.path}/{kept_name(name)}"
    found = vcenter.call(
        f"looking whether {name} is free", lambda: index.FindByInventoryPath(inventoryPath=path)
    )
    return found is not None


def _plan_networks(
    vcenter: VCenter, point: Point, settings: LiveSettings, wishes: BootWishes
) -> tuple[bool, str]:
    """Whether cards are connected, and why not where that may surprise."""
    if wishes.isolated or settings.networks == "disconnected":
        return False, ""
    if settings.networks == "connected":
        return True, ""
    state = _state_of_origin(vcenter, point.capture)
    if state in ("gone", "poweredOff"):
        return True, ""
    why = (
        "whether the original VM runs cannot be seen in this vCenter"
        if state == "unknown"
        else f"the original VM is {state}"
    )
    return False, f"network cards stay disconnected: {why} (`networks` in [live] decides)"


def _state_of_origin(vcenter: VCenter, capture: Any) -> str:
    """Its power state, "gone", or "unknown"."""
    instance = capture.get("instance")
    if capture.get("vcenter") != vcenter.uuid or not isinstance(instance, str) or not instance:
        return "unknown"
    index = vcenter.content.searchIndex
    found = vcenter.call(
        "looking for the original VM",
        lambda: index.FindByUuid(uuid=instance, vmSearch=True, instanceUuid=True),
    )
    return "gone" if found is None else read_machine(vcenter, reference_of(found)).power


def _datacenter(vcenter: VCenter, path: str) -> str:
    index = vcenter.content.searchIndex
    found = vcenter.call(
        f"looking for {path}", lambda: index.FindByInventoryPath(inventoryPath=path)
    )
    if found is None:
        raise TaskFailed(f"vCenter {vcenter.name} does not find its datacenter {path}")
    return reference_of(found)
