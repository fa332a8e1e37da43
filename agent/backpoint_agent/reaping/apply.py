"""Carries out a step, and verifies that it did what it should. Decides nothing about what is ours.

A step that fails is an outcome, not an exception: the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from backpoint_agent.effect import Effect
from backpoint_agent.errors import ObjectGone, TaskFailed, VSphereError
from backpoint_agent.ledger import Ledger
from backpoint_agent.live.ending import end_live
from backpoint_agent.live.live_facts import datastore_facts, live_facts
from backpoint_agent.live.live_look import look_at_datastore
from backpoint_agent.live.nas_mounting import unmount_datastore
from backpoint_agent.live.repository_access import repository_access
from backpoint_agent.reaping.look import find_machine
from backpoint_agent.reaping.plan import wants_merging
from backpoint_agent.reaping.step import Action, Outcome, Step
from backpoint_agent.settings.model import (
    GuestLogin,
    Job,
    RepositorySettings,
    ScriptSettings,
    Waits,
)
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.change_tracking import set_change_tracking
from backpoint_agent.vsphere.guest_programs import run_in_guest
from backpoint_agent.vsphere.snapshots import consolidate, remove_snapshot
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import KeyFault


@dataclass(frozen=True)
class Means:
    """What the reaper works with on one vCenter. jobs: for logins to guests. repository: of the
    configuration, for its passphrase; without it the environment has to open repositories."""

    vcenter: VCenter
    ledger: Ledger
    waits: Waits
    jobs: Mapping[str, Job]
    stop: Stop
    repository: RepositorySettings | None = None


def apply_step(means: Means, step: Step) -> Outcome:
    """Do it; `said` is for the user. Raises Stopped only."""
    if step.action == "keep":
        return Outcome(step, "kept", step.why)
    if step.action == "tell":
        return Outcome(step, "told", step.why)
    try:
        said = _ACTS[step.action](means, step)
    except (VSphereError, KeyFault) as error:
        return Outcome(step, "failed", str(error))
    return Outcome(step, "done", said)


def _close(means: Means, step: Step) -> str:
    return step.why


def _remove_snapshot(means: Means, step: Step) -> str:
    limit_s = means.waits.snapshot_remove_s
    seconds = remove_snapshot(means.vcenter, step.target, limit_s=limit_s, stop=means.stop)
    machine = find_machine(means.vcenter, step.vm)
    if machine is None:
        return "the VM is gone"
    if any(snapshot.moref == step.target for snapshot in machine.snapshots):
        raise TaskFailed(f"{step.vm_name}: snapshot {step.target} was removed, and is still there")
    if wants_merging(machine):
        return f"removed in {seconds:.1f} s, disks {_consolidate(means, step)}"
    return f"removed in {seconds:.1f} s"


def _consolidate(means: Means, step: Step) -> str:
    limit_s = means.waits.consolidate_s
    consolidate(means.vcenter, step.vm, limit_s=limit_s, stop=means.stop)
    machine = find_machine(means.vcenter, step.vm)
    # A delta disk that is still there may be a linked clone's: vCenter's flag decides.
    if machine is not None and machine.consolidation_needed:
        raise TaskFailed(f"{step.vm_name}: its disks still need consolidation")
    return "consolidated"


def _detach(means: Means, step: Step) -> str:
    proxy = means.vcenter.object("VirtualMachine", step.vm)
    devices = means.vcenter.call("reading the proxy's disks", lambda: proxy.config.hardware.device)
    file = _facts(step).get("file")
    disk = next((d for d in devices if str(d.key) == step.target), None)
    if disk is None or getattr(disk.backing, "fileName", None) != file:
        return "was not attached any more"
    run_task(
        means.vcenter,
        f"detaching a disk of {step.vm_name} from the proxy",
        lambda: proxy.ReconfigVM_Task(spec=_removal(disk)),
        limit_s=means.waits.reconfigure_s,
        stop=means.stop,
    )
    return "detached"


def _removal(disk: Any) -> Any:
    from pyVmomi import vim

    # No fileOperation: the file is the VM's, and stays.
    change = vim.vm.device.VirtualDeviceSpec(operation="remove", device=disk)
    return vim.vm.ConfigSpec(deviceChange=[change])


def _abort_lease(means: Means, step: Step) -> str:
    lease = means.vcenter.object("HttpNfcLease", step.target)
    try:
        means.vcenter.call("aborting the export lease", lease.HttpNfcLeaseAbort, repeat=False)
    except ObjectGone:
        return "it had ended just then"
    return "aborted"


def _thaw(means: Means, step: Step) -> str:
    facts = _facts(step)
    login, limit_s = _login(means.jobs, facts["program"])
    script = ScriptSettings(
        program=facts["program"], arguments=facts.get("arguments", ""), limit_s=limit_s
    )
    run_in_guest(means.vcenter, step.vm, login, script, means.stop)
    return f"{script.program} was run"


def _login(jobs: Mapping[str, Job], program: str) -> tuple[GuestLogin, float]:
    """Of a job that thaws with this program. Raises TaskFailed: the guest may be frozen."""
    for job in jobs.values():
        script, guest = job.quiesce.post_thaw, job.quiesce.guest
        if guest is not None and script is not None and script.program == program:
            return guest, script.limit_s
    raise TaskFailed(
        f"the guest may be frozen, and no job has {program} as post_thaw with a login to run it"
    )


def _track_changes(means: Means, step: Step) -> str:
    limit_s = means.waits.change_tracking_s
    set_change_tracking(means.vcenter, step.vm, on=True, limit_s=limit_s, stop=means.stop)
    return "change tracking is on"


def _destroy(means: Means, step: Step) -> str:
    machine = means.vcenter.object("VirtualMachine", step.vm)
    try:
        run_task(
            means.vcenter,
            step.what,
            machine.Destroy_Task,
            limit_s=means.waits.reconfigure_s,
            stop=means.stop,
        )
    except ObjectGone:
        return "it had been deleted just then"
    return "deleted with its disks"


def _end_live(means: Means, step: Step) -> str:
    facts = live_facts(_facts(step))
    access = repository_access(facts.repository, means.repository)
    return end_live(means.vcenter, means.waits, access, facts, step.vm)


def _unmount(means: Means, step: Step) -> str:
    assert step.effect
    facts = datastore_facts(step.effect.facts)
    seen = look_at_datastore(means.vcenter, step.effect)
    if seen is None:
        return "it had been unmounted just then"
    unmount_datastore(means.vcenter, facts.host, seen)
    return f"the datastore {facts.datastore} was unmounted"


def _facts(step: Step) -> dict[str, str]:
    effect: Effect | None = step.effect
    return effect.facts if effect else {}


_ACTS: Final[dict[Action, Callable[[Means, Step], str]]] = {
    "close": _close,
    "thaw": _thaw,
    "detach": _detach,
    "abort-lease": _abort_lease,
    "remove-snapshot": _remove_snapshot,
    "consolidate": _consolidate,
    "track-changes": _track_changes,
    "destroy": _destroy,
    "end-live": _end_live,
    "unmount": _unmount,
}
