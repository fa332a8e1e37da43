"""A VM as the agent sees it: frozen facts out of one inventory sweep or one look at a VM.

Pure data, no pyvmomi. Managed objects are named by their moref value ("vm-57"), which is good for
one vCenter; what tells a VM from all others over years is its `Identity`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PowerState = Literal["poweredOn", "poweredOff", "suspended"]


@dataclass(frozen=True)
class Identity:
    """vcenter: the vCenter's instanceUuid. instance: the VM's instanceUuid there."""

    vcenter: str
    instance: str

    def __str__(self) -> str:
        return f"{self.vcenter}/{self.instance}"


@dataclass(frozen=True)
class VirtualDisk:
    """One disk, live or as a snapshot froze it. file: "[datastore] folder/name.vmdk".

    device_key: of the VirtualDevice, with the controller's place as `slot` ("scsi0:1").
    size: bytes. change_id: None where change tracking gave none. disk_uuid: backing.uuid, "" where
    the backing has none. object_id: diskObjectId. mode: backing.diskMode. has_parent: the backing
    is a delta on another file. unfit: why no snapshot covers it (independent, physical RDM, shared
    bus, encrypted ...), None where one does.
    """

    device_key: int
    slot: str
    label: str
    file: str
    size: int
    disk_uuid: str
    object_id: str
    mode: str
    change_id: str | None = None
    has_parent: bool = False
    unfit: str | None = None

    @property
    def key(self) -> str:
        """The disk's key in restore points. The device key stays with a disk for its life."""
        return f"disk-{self.device_key}"

    @property
    def datastore(self) -> str:
        """Name of the datastore it lies on; "" where the backing has no file."""
        return self.file[1:].partition("] ")[0] if self.file.startswith("[") else ""


@dataclass(frozen=True)
class SnapshotNote:
    """One snapshot of a VM's tree. moref: "snapshot-70". depth: 0 for a root."""

    moref: str
    name: str
    description: str
    created: float
    depth: int


@dataclass(frozen=True)
class Machine:
    """A VM at the moment of the look.

    name: as vSphere shows it ("a/b", not "a%2fb"); host: the host's name.
    folder: inventory path of the VM's folder, "DC0/vm/production/web"; pool: path of the resource
    pool, "DC0/host/C0/Resources/web"; cluster: path, "DC0/host/C0", "" for a stand-alone host.
    Paths are as vCenter's search index takes them: "%2f" stands for a slash in a name.
    tags: "category/name"; attributes: custom attributes; uuid: the BIOS uuid;
    vmx: "[datastore] folder/name.vmx"; question: the pending question's text, None if none.
    hindrances: why vCenter cannot make a snapshot of it, whatever the job says; see `fitness.py`.
    no_tags: why `tags` is empty for want of an answer, None where the tags are known.
    from_backup: our mark on a VM that runs from the backup (`live/vmx_plan.MARK`), else "".
    """

    moref: str
    name: str
    identity: Identity
    uuid: str
    datacenter: str
    folder: str
    pool: str
    host: str
    cluster: str
    datastores: tuple[str, ...]
    tags: tuple[str, ...]
    attributes: dict[str, str]
    template: bool
    power: PowerState
    hardware_version: int
    guest_id: str
    guest_name: str
    tools_running: bool
    vmx: str
    disks: tuple[VirtualDisk, ...]
    snapshots: tuple[SnapshotNote, ...] = ()
    current_snapshot: str | None = None
    change_tracking: bool = False
    change_tracking_supported: bool = True
    consolidation_needed: bool = False
    connected: bool = True
    question: str | None = None
    hindrances: tuple[str, ...] = ()
    no_tags: str | None = None
    from_backup: str = ""
