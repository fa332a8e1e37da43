"""The reaper's way through one vCenter: each effect is taken over, looked at, planned, undone.

Decides who may act: the VM's lock is held, so that no run is going on there, and the effect is
taken over, so that no other reaper is at it. What was seen before that is only for showing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from backpoint_agent.effect import Effect
from backpoint_agent.errors import VSphereError
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import Machine
from backpoint_agent.machine_lock import machine_lock
from backpoint_agent.reaping.apply import Means, apply_step
from backpoint_agent.reaping.look import GRACE_S, Patience, find_machine, look_at
from backpoint_agent.reaping.plan import in_order, keep, plan_effect
from backpoint_agent.reaping.step import Outcome, Step
from backpoint_agent.reaping.strays import Wishes, plan_strays


def reap_before(means: Means, machine: Machine) -> list[Outcome]:
    """Undo what is left over on one VM, before it is worked on; the caller holds the VM's lock.

    Failures are outcomes (`is_open`). Raises Stopped, UsageError.
    """
    effects = [e for e in effects_of(means) if e.vm == machine.moref]
    return [outcome for effect in in_order(effects) for outcome in undo_effect(means, effect)]


def effects_of(means: Means) -> list[Effect]:
    """The reaper's work on this vCenter."""
    return [e for e in means.ledger.open_effects() if e.vcenter == means.vcenter.uuid]


def show_effects(means: Means) -> Iterator[Outcome]:
    """What `reap_effects` would do now; does nothing and waits for nothing."""
    impatient = Patience(means.stop, limit_s=0.0)
    for effect in _by_machine(effects_of(means)):
        try:
            step = plan_effect(effect, look_at(means.vcenter, effect, impatient))
        except VSphereError as error:
            step = keep(effect, str(error))
        yield Outcome(step, "planned", step.why)


def reap_effects(means: Means, locks: Path) -> Iterator[Outcome]:
    """Undo what is open on this vCenter. Raises Stopped, UsageError."""
    for vm, group in groupby(_by_machine(effects_of(means)), key=lambda effect: effect.vm):
        effects = list(group)
        try:
            with _locked(means, locks, find_machine(means.vcenter, vm)):
                for effect in effects:
                    yield from undo_effect(means, effect)
        except VSphereError as error:
            yield from (Outcome(keep(effect, str(error)), "kept", str(error)) for effect in effects)


def strays_of(means: Means, machines: Iterable[Machine], wishes: Wishes) -> list[Step]:
    """Steps for what no ledger knows, on these VMs of the vCenter. Raises UsageError."""
    mine = [e for e in means.ledger.all_open() if e.vcenter == means.vcenter.uuid]
    return plan_strays(machines, {e.number for e in mine}, {e.vm for e in mine}, wishes)


def reap_strays(
    means: Means, locks: Path, machines: Iterable[Machine], wishes: Wishes
) -> Iterator[Outcome]:
    """Do what was asked for, and tell the rest. Raises Stopped, UsageError."""
    planned = sorted(strays_of(means, machines, wishes), key=lambda step: step.vm)
    for vm, group in groupby(planned, key=lambda step: step.vm):
        steps = list(group)
        if all(step.action == "tell" for step in steps):
            yield from (apply_step(means, step) for step in steps)
            continue
        try:
            machine = find_machine(means.vcenter, vm)
            with _locked(means, locks, machine):
                # As it is now that nobody else works on it.
                now = find_machine(means.vcenter, vm)
                for step in strays_of(means, [now] if now else [], wishes):
                    yield apply_step(means, step)
        except VSphereError as error:
            yield from (Outcome(step, "failed", str(error)) for step in steps)


def forget(ledger: Ledger, number: str) -> Effect | None:
    """Close an effect that is open without doing anything; None where it is not open.

    Raises Busy, UsageError.
    """
    found = next((e for e in ledger.open_effects() if e.number == number), None)
    if found is None:
        return None
    with ledger.take_over(found) as taken:
        if taken is not None:
            ledger.undone(taken, "forgotten at a user's word")
        return taken


def settle_restore(ledger: Ledger, vcenter: str, vm: str) -> None:
    """A restore over the VM has finished: what an earlier one left half done is made good.

    The caller holds the VM's lock. Raises Busy, UsageError.
    """
    for effect in ledger.open_effects():
        if (effect.kind, effect.vcenter, effect.vm) == ("restore-over", vcenter, vm):
            with ledger.take_over(effect) as taken:
                if taken is not None:
                    ledger.undone(taken, "restored again")


def undo_effect(means: Means, effect: Effect, grace_s: float = GRACE_S) -> Iterator[Outcome]:
    """One of `effects_of`, as far as it may be undone: one outcome, or none where another process
    has done it. grace_s: 0 where nothing is on its way to vCenter. Raises Stopped, UsageError."""
    patience = Patience(means.stop, means.waits.snapshot_create_s, grace_s)
    try:
        with means.ledger.take_over(effect) as taken:
            if taken is None:
                return
            step = plan_effect(taken, look_at(means.vcenter, taken, patience))
            outcome = apply_step(means, step)
            if outcome.result == "done":
                means.ledger.undone(taken, outcome.said)
        yield outcome
    except VSphereError as error:
        yield Outcome(keep(effect, str(error)), "kept", str(error))


def _by_machine(effects: Iterable[Effect]) -> list[Effect]:
    """Each VM's together and in the order of undoing; the oldest VM's first."""
    machines: dict[str, list[Effect]] = {}
    for effect in effects:
        machines.setdefault(effect.vm, []).append(effect)
    return [effect for group in machines.values() for effect in in_order(group)]


@contextlib.contextmanager
def _locked(means: Means, locks: Path, machine: Machine | None) -> Iterator[None]:
    """Hold the VM's lock, if there is a VM. Without waiting: who works on it clears up itself."""
    if machine is None:
        yield
        return
    with machine_lock(locks, machine.identity, machine.name, "reap", limit_s=0.0, stop=means.stop):
        yield
