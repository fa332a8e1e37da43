"""What of a VM's size this machine can give: no more cores than it has, no more memory than free.

Decides the reductions and tells them. Pure but for `Host.here`.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_fusefs.boot.hardware import MEMORY_MIN, Hardware
from backpoint_repo.sizes import format_size

_SHARE: Final = 0.75
"""Of the memory that is free: the mount's cache, and whatever else is started meanwhile."""


@dataclass(frozen=True)
class Host:
    """memory: MiB that are free, or could be."""

    cores: int
    memory: int

    @classmethod
    def here(cls) -> Host:
        cores = len(os.sched_getaffinity(0))
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return cls(cores, int(line.split()[1]) >> 10)
        return cls(cores, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20)

    @property
    def room(self) -> int:
        """MiB that guests may take together."""
        return max(MEMORY_MIN, int(self.memory * _SHARE))


def fitted(hardware: Hardware, host: Host, memory: int | None = None) -> Hardware:
    """memory: MiB that the user asks for, which is not doubted."""
    notes = list(hardware.notes)
    if hardware.cores > host.cores:
        notes.append(f"{host.cores} cores in place of {hardware.cores}: this machine has no more")
        hardware = dataclasses.replace(hardware, cores=host.cores, cores_per_socket=1)
    if memory is None and hardware.memory > host.room:
        less, more = format_size(host.room << 20), format_size(hardware.memory << 20)
        notes.append(
            f"{less} of memory in place of {more}: no more is free (--memory asks for more)"
        )
        hardware = dataclasses.replace(hardware, memory=host.room)
    return dataclasses.replace(hardware, notes=tuple(notes))
