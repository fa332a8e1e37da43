"""What is done about each open effect, given what was seen of it. Pure.

The rule of all rules here: what is removed was asked for under this very number. Whatever has our
name but is another object, or is our object but was renamed, or would take somebody else's data
with it, is kept and told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from backpoint_agent import snapshot_name
from backpoint_agent.effect import Effect, EffectKind
from backpoint_agent.live.judgement import (
    NOTHING_SEEN,
    Judgement,
    LiveSight,
    judge_datastore,
    judge_live,
)
from backpoint_agent.live.live_facts import datastore_facts, live_facts
from backpoint_agent.live.nas_datastore import NasDatastore
from backpoint_agent.machine import Machine
from backpoint_agent.reaping.step import Action, Certainty, Step

_ORDER: Final[tuple[EffectKind, ...]] = (
    "freeze",  # a guest stands still
    "hotadd",  # a disk that is attached somewhere keeps its snapshot from merging
    "export-lease",  # likewise
    "snapshot",
    "change-tracking",
    "restored-machine",
    "restore-over",
    "live-machine",
    "live-datastore",  # after the VMs that run from it
)
_LEASE_ENDS_S: Final = 900.0
"""A lease that nobody renews ends by itself after 5 minutes, as vCenter gives it; three times that.
"""


@dataclass(frozen=True)
class Sight:
    """What was seen of one effect.

    machine: the effect's VM, None where it is gone. tasks: what still runs there (or on the proxy)
    and may make or remove what is looked for. fresh: it was asked for so shortly before that it may
    still appear. proxy: of a hotadd, None where it is gone. lease: of an export-lease whose moref
    is known. made: of a restored-machine, the VM that has its name, or its moref where that is
    known. live: of a live-machine. nas: of a live-datastore, None where it is not mounted.
    age_s: of the effect.
    """

    machine: Machine | None
    age_s: float
    tasks: tuple[str, ...] = ()
    fresh: bool = False
    proxy: Machine | None = None
    lease: Literal["alive", "gone", "unknown"] = "unknown"
    made: Machine | None = None
    made_has_mark: bool = False
    live: LiveSight = NOTHING_SEEN
    nas: NasDatastore | None = None


def in_order(effects: Iterable[Effect]) -> list[Effect]:
    """A VM's effects in the order in which they have to be undone."""
    return sorted(effects, key=lambda e: (_ORDER.index(e.kind), e.at, e.number))


def plan_effect(effect: Effect, sight: Sight) -> Step:
    """What to do about one effect."""
    seen = sight.made or sight.proxy or sight.live.machine or sight.machine
    if seen is not None and (not seen.connected or seen.hindrances):
        why = "; ".join(seen.hindrances) or "its host is not connected to vCenter"
        return keep(effect, f"{seen.name} cannot be seen as it is: {why}")
    return _PLANS[effect.kind](effect, sight)


def keep(effect: Effect, why: str) -> Step:
    """The step for what cannot be undone now."""
    return _step("keep", effect, f"{_NAMES[effect.kind]} stays in the ledger", why)


def _plan_snapshot(effect: Effect, sight: Sight) -> Step:
    machine = sight.machine
    if machine is None:
        return _close(effect, "the VM is gone")
    if sight.tasks:
        return keep(effect, f"vCenter is still at it: {', '.join(sight.tasks)}")
    name = snapshot_name.make_name(effect.number)
    moref = effect.facts.get("moref")
    same = next((s for s in machine.snapshots if s.moref == moref), None)
    named = [s for s in machine.snapshots if s.name == name]
    if same is not None:
        if same.name != name:
            return keep(effect, f"our snapshot {moref} was renamed to {same.name!r} by somebody")
        return _remove(effect, name, same.moref, "certain")
    if named and (moref is not None or len(named) > 1):
        others = ", ".join(s.moref for s in named)
        return keep(effect, f"a snapshot named {name} is there, but is not the one made: {others}")
    if named:
        return _remove(effect, name, named[0].moref, "by name")
    if sight.fresh and moref is None:
        return keep(effect, "it was asked for just now and may still appear")
    if wants_merging(machine):
        what = "merge the disks that our snapshot left behind"
        return _step("consolidate", effect, what, "the snapshot is gone, its delta disks are not")
    return _close(effect, "no such snapshot is there")


def wants_merging(machine: Machine) -> bool:
    """It needs consolidation, or runs on a delta disk without any snapshot."""
    on_delta = any(disk.has_parent for disk in machine.disks) and not machine.snapshots
    return machine.consolidation_needed or on_delta


def _remove(effect: Effect, name: str, moref: str, certainty: Certainty) -> Step:
    why = "it was left by a run that ended before it removed it"
    return _step("remove-snapshot", effect, f"remove snapshot {name}", why, certainty, moref)


def _plan_hotadd(effect: Effect, sight: Sight) -> Step:
    file = effect.facts.get("file")
    if sight.proxy is None:
        return _close(effect, "the proxy VM is gone")
    if sight.tasks:
        return keep(effect, f"vCenter is still at it: {', '.join(sight.tasks)}")
    disk = next((disk for disk in sight.proxy.disks if disk.file == file), None)
    if disk is not None:
        step = _step(
            "detach",
            effect,
            f"detach {file} from {sight.proxy.name}, keeping the file",
            "a run ended before it detached it",
            target=str(disk.device_key),
        )
        return _on(step, sight.proxy)
    if sight.fresh and "device_key" not in effect.facts:
        return keep(effect, "it was asked for just now and may still appear")
    return _close(effect, f"the disk is not attached to {sight.proxy.name}")


