"""The volume groups on a VM's disks and their logical volumes, as volumes.

Decides which copy of a group's metadata counts (the newest of all its physical volumes), which
logical volumes are shown (what LVM2 calls visible), and what a physical volume is shown as when
its group is not. Groups are told apart by UUID: two may have one name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestError, VolumeImage
from backpoint_fusefs.guest.parsers.layout.lvm_group import (
    LogicalVolume,
    VolumeGroup,
    read_group,
)
from backpoint_fusefs.guest.parsers.layout.lvm_label import MAX_TEXT, read_physical_volume
from backpoint_fusefs.guest.parsers.layout.lvm_mapping import GroupMapping
from backpoint_fusefs.guest.parsers.layout.lvm_text import parse_text
from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signatures import identify
from backpoint_fusefs.guest.parsers.layout.slot import Slot
from backpoint_fusefs.guest.parsers.layout.stretch import PiecedImage, Stretch
from backpoint_fusefs.guest.parsers.layout.unread_kinds import UNREAD
from backpoint_fusefs.guest.volume import Volume

_MAX_TEXTS = 4 * MAX_TEXT
"""Bytes of metadata that are parsed for one VM; copies that are alike count once."""


@dataclass
class _Found:
    """groups: by UUID, the newest description of each. parsed: text -> why it cannot be used, or
    nothing. stretches: by the UUID of physical volumes."""

    groups: dict[str, VolumeGroup] = field(default_factory=dict)
    stretches: dict[str, Stretch] = field(default_factory=dict)
    parsed: dict[bytes, str] = field(default_factory=dict)
    parsed_size: int = 0


def logical_volumes(
    slots: Sequence[Slot], disks: Sequence[VolumeImage], limit: int
) -> tuple[dict[str, str], list[Volume]]:
    """Of the physical volumes in `slots`: name of each that must be shown itself -> why, and at
    most `limit` logical volumes."""
    found = _Found()
    members = {slot.name: _add_slot(found, slot) for slot in slots}
    groups = sorted(found.groups.values(), key=lambda group: (group.name, group.uuid))
    by_member = {
        entry.uuid: group
        for group in groups
        for entry in group.physical.values()
        if not entry.missing
    }
    problems = {}
    for name, member in members.items():
        problem = _problem(member, by_member.get(member.uuid))
        if problem:
            problems[name] = problem
    shown: list[Volume] = []
    for group in groups:
        mapping = GroupMapping(group, found.stretches)
        for one in group.logical.values():
            if _is_shown(one) and len(shown) < limit:
                shown.append(_volume(group, mapping, one, disks))
    return problems, shown


class _Member(NamedTuple):
    """uuid: empty where the label cannot be used. problem: of the label or the metadata."""

    uuid: str
    problem: str


def _add_slot(found: _Found, slot: Slot) -> _Member:
    try:
        physical = read_physical_volume(slot.probe)
    except GuestDamaged as damage:
        return _Member("", str(damage))
    if physical.uuid in found.stretches:
        return _Member("", f"a second copy of the LVM2 physical volume {physical.uuid}")
    found.stretches[physical.uuid] = slot.stretch
    reasons = [_add_text(found, text) for text in physical.texts]
    return _Member(physical.uuid, next(filter(None, reasons), physical.problem))


def _add_text(found: _Found, text: bytes) -> str:
    """Why it cannot be used, or nothing."""
    if text in found.parsed:
        return found.parsed[text]
    if found.parsed_size + len(text) > _MAX_TEXTS:
        return "there are more LVM2 metadata than can be read"
    found.parsed_size += len(text)
    found.parsed[text] = ""
    try:
        group = read_group(parse_text(text))
    except GuestDamaged as damage:
        found.parsed[text] = str(damage)
        return str(damage)
    known = found.groups.get(group.uuid)
    if known is None or group.sequence > known.sequence:
        found.groups[group.uuid] = group
    return ""


def _problem(member: _Member, group: VolumeGroup | None) -> str:
    """Why a physical volume is shown itself, or nothing if its group is."""
    if group is None and member.problem:
        return f"an LVM2 physical volume that cannot be used: {member.problem}"
    if group is None:
        return "an LVM2 physical volume of no volume group that is known"
    if not any(_is_shown(one) for one in group.logical.values()):
        return f"an LVM2 physical volume of the group {group.name}, which has no logical volumes"
    return ""


def _is_shown(volume: LogicalVolume) -> bool:
    """LVM2 calls the store of a snapshot hidden, and shows it under its own name."""
    return bool(volume.segments) and ("VISIBLE" in volume.flags or bool(volume.problem))


def _volume(
    group: VolumeGroup,
    mapping: GroupMapping,
    one: LogicalVolume,
    disks: Sequence[VolumeImage],
) -> Volume:
    name = f"{group.name}-{one.name}"
    mangled = "-".join(part.replace("-", "--") for part in (group.name, one.name))
    devices = (f"/dev/{group.name}/{one.name}", f"/dev/mapper/{mangled}")
    size = 0
    try:
        size = mapping.size(one)
        pieces = mapping.pieces(one)
    except GuestError as reason:
        return Volume(name, size, (), "", devices=devices, problem=str(reason))
    volume = Volume(name, size, pieces, "", devices=devices)
    if one.problem:
        return replace(volume, problem=one.problem)
    known = identify(Probe(PiecedImage(volume, disks)))
    why = known.problem or UNREAD.get(known.kind, "")
    return Volume(name, size, pieces, known.kind, known.label, known.uuid, devices, problem=why)
