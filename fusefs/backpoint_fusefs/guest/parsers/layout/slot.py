"""A place where a volume may be: a disk, a partition, the inside of a mirror.

Decides what a volume in such a place is called. /dev/sda1 and the like are not among its `devices`:
they depend on the guest's drivers and their order, so `root_view` guesses them and says so.
"""

from __future__ import annotations

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
