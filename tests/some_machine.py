"""VMs and disks made of nothing but facts, for what decides from facts alone."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from backpoint_agent.machine import Identity, Machine, VirtualDisk

VCENTER = "11111111-2222-3333-4444-555555555555"


def some_disk(number: int = 0, **changes: Any) -> VirtualDisk:
    """The disk at "scsi0:<number>" of 1 MiB, with whatever is given changed."""
    disk = VirtualDisk(
        device_key=2000 + number,
        slot=f"scsi0:{number}",
        label=f"Hard disk {number + 1}",
        file=f"[ds1] web/web_{number}.vmdk",
        size=1 << 20,
        disk_uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))),
        object_id=f"1-{2000 + number}",
        mode="persistent",
    )
    return dataclasses.replace(disk, **changes)


def some_machine(name: str = "web", number: int = 1, **changes: Any) -> Machine:
    """A running VM with one disk; its moref and uuids are of `number`."""
    own = str(uuid.uuid5(uuid.NAMESPACE_URL, str(number)))
    machine = Machine(
        moref=f"vm-{number}",
        name=name,
        identity=Identity(VCENTER, own),
        uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, str(number))),
        datacenter="DC0",
        folder="DC0/vm",
        pool="DC0/host/DC0_C0/Resources",
        host="DC0_C0_H0",
        cluster="DC0/host/DC0_C0",
        datastores=("ds1",),
        tags=(),
        attributes={},
        template=False,
        power="poweredOn",
        hardware_version=19,
        guest_id="debian12_64Guest",
        guest_name="Debian",
        tools_running=True,
        vmx=f"[ds1] {name}/{name}.vmx",
        disks=(some_disk(),),
    )
    return dataclasses.replace(machine, **changes)
