"""Guest disks for tests, demo and benchmarks: made on the spot, the same from the same seed.

`build_bootable` makes one that QEMU boots in seconds, `build_data_disk` one full of files, and
`change_data_disk` lets a day pass on it. All need root (loop devices) and the packages that
tools/setup installs. Knows nothing of Backpoint.
"""

from guest_disks.boot import BootReport, NoMarker, boot
from guest_disks.bootable import build_bootable
from guest_disks.data_disk import DayOfWork, build_data_disk, change_data_disk
from guest_disks.partition import Filesystem, PartitionTable, attached, mounted

__all__ = [
    "BootReport",
    "DayOfWork",
    "Filesystem",
    "NoMarker",
    "PartitionTable",
    "attached",
    "boot",
    "build_bootable",
    "build_data_disk",
    "change_data_disk",
    "mounted",
]