def _plan_lease(effect: Effect, sight: Sight) -> Step:
    moref = effect.facts.get("moref")
    if sight.lease == "gone":
        return _close(effect, "the lease is gone")
    if moref is not None:
        what = f"abort export lease {moref}"
        return _step("abort-lease", effect, what, "a run ended while it held it", target=moref)
    if sight.age_s > _LEASE_ENDS_S:
        return _close(effect, "a lease that nobody renews has ended by itself")
    return keep(effect, "it is not known which lease it is; it ends by itself within minutes")


def _plan_freeze(effect: Effect, sight: Sight) -> Step:
    if sight.machine is None:
        return _close(effect, "the VM is gone")
    if sight.tasks:
        return keep(effect, f"vCenter is still at it: {', '.join(sight.tasks)}")
    if sight.machine.power != "poweredOn":
        return _close(effect, f"the VM is {sight.machine.power}: no program in it stands still")
    program = effect.facts.get("program")
    if not program:
        return _close(effect, "no post-thaw script belongs to it")
    why = "a run ended between the pre-freeze script and this one: the guest may be frozen"
    return _step("thaw", effect, f"run {program} in the guest", why)


def _plan_change_tracking(effect: Effect, sight: Sight) -> Step:
    if sight.machine is None:
        return _close(effect, "the VM is gone")
    if sight.tasks:
        return keep(effect, f"vCenter is still at it: {', '.join(sight.tasks)}")
    if sight.machine.change_tracking:
        return _close(effect, "change tracking is on")
    return _step(
        "track-changes", effect, "switch change tracking on", "a run had it off to reset it"
    )


def _plan_restored_machine(effect: Effect, sight: Sight) -> Step:
    made, moref = sight.made, effect.facts.get("moref")
    if made is None:
        if moref is None and (sight.fresh or sight.tasks):
            return keep(effect, "it was asked for just now and may still appear")
        return _close(effect, "no such VM is there")
    path = f"{effect.facts.get('folder', '')}/{effect.facts.get('name', '')}"
    if f"{made.folder}/{made.name}" != path:
        return keep(effect, f"the unfinished VM {path} now is {made.folder}/{made.name}")
    chosen = effect.facts.get("instance")
    if chosen is not None and made.identity.instance != chosen:
        return keep(effect, f"the VM {path} has another instanceUuid than the restore gave it")
    if moref is None and not sight.made_has_mark:
        return keep(effect, f"a VM {path} is there, and nothing proves that a restore made it")
    if made.power != "poweredOff":
        return keep(effect, f"the unfinished VM {path} is {made.power}")
    if strange := _files_of_others(made):
        return keep(effect, f"the unfinished VM {path} has a disk of another VM: {strange[0]}")
    step = _step("destroy", effect, f"delete the VM {path}", "a restore ended before it was whole")
    return _on(step, made)


def _files_of_others(machine: Machine) -> list[str]:
    """Disks that lie in no folder of the VM's own name: deleting the VM would delete them too."""
    own = _folder(machine.vmx)
    files = [disk.file for disk in machine.disks]
    return [file for file in files if not own or not _folder(file).startswith(own)]


def _folder(file: str) -> str:
    """ "web01" of "[ds1] web01/web01.vmdk"."""
    return file.rpartition("/")[0].partition("] ")[2]


def _plan_restore_over(effect: Effect, sight: Sight) -> Step:
    if sight.machine is None:
        return _close(effect, "the VM is gone")
    return keep(
        effect,
        "a restore over this VM ended half way: its disks are partly of the point, partly as they "
        "were before; restore it again, or say `reap --forget` with the number if that was done "
        "otherwise",
    )


def _plan_live_machine(effect: Effect, sight: Sight) -> Step:
    judged = judge_live(live_facts(effect.facts), sight.live)
    return replace(_judged(effect, judged), vm=judged.vm)


def _plan_live_datastore(effect: Effect, sight: Sight) -> Step:
    facts = datastore_facts(effect.facts)
    return _judged(effect, judge_datastore(facts, sight.nas, fresh=sight.fresh))


def _judged(effect: Effect, judged: Judgement) -> Step:
    match judged.act:
        case "keep":
            return keep(effect, judged.why)
        case "close":
            return _close(effect, judged.why)
        case "tell":
            return _step("tell", effect, f"{_NAMES[effect.kind]} stays", judged.why)
        case act:
            return _step(act, effect, f"end {_NAMES[effect.kind]}", judged.why)


def _close(effect: Effect, why: str) -> Step:
    return _step("close", effect, f"nothing to undo of {_NAMES[effect.kind]}", why)


def _step(
    action: Action,
    effect: Effect,
    what: str,
    why: str,
    certainty: Certainty = "certain",
    target: str = "",
) -> Step:
    return Step(action, effect.vm, effect.vm_name, what, why, certainty, target, effect)


def _on(step: Step, machine: Machine) -> Step:
    """The step, done to another VM than the effect's."""
    return replace(step, vm=machine.moref)


_PLANS: Final[dict[EffectKind, Callable[[Effect, Sight], Step]]] = {
    "freeze": _plan_freeze,
    "hotadd": _plan_hotadd,
    "export-lease": _plan_lease,
    "snapshot": _plan_snapshot,
    "change-tracking": _plan_change_tracking,
    "restored-machine": _plan_restored_machine,
    "restore-over": _plan_restore_over,
    "live-machine": _plan_live_machine,
    "live-datastore": _plan_live_datastore,
}
_NAMES: Final[dict[EffectKind, str]] = {
    "freeze": "the guest's freeze",
    "hotadd": "the attached disk",
    "export-lease": "the export lease",
    "snapshot": "the snapshot",
    "change-tracking": "the change tracking switched off",
    "restored-machine": "the VM being restored",
    "restore-over": "the restore over the VM",
    "live-machine": "the VM that runs from the backup, with its session",
    "live-datastore": "the mounted datastore of VMs that run from the backup",
}
