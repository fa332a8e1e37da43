"""What there is to see of an open effect: its VM, and the object that it was.

Decides how long tasks of the dead process are waited for, because what they make would be missed.
Refuses to judge: that is `plan.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from backpoint_agent.effect import Effect
from backpoint_agent.errors import ObjectGone
from backpoint_agent.live.live_facts import live_facts
from backpoint_agent.live.live_look import look_at_datastore, look_at_live
from backpoint_agent.machine import Machine
from backpoint_agent.reaping.plan import Sight
from backpoint_agent.snapshot_name import make_name
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.running_tasks import unfinished_tasks
from backpoint_agent.vsphere.vcenter import VCenter

GRACE_S: Final = 30.0
"""What a process asked for as it died may still be on its way to vCenter, but not for longer."""
RESTORE_MARK: Final = "backpoint.restore"
"""Key in the extraConfig of a VM that a restore is making; its value is the ledger's number."""

_LOOK_EVERY_S: Final = 0.5
_INVENTORY_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_TASKS: Final = {
    "snapshot": ("snapshot", "consolidate"),
    "freeze": ("createsnapshot",),
    "hotadd": ("reconfigure", "reconfigvm"),
    "change-tracking": ("reconfigure", "reconfigvm"),
    "restored-machine": ("create", "register", "destroy", "import"),
}
"""Parts of the names of tasks that make or remove such an effect."""


@dataclass(frozen=True)
class Patience:
    """limit_s: for tasks that still run; grace_s: for what was asked for just before the crash."""

    stop: Stop
    limit_s: float
    grace_s: float = GRACE_S
    clock: Callable[[], float] = time.time


def look_at(vcenter: VCenter, effect: Effect, patience: Patience) -> Sight:
    """Look, and again while something may still appear. Raises as `VCenter.call`, Stopped."""
    start = time.monotonic()
    # A clock that was set back makes an old effect young: it is waited for once, not for ever.
    grace_s = min(patience.grace_s, max(0.0, patience.grace_s - _age(effect, patience)))
    while True:
        waited_s = time.monotonic() - start
        sight = _look_once(vcenter, effect, patience, fresh=waited_s < grace_s)
        waiting = bool(sight.tasks) or (sight.fresh and not _is_found(effect, sight))
        if not waiting or waited_s >= patience.limit_s:
            return sight
        patience.stop.wait(_LOOK_EVERY_S)


def find_machine(vcenter: VCenter, vm: str) -> Machine | None:
    """The VM of this moref, or None where it is gone. Raises as `VCenter.call`."""
    try:
        return read_machine(vcenter, vm) if vm else None
    except ObjectGone:
        return None


def _look_once(vcenter: VCenter, effect: Effect, patience: Patience, *, fresh: bool) -> Sight:
    age_s = _age(effect, patience)
    match effect.kind:
        case "hotadd":
            proxy = _find_proxy(vcenter, effect.facts.get("proxy", ""))
            tasks = _tasks_of_machine(vcenter, effect, proxy.moref) if proxy else ()
            # Looked at again: a task that ended in between has changed it.
            proxy = find_machine(vcenter, proxy.moref) if proxy else None
            return Sight(None, age_s, tasks, fresh, proxy=proxy)
        case "export-lease":
            return Sight(None, age_s, lease=_lease_state(vcenter, effect.facts.get("moref")))
        case "restored-machine":
            tasks = () if "moref" in effect.facts else _tasks_of_folder(vcenter, effect)
            made = _find_made(vcenter, effect)
            tasks = tasks if made is None else ()
            has_mark = made is not None and _has_mark(vcenter, made.moref, effect.number)
            return Sight(None, age_s, tasks, fresh, made=made, made_has_mark=has_mark)
        case "live-machine":
            live = look_at_live(vcenter, effect, fresh=fresh)
            return Sight(None, age_s, live.tasks, fresh, live=live)
        case "live-datastore":
            return Sight(None, age_s, (), fresh, nas=look_at_datastore(vcenter, effect))
        case _:
            tasks = _tasks_of_machine(vcenter, effect, effect.vm)
            return Sight(find_machine(vcenter, effect.vm), age_s, tasks, fresh)


def _tasks_of_machine(vcenter: VCenter, effect: Effect, vm: str) -> tuple[str, ...]:
    return _running_tasks(vcenter, effect, vcenter.object("VirtualMachine", vm))


