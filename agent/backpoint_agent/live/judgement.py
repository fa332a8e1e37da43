"""What may be done about a VM that runs from a session, and about its datastore. Pure.

The rule of all rules here: a VM is powered off and unregistered only when its .vmx lies where we
put it, on the export that we mounted, and carries the ledger's number; a session is thrown away
only when its VM is gone or has nothing there; a datastore is unmounted only when we mounted it and
no VM has a file there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from backpoint_agent.live.live_facts import DatastoreFacts, LiveFacts, State
from backpoint_agent.live.nas_datastore import NasDatastore
from backpoint_agent.machine import Machine

Act = Literal["end-live", "unmount", "close", "keep", "tell"]


@dataclass(frozen=True)
class LiveSight:
    """machine: of the learned moref, or else the one that is registered with our .vmx; None where
    there is none. marked: its extraConfig has the effect's number. names: what datastores that are
    the export which was mounted are called now. tasks, fresh: as of `Sight`."""

    machine: Machine | None
    marked: bool = False
    names: frozenset[str] = frozenset()
    tasks: tuple[str, ...] = ()
    fresh: bool = False


NOTHING_SEEN: Final = LiveSight(None)


@dataclass(frozen=True)
class Judgement:
    """vm: moref of the VM that is to be powered off and unregistered, "" for none of them."""

    act: Act
    why: str
    vm: str = ""


def judge_live(facts: LiveFacts, sight: LiveSight) -> Judgement:
    """About session and VM."""
    if sight.tasks:
        return Judgement("keep", f"vCenter is still at it: {', '.join(sight.tasks)}")
    machine = sight.machine
    if machine is None:
        return _BY_ABSENCE[facts.state](facts, sight)
    if not touches(machine, facts, sight.names):
        return _judge_moved(facts, machine)
    if facts.state == "running":
        return Judgement("tell", f"it runs from the backup; {_how_to_go_on(facts)}")
    if facts.state == "migrating":
        why = (
            f"its way to {facts.target} was begun; `backpoint live migrate {facts.session}` ends it"
        )
        return Judgement("tell", why)
    path = facts.vmx.partition("] ")[2]
    if not any(machine.vmx == f"[{name}] {path}" for name in sight.names):
        return Judgement("keep", f"{machine.name} has files in the backup, and its .vmx elsewhere")
    if not sight.marked:
        return Judgement("keep", f"nothing proves that the VM {machine.name} was made for it")
    return Judgement("end-live", _why_ended(facts), machine.moref)


def judge_datastore(facts: DatastoreFacts, seen: NasDatastore | None, *, fresh: bool) -> Judgement:
    """About a mount. seen: the export as that host has it mounted, under whatever name."""
    if seen is None:
        if fresh:
            return Judgement("keep", "it was asked for just now and may still appear")
        return Judgement("close", "it is not mounted any more")
    if seen.name != facts.datastore:
        return Judgement("keep", f"{facts.remote} is called {seen.name} now, by somebody")
    if seen.vms:
        return Judgement("tell", f"{len(seen.vms)} VMs have files there; it goes after the last")
    return Judgement("unmount", "no VM has a file there any more")


def touches(machine: Machine, facts: LiveFacts, names: frozenset[str]) -> bool:
    """Whether any file of the VM is in the backup; names: as of `LiveSight`, for a datastore may be
    renamed."""
    places = {disk.datastore for disk in machine.disks}.union(machine.datastores)
    places.add(machine.vmx.removeprefix("[").partition("] ")[0])
    return bool(places & (names | {facts.datastore}))


def _judge_moved(facts: LiveFacts, machine: Machine) -> Judgement:
    if facts.state == "running":
        why = f"{machine.name} has left the backup; {_how_to_go_on(facts)}"
        return Judgement("tell", why)
    return Judgement("end-live", f"{machine.name} has left the backup, and stays where it is")


def _absent_starting(facts: LiveFacts, sight: LiveSight) -> Judgement:
    if sight.fresh:
        return Judgement("keep", "it was asked for just now and may still appear")
    return Judgement("end-live", _why_ended(facts))


def _absent_running(facts: LiveFacts, sight: LiveSight) -> Judgement:
    why = f"vCenter has no such VM any more; `backpoint live end {facts.session}` forgets it"
    return Judgement("tell", why)


def _absent_ending(facts: LiveFacts, sight: LiveSight) -> Judgement:
    return Judgement("end-live", _why_ended(facts))


_BY_ABSENCE: Final[dict[State, Callable[[LiveFacts, LiveSight], Judgement]]] = {
    "starting": _absent_starting,
    "running": _absent_running,
    "ending": _absent_ending,
    "migrating": _absent_running,
}


def _why_ended(facts: LiveFacts) -> str:
    if facts.state == "ending":
        return "its end was asked for"
    return "a boot ended before it was whole"


def _how_to_go_on(facts: LiveFacts) -> str:
    session = facts.session
    return f"`backpoint live end {session}` ends it, `live migrate {session}` moves it to stay"
