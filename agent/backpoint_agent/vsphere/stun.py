"""How long a VM stood still while a snapshot was made or removed, out of its vmware.log.

vCenter does not tell; ESXi writes it down: "Checkpoint_Unstun: vm stopped for 123456 us".
What cannot be read is unknown (None), never zero.
"""

from __future__ import annotations

import re
from typing import Final

from backpoint_agent.machine import Machine
from backpoint_agent.vsphere.datastore_files import DatastoreFile
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import BackpointError

_STOPPED: Final = re.compile(rb"Checkpoint_Unstun: vm stopped for (\d{1,12}) us")
_TAIL: Final = 1 << 20


class StunLog:
    """The vmware.log of one VM, from where it ended when this object was made."""

    def __init__(self, vcenter: VCenter, machine: Machine) -> None:
        """Raises nothing: a log that cannot be read stays unknown."""
        folder = machine.vmx.rpartition("/")[0]
        self._file = DatastoreFile(vcenter, machine.datacenter, f"{folder}/vmware.log")
        self._mark = self._size()

    def since(self) -> float | None:
        """Seconds the VM stood still since the last call, or since the beginning."""
        before, self._mark = self._mark, self._size()
        if before is None or self._mark is None:
            return None
        try:
            # ESXi starts a new file when the log is full: then all of it is new.
            start = before if before <= self._mark else 0
            start = max(start, self._mark - _TAIL)
            text = self._file.read(start, self._mark - start) if self._mark > start else b""
        except BackpointError:
            return None
        return sum(int(found) for found in _STOPPED.findall(text)) / 1e6

    def _size(self) -> int | None:
        try:
            return self._file.size()
        except BackpointError:
            return None
