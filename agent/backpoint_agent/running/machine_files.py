"""The VM's own small files: .vmx, nvram, and its configuration as vCenter has it.

Decides which belong into a point. One that cannot be read is told as a warning: disks are worth
keeping without it.
"""

from __future__ import annotations

import re
from typing import Final

from backpoint_agent.errors import VSphereError
from backpoint_agent.machine import Machine
from backpoint_agent.restoring.description import FILE_NAME, encode_description
from backpoint_agent.restoring.hardware import describe_hardware
from backpoint_agent.running.outcome import Notes
from backpoint_agent.vsphere.datastore_files import DatastoreFile
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import SourceError

_FILE_MAX: Final = 4 << 20
"""A .vmx has some KiB, an nvram 74 to 270 KiB."""
_NVRAM: Final = re.compile(rb'^\s*nvram\s*=\s*"([^"/\r\n]{1,255})"\s*$', re.MULTILINE | re.I)


def read_machine_files(vcenter: VCenter, machine: Machine, notes: Notes) -> dict[str, bytes]:
    """Content by name. Raises ObjectGone-like trouble never: what is missing is in `notes`."""
    files = {}
    try:
        vm = vcenter.object("VirtualMachine", machine.moref)
        config = vcenter.call("reading the configuration", lambda: vm.config)
        files[FILE_NAME] = encode_description(describe_hardware(config))
    except VSphereError as error:
        notes.warn(f"the configuration is not in the point: {error}")
    vmx = _read(vcenter, machine, machine.vmx, notes)
    if vmx is None:
        return files
    files[_base_name(machine.vmx)] = vmx
    if named := _NVRAM.search(vmx):
        name = named[1].decode(errors="replace")
        path = f"{machine.vmx.rpartition('/')[0]}/{name}"
        nvram = _read(vcenter, machine, path, notes)
        if nvram is not None:
            files[name] = nvram
    return files


def _read(vcenter: VCenter, machine: Machine, path: str, notes: Notes) -> bytes | None:
    try:
        return DatastoreFile(vcenter, machine.datacenter, path).read_all(_FILE_MAX)
    except (VSphereError, SourceError) as error:
        notes.warn(f"{_base_name(path)} is not in the point: {error}")
        return None


def _base_name(path: str) -> str:
    return path.rpartition("/")[2] or path
