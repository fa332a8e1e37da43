"""A place where a volume may be: a disk, a partition, the inside of a mirror.

Decides what a volume in such a place is called, and by which names the guest knows the place.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from backpoint_fusefs.guest.parsers.layout.partition import Partition
from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signature import Signature
from backpoint_fusefs.guest.parsers.layout.stretch import Stretch
from backpoint_fusefs.guest.volume import Volume


@dataclass(frozen=True)
class Slot:
    """signature: what is there, once that is known."""

    name: str
    stretch: Stretch
    probe: Probe
    signature: Signature
    devices: tuple[str, ...] = ()
    partition: str = ""
    partition_label: str = ""
    problem: str = ""

    def volume(self, problem: str) -> Volume:
        """As the guest's user sees it; problem: empty if it can be read."""
        return Volume(
            self.name,
            self.stretch.size,
            self.stretch.pieces,
            self.signature.kind,
            self.signature.label,
            self.signature.uuid,
            self.devices,
            self.partition,
            self.partition_label,
            problem,
        )


def disk_name(disk: int) -> str:
    return f"disk{disk}"


def partition_name(disk: int, partition: Partition) -> str:
    return f"disk{disk}-p{partition.number}"


def disk_devices(disk: int, number: int | None = None) -> tuple[str, ...]:
    """What Linux calls the disk, or its partition, on the controllers that VMs have, if disks
    are found in their order."""
    letters = _letters(disk)
    plain = "" if number is None else str(number)
    after_digit = "" if number is None else f"p{number}"
    return (
        *(f"/dev/{prefix}{letters}{plain}" for prefix in ("sd", "vd", "xvd", "hd")),
        f"/dev/nvme{disk}n1{after_digit}",
    )


def _letters(disk: int) -> str:
    """a to z, aa, ab, ..."""
    found = ""
    while True:
        disk, letter = divmod(disk, 26)
        found = string.ascii_lowercase[letter] + found
        if not disk:
            return found
        disk -= 1
