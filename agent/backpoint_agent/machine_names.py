"""Under which name a VM's points stand in the repository.

Points of one name are one history, so a name belongs to one VM: whoever its points were made of,
as they recorded it themselves (`Point.capture`). Decides that a VM known by its identity keeps its
name for ever, and that no two get the same. Refuses to know how VMs are found or backed up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from backpoint_agent.machine import Identity, Machine
from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository

KIND: Final = "vsphere"
NAME_LIMIT: Final = 255
"""Bytes in UTF-8: a name becomes a folder's in the mount."""
LOOK_BACK: Final = 8
"""Points of one name that are read for one that says whose they are; more are somebody's that the
agent did not make."""
_SHORT_UUID: Final = 8


@dataclass(frozen=True)
class Named:
    """A VM's name in the repository, and what its user should know about that, or None."""

    name: str
    warning: str | None = None


@dataclass(frozen=True)
class _Owner:
    """Whose points a name has. identity: None where the agent made none of them."""

    identity: Identity | None
    uuid: str = ""
    name_then: str = ""
    time: float = 0.0


def capture_identity(machine: Machine) -> dict[str, Any]:
    """What a point's capture has to hold so that its VM is found again."""
    return {
        "kind": KIND,
        "vcenter": machine.identity.vcenter,
        "instance": machine.identity.instance,
        "uuid": machine.uuid,
        "name": machine.name,
    }


class MachineNames:
    """Thread-safe. Reads the newest points of each name when first asked, and then none any more:
    make a new one for each job. Each method raises as `Catalog.refresh`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._given: dict[Identity, Named] = {}

    def name_of(self, machine: Machine) -> Named:
        """The name is this VM's from now on, as far as this object is asked."""
        with self._lock:
            if machine.identity not in self._given:
                known = self._read()
                named = _by_identity(machine, known) or _by_hardware(machine, known)
                self._give(machine, named or _new(machine, known))
            return self._given[machine.identity]

    def own_name(self, machine: Machine) -> str | None:
        """Under which points of this very VM stand, by its identity; None where there are none."""
        with self._lock:
            named = _by_identity(machine, self._read())
        return None if named is None else named.name

    def published(self, machine: Machine, name: str) -> None:
        """A point of the VM now stands under this name: there is nothing to warn of any more."""
        with self._lock:
            self._read()
            self._give(machine, Named(name))

    def _give(self, machine: Machine, named: Named) -> None:
        self._read().taken.add(named.name)
        self._given[machine.identity] = named

    def _read(self) -> _Known:
        if self._known is None:
            self._known = _Known(dict(_read_owners(self._repository)))
        return self._known


class _Known:
    """Names with points. taken: those that were given to a VM of this job."""

    def __init__(self, owners: dict[str, _Owner]) -> None:
        self.owners = owners
        self.taken: set[str] = set()
        self._by_instance: dict[str, list[str]] = {}
        for name, owner in sorted(owners.items(), key=lambda item: item[1].time, reverse=True):
            if owner.identity is not None:
                self._by_instance.setdefault(owner.identity.instance, []).append(name)

    def newest(self, machine: Machine, fits: Callable[[_Owner], bool]) -> str | None:
        """Of the names whose points are of a VM with this instanceUuid; None if it is taken."""
        for name in self._by_instance.get(machine.identity.instance, ()):
            if fits(self.owners[name]):
                return None if name in self.taken else name
        return None


def _by_identity(machine: Machine, known: _Known) -> Named | None:
    name = known.newest(machine, lambda owner: owner.identity == machine.identity)
    if name is None:
        return None
    then = known.owners[name].name_then
    if not then or then == machine.name:
        return Named(name)
    return Named(name, f"was renamed from {then} to {machine.name}; its points stay under {name}")


def _by_hardware(machine: Machine, known: _Known) -> Named | None:
    """The vCenter was replaced: another identity, and both the VM's own uuids as they were."""
    name = known.newest(machine, lambda owner: _same_hardware(owner, machine))
    if name is None:
        return None
    return Named(
        name,
        f"{machine.name} was known through another vCenter, and both its uuids are the same: "
        f"it goes on with the points under {name}",
    )


def _new(machine: Machine, known: _Known) -> Named:
    candidates = _candidates(machine)
    own = name = next(candidates)
    while name in known.owners or name in known.taken:
        name = next(candidates)
    if name == own:
        return Named(name)
    return Named(name, f"another machine has points under {own}; this one's stand under {name}")


def _candidates(machine: Machine) -> Iterator[str]:
    """Its own name, then with ever more of what tells it from all others."""
    own = machine.name or machine.moref
    yield _shortened(own, "")
    instance = machine.identity.instance.replace("-", "")
    for length in range(_SHORT_UUID, len(instance) + 1, 4):
        yield _shortened(own, f" ({instance[:length]})")
    number = 1
    while True:
        yield _shortened(own, f" ({instance[:32]} {machine.identity.vcenter[:36]} {number})")
        number += 1


def _shortened(name: str, mark: str) -> str:
    """Within the limit, never cut within a character."""
    room = NAME_LIMIT - len(mark.encode())
    return name.encode(errors="replace")[:room].decode(errors="ignore") + mark


def _same_hardware(owner: _Owner, machine: Machine) -> bool:
    known = owner.identity
    return (
        known is not None
        and known.vcenter != machine.identity.vcenter
        and known.instance == machine.identity.instance != ""
        and owner.uuid == machine.uuid != ""
    )


def _read_owners(repository: Repository) -> Iterator[tuple[str, _Owner]]:
    for name, summaries in groupby(repository.catalog.refresh(), attrgetter("vm")):
        yield name, _owner_of(repository, list(summaries))


def _owner_of(repository: Repository, summaries: list[PointSummary]) -> _Owner:
    """Of the newest point that says it; nobody's where none of the last few does."""
    newest = sorted(summaries, key=attrgetter("generation", "created"), reverse=True)
    for summary in newest[:LOOK_BACK]:
        try:
            point = repository.point(summary.point_id)
        except (ObjectMissing, ObjectDamaged, UnknownFormat):
            continue  # removed meanwhile or broken, which `check` tells: an older one says the same
        owner = _owner_by(point)
        if owner is not None:
            return owner
    return _Owner(None)


def _owner_by(point: Point) -> _Owner | None:
    capture = point.capture
    texts = [capture.get(key) for key in ("vcenter", "instance", "uuid", "name")]
    if capture.get("kind") != KIND or not texts[1]:
        return None
    vcenter, instance, uuid, name = (text if isinstance(text, str) else "" for text in texts)
    return _Owner(Identity(vcenter, instance), uuid, name, point.created)
