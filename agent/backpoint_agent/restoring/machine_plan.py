"""What the restored VM will be: the description, less what cannot come back, plus what is new.

Pure. Decides names, addresses and networks, and says every difference from the origin in a sentence
(`MachinePlan.notes`). Where the VM will be is for `destination.py`; how VMware is told, for
`machine_spec.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from backpoint_agent.restoring.description import DescribedDisk, MachineDescription, NetworkCard
from backpoint_repo.errors import UsageError

Rest = Literal["keep", "disconnected"]


@dataclass(frozen=True)
class Network:
    """A network that a card can be put on. portgroup, switch: of a distributed one, else ""."""

    name: str
    moref: str
    portgroup: str = ""
    switch: str = ""
    opaque_id: str = ""
    opaque_type: str = ""


@dataclass(frozen=True)
class NetworkRule:
    """mapped: old name (or portgroup key) to new name. rest: of all other cards; None: keep, and
    disconnected while the original VM exists."""

    mapped: Mapping[str, str] = field(default_factory=dict)
    rest: Rest | None = None


@dataclass(frozen=True)
class MachineChoices:
    """What the user asked for. origin_exists: the original VM is there, or may be.

    disks: keys in the point ("disk-2000") to restore, None for all.
    """

    name: str
    origin_exists: bool
    networks: NetworkRule = NetworkRule()
    keep_uuid: bool = False
    disks: Sequence[str] | None = None


@dataclass(frozen=True)
class PlannedCard:
    """mac: "" for a new one."""

    card: NetworkCard
    network: Network
    connected: bool
    mac: str


@dataclass(frozen=True)
class PlannedDisk:
    """key: in the point. size: bytes, as in the point."""

    key: str
    disk: DescribedDisk
    size: int


@dataclass(frozen=True)
class MachinePlan:
    """uuid: the BIOS uuid, "" for a new one. notes: for the user, a sentence each."""

    name: str
    uuid: str
    description: MachineDescription
    disks: tuple[PlannedDisk, ...]
    cards: tuple[PlannedCard, ...]
    notes: tuple[str, ...]


def plan_machine(
    description: MachineDescription,
    sizes: Mapping[str, int],
    networks: Sequence[Network],
    choices: MachineChoices,
) -> MachinePlan:
    """sizes: of the point's disks, by key. networks: those of the destination.

    Raises UsageError for a network that is not there, a mapping that fits no card, a disk that the
    point does not have.
    """
    notes: list[str] = [f"not restored: {what}" for what in description.left_out]
    disks = _plan_disks(description, sizes, choices, notes)
    cards = _plan_cards(description.cards, networks, choices, notes)
    if choices.keep_uuid and choices.origin_exists:
        notes.append("the original VM, if it is still there, has the same BIOS uuid")
    return MachinePlan(
        choices.name,
        description.uuid if choices.keep_uuid else "",
        description,
        disks,
        cards,
        tuple(notes),
    )


def _plan_disks(
    description: MachineDescription,
    sizes: Mapping[str, int],
    choices: MachineChoices,
    notes: list[str],
) -> tuple[PlannedDisk, ...]:
    known = {f"disk-{disk.key}": disk for disk in description.disks}
    wanted = list(sizes) if choices.disks is None else list(choices.disks)
    for key in wanted:
        if key not in sizes or key not in known:
            there = ", ".join(key for key in sizes if key in known) or "none"
            raise UsageError(f"the point describes no disk {key!r}; there are: {there}")
    for key, disk in known.items():
        if key not in wanted:
            why = "was not asked for" if key in sizes else "is not in the point"
            notes.append(f"the disk {disk.place or disk.label} {why}: the VM comes without it")
    if not wanted:
        raise UsageError("there is no disk to restore")
    return tuple(PlannedDisk(key, known[key], sizes[key]) for key in wanted)


def _plan_cards(
    cards: Sequence[NetworkCard],
    networks: Sequence[Network],
    choices: MachineChoices,
    notes: list[str],
) -> tuple[PlannedCard, ...]:
    rule = choices.networks
    _refuse_unused(cards, networks, rule)
    rest = rule.rest or ("disconnected" if choices.origin_exists else "keep")
    planned = []
    for card in cards:
        own = _origin_network(networks, card)
        new = next(
            (rule.mapped[name] for name in _names_of(card, own) if name in rule.mapped), None
        )
        if new is not None:
            network, connected = _network_named(networks, new), True
        elif own is not None:
            network, connected = own, rest == "keep"
        elif rest == "keep":
            raise UsageError(
                f"the network {_name_of(card)!r} of {card.label} is not at the destination; say "
                f"--network {_name_of(card)}=NEW or --network disconnected; "
                f"there are: {_names(networks)}"
            )
        elif networks:
            # VMware knows no card without a network; on this one it does not take part.
            network, connected = min(networks, key=lambda network: network.name), False
        else:
            notes.append(f"{card.label} is left out: there is no network at the destination")
            continue
        mac = "" if choices.origin_exists else card.mac
        planned.append(PlannedCard(card, network, connected and card.start_connected, mac))
        notes.extend(_notes_of(planned[-1], choices.origin_exists))
    if cards and rule.rest is None and choices.origin_exists:
        notes.append(
            "cards stay disconnected while the original VM may run; --network keep connects"
        )
    return tuple(planned)


def _notes_of(planned: PlannedCard, origin_exists: bool) -> list[str]:
    card = planned.card
    name = card.label or card.kind
    state = "connected" if planned.connected else "not connected"
    notes = [f"{name} on {planned.network.name!r}, {state}"]
    if origin_exists and card.mac_type == "manual":
        notes.append(f"{name} had the fixed address {card.mac}; it gets a new one")
    return notes


def _refuse_unused(
    cards: Sequence[NetworkCard], networks: Sequence[Network], rule: NetworkRule
) -> None:
    there = [name for card in cards for name in _names_of(card, _origin_network(networks, card))]
    for old in rule.mapped:
        if old not in there:
            shown = ", ".join(sorted(set(there))) or "none"
            raise UsageError(f"the VM has no network {old!r}; its networks: {shown}")


def _names_of(card: NetworkCard, own: Network | None) -> list[str]:
    """What a user may call its old network: also by the name that it has now."""
    names = (card.network, own.name if own else "", card.portgroup)
    return [name for name in names if name]


def _origin_network(networks: Sequence[Network], card: NetworkCard) -> Network | None:
    """The one it was on: a portgroup by key and switch (names change), others by name."""
    if card.portgroup:
        for network in networks:
            if (network.portgroup, network.switch) == (card.portgroup, card.switch):
                return network
    found = [network for network in networks if card.network and network.name == card.network]
    return found[0] if len(found) == 1 else None


def _network_named(networks: Sequence[Network], name: str) -> Network:
    found = [network for network in networks if name in (network.name, network.moref)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(network.moref for network in found)
        raise UsageError(f"there are several networks {name!r}; name one by its id: {ids}")
    raise UsageError(f"there is no network {name!r}; there are: {_names(networks)}")


def _name_of(card: NetworkCard) -> str:
    return card.network or card.portgroup


def _names(networks: Sequence[Network]) -> str:
    return ", ".join(sorted({network.name for network in networks})) or "none"
