"""What the members of a group need of each other: when each may start, what each gets.

Pure. Decides moments, shares of this machine's memory, addresses of cards that have none, and
addresses for whoever asks at ports. What members are is for `group_file.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from backpoint_fusefs.boot.group_file import Member
from backpoint_fusefs.boot.hardware import MEMORY_MIN

_PREFIX: Final = "52:54:00:b7"
"""QEMU's own range: no card of VMware's is in it."""
_HOSTS: Final = range(253, 0, -1)
"""The highest first: the last and the first tend to be routers."""


def starts_at(member: Member, began: float, ready_at: Mapping[str, float]) -> float | None:
    """When it may start; None while one that it is after is not ready. ready_at: by name."""
    if not all(name in ready_at for name in member.after):
        return None
    return max((ready_at[name] for name in member.after), default=began) + member.wait


def plan_memory(asked: Sequence[int | None], had: Sequence[int], room: int) -> list[int]:
    """MiB for each. asked: what the file says, which is not doubted. room: MiB that all may take
    together; where it is too little, those without a word share what is left."""
    left = max(0, room - sum(size for size in asked if size is not None))
    wanted = sum(size for word, size in zip(asked, had, strict=True) if word is None)
    return [
        word or (size if wanted <= left else max(MEMORY_MIN, size * left // wanted))
        for word, size in zip(asked, had, strict=True)
    ]


def card_address(number: int) -> str:
    """MAC of a member's card that the VM's hardware gives none. Different in a group."""
    return f"{_PREFIX}:{number >> 8:02x}:{number & 255:02x}"


def probe_addresses(members: Sequence[Member]) -> dict[str, list[IPv4Address]]:
    """By name of each member with a port to ask at: addresses near it that no member of the file
    has, the best first, and no two of them begin with the same."""
    taken = {IPv4Address(member.address) for member in members if member.address}
    found = {}
    for member in members:
        if member.ready is None or member.ready.port is None:
            continue
        network = IPv4Network(f"{member.address}/24", strict=False)
        free = [network[host] for host in _HOSTS if network[host] not in taken]
        found[member.title] = free
        taken.add(free[0])
    return found