def _age(effect: Effect, patience: Patience) -> float:
    return patience.clock() - effect.at


def _is_found(effect: Effect, sight: Sight) -> bool:
    """Whether there is nothing more to wait for, though it was asked for just now."""
    match effect.kind:
        case "snapshot":
            name = make_name(effect.number)
            seen = sight.machine is None or any(s.name == name for s in sight.machine.snapshots)
            return seen or "moref" in effect.facts
        case "hotadd":
            file = effect.facts.get("file")
            seen = sight.proxy is None or any(disk.file == file for disk in sight.proxy.disks)
            return seen or "device_key" in effect.facts
        case "restored-machine":
            return sight.made is not None or "moref" in effect.facts
        case "live-machine":
            # Only what is being begun may still appear.
            facts = live_facts(effect.facts)
            return sight.live.machine is not None or facts.state != "starting" or bool(facts.moref)
        case "live-datastore":
            return sight.nas is not None
        case _:
            return True


def _running_tasks(vcenter: VCenter, effect: Effect, entity: Any) -> tuple[str, ...]:
    """Names of the entity's unfinished tasks that may make or remove the effect."""
    parts = _TASKS.get(effect.kind, ())
    unfinished = unfinished_tasks(vcenter, entity)
    return tuple(n for n in unfinished if any(part in n.lower() for part in parts))


def _tasks_of_folder(vcenter: VCenter, effect: Effect) -> tuple[str, ...]:
    """Of the folder in which a restore makes its VM: there it is made."""
    path = effect.facts.get("folder", "")
    index = vcenter.content.searchIndex
    folder = vcenter.call(
        f"looking for {path}", lambda: index.FindByInventoryPath(inventoryPath=path)
    )
    return _running_tasks(vcenter, effect, folder) if folder is not None else ()


def _find_proxy(vcenter: VCenter, proxy: str) -> Machine | None:
    """The proxy VM by moref, or by the instanceUuid that the configuration calls it by."""
    if not _INVENTORY_UUID.fullmatch(proxy):
        return find_machine(vcenter, proxy)
    index = vcenter.content.searchIndex
    found = vcenter.call(
        "looking for the proxy VM",
        lambda: index.FindByUuid(uuid=proxy, vmSearch=True, instanceUuid=True),
    )
    return find_machine(vcenter, str(found._moId)) if found is not None else None


def _lease_state(vcenter: VCenter, moref: str | None) -> Literal["alive", "gone", "unknown"]:
    if moref is None:
        return "unknown"
    lease = vcenter.object("HttpNfcLease", moref)
    try:
        state = vcenter.call("looking at the export lease", lambda: lease.state)
    except ObjectGone:
        return "gone"
    return "gone" if str(state) in ("done", "error") else "alive"


def _find_made(vcenter: VCenter, effect: Effect) -> Machine | None:
    """The VM of the moref that was learned, of the instanceUuid that the restore chose, or else of
    the place and name."""
    if moref := effect.facts.get("moref"):
        return find_machine(vcenter, moref)
    index = vcenter.content.searchIndex
    if instance := effect.facts.get("instance"):
        found = vcenter.call(
            f"looking for the VM {instance}",
            lambda: index.FindByUuid(uuid=instance, vmSearch=True, instanceUuid=True),
        )
        return find_machine(vcenter, str(found._moId)) if found is not None else None
    folder, name = effect.facts.get("folder", ""), effect.facts.get("name", "")
    if not folder or not name:
        return None
    path = f"{folder}/{_escaped(name)}"
    found = vcenter.call(
        f"looking for {path}", lambda: index.FindByInventoryPath(inventoryPath=path)
    )
    # A folder may stand there too.
    is_machine = found is not None and type(found).__name__.endswith("VirtualMachine")
    return find_machine(vcenter, str(found._moId)) if is_machine else None


def _escaped(name: str) -> str:
    """A name as it stands in an inventory path."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def _has_mark(vcenter: VCenter, moref: str, number: str) -> bool:
    machine = vcenter.object("VirtualMachine", moref)
    config = vcenter.call("reading the VM's settings", lambda: machine.config)
    settings = list(config.extraConfig or ()) if config else []
    return any(s.key == RESTORE_MARK and str(s.value) == number for s in settings)
