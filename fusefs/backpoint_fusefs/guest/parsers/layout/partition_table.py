"""Which partition table a disk has, if any.

As in the kernel a GPT counts if the MBR protects it (a hybrid MBR does, too), or if the MBR is
empty or gone; an old GPT behind a newer MBR does not.
"""

from __future__ import annotations

from backpoint_fusefs.guest.parsers.layout.gpt import read_gpt
from backpoint_fusefs.guest.parsers.layout.mbr import protects_gpt, read_mbr
from backpoint_fusefs.guest.parsers.layout.partition import PartitionTable
from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signatures import boot_signature


def read_table(probe: Probe) -> PartitionTable:
    """Without partitions where the disk has none, or where its first sector is a filesystem's."""
    if boot_signature(probe) is not None:
        return PartitionTable()
    protected = protects_gpt(probe)
    if protected is not False:
        table = read_gpt(probe)
        if table is not None and (protected or not table.problem):
            return table
        if protected:
            return PartitionTable("GPT", problem="its GPT partition table is gone from both ends")
    return read_mbr(probe) or PartitionTable()
