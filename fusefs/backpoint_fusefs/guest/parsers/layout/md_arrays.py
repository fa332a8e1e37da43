"""Mirrors of Linux's software RAID: the member to believe, and the volume inside it.

Of the members of one array the one with the newest metadata that has every block. Other levels have
their bytes in no one place; their members stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from backpoint_fusefs.guest.parsers.layout.md_member import MdMember, find_member
from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signatures import identify
from backpoint_fusefs.guest.parsers.layout.slot import Slot

_MIRROR = 1
_LEVELS = {-4: "multipath", -1: "linear"}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.+-]")


def with_mirrors(slots: Sequence[Slot]) -> list[Slot]:
    """The slots, each mirror in place of its first member, and without its other members."""
    members = {
        at: member
        for at, slot in enumerate(slots)
        if slot.signature.kind == "md" and (member := find_member(slot.probe)) is not None
    }
    first = {member.set_uuid: at for at, member in reversed(members.items())}
    shown: dict[str, Slot] = {}
    for set_uuid in first:
        mirror = _mirror(
            [(slots[at], member) for at, member in members.items() if member.set_uuid == set_uuid]
        )
        if mirror is not None:
            shown[set_uuid] = mirror
    found: list[Slot] = []
    for at, slot in enumerate(slots):
        if at not in members:
            found.append(slot)
            continue
        member = members[at]
        if member.level != _MIRROR:
            found.append(replace(slot, problem=_why_not(member)))
        elif member.set_uuid not in shown:
            found.append(replace(slot, problem="a member of a mirror that is not complete"))
        elif at == first[member.set_uuid]:
            found.append(shown[member.set_uuid])
    return found


def _mirror(members: list[tuple[Slot, MdMember]]) -> Slot | None:
    complete = [
        (slot, member)
        for slot, member in members
        if member.complete
        and member.level == _MIRROR
        and 0 < member.size <= slot.stretch.size - member.offset
    ]
    if not complete:
        return None
    newest = max(member.events for _, member in members)
    slot, member = max(complete, key=lambda one: one[1].events)
    # One event is between the writing of two members, more are a member that was thrown out.
    if member.events + 1 < newest:
        return None
    stretch = slot.stretch.part(member.offset, member.size)
    probe = Probe(stretch)
    name, devices = _names(member)
    return Slot(name, stretch, probe, identify(probe), devices)


def _names(member: MdMember) -> tuple[str, tuple[str, ...]]:
    """Names are `host:name`; names that are numbers are those of the devices."""
    name = _NOT_IN_NAMES.sub("_", member.name.rsplit(":", 1)[-1])[:32]
    if member.minor >= 0:
        name = str(member.minor)
    if name.isdigit():
        return f"md{name}", (f"/dev/md{name}", f"/dev/md/{name}")
    if not name:
        return f"md-{member.set_uuid[:8]}", ()
    return f"md-{name}", (f"/dev/md/{name}",)


def _why_not(member: MdMember) -> str:
    level = _LEVELS.get(member.level, str(member.level))
    return f"a member of a Linux software RAID (md) of level {level}, which is not read"
