"""What a VM consists of, as a point keeps it: `machine.json`.

Decides the file's format: every part that a restore rebuilds, and by name what it cannot. Written
by `hardware.py` during a backup, read by a restore years later, so unknown keys are ignored and
only a newer version is refused. Knows no vCenter. Device keys are the origin's own.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backpoint_repo.errors import ObjectDamaged, UnknownFormat

FILE_NAME: Final = "machine.json"
VERSION: Final = 1
FLAGS: Final = (
    "enableLogging",
    "monitorType",
    "diskUuidEnabled",
    "virtualMmuUsage",
    "virtualExecUsage",
    "vvtdEnabled",
    "vbsEnabled",
)
"""What is kept of VMware's `FlagInfo`."""
SWITCHES: Final = (
    "cpuHotAddEnabled",
    "cpuHotRemoveEnabled",
    "memoryHotAddEnabled",
    "memoryReservationLockedToMax",
    "nestedHVEnabled",
    "vPMCEnabled",
    "swapPlacement",
)
"""What is kept beside them, named alike in `ConfigInfo` and `ConfigSpec`."""
_MANY: Final = 4096
"""More devices or settings than any VM has: the file may be forged."""

Key = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]
Text = Annotated[str, Field(max_length=1 << 16)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)


class Slot(_Part):
    """Where a device sits: its controller's key and the number there; pci: what the guest sees, and
    names its network cards by."""

    controller: Key | None = None
    unit: Key | None = None
    pci: Key | None = None


class Controller(_Part):
    """kind: VMware's class name ("ParaVirtualSCSIController"); sharing: of a SCSI bus."""

    key: Key
    kind: Text
    bus: Count
    sharing: Text = "noSharing"
    slot: Slot = Slot()


class DescribedDisk(_Part):
    """size: bytes. place: "scsi0:1". sharing: None where the backing does not say."""

    key: Key
    place: Text
    label: Text
    size: Count
    file: Text
    slot: Slot
    mode: Text = "persistent"
    thin: bool | None = None
    write_through: bool | None = None
    sharing: Text | None = None
    uuid: Text = ""


class NetworkCard(_Part):
    """kind: VMware's class name ("VirtualVmxnet3"). network: its name where the configuration has
    one. portgroup, switch: key and uuid of a distributed one. mac_type: manual, generated or
    assigned."""

    key: Key
    kind: Text
    label: Text
    network: Text = ""
    portgroup: Text = ""
    switch: Text = ""
    mac: Text = ""
    mac_type: Text = ""
    start_connected: bool = True
    wake_on_lan: bool = True
    slot: Slot = Slot()


class Drive(_Part):
    """A CD or floppy drive; comes back empty."""

    key: Key
    kind: Literal["VirtualCdrom", "VirtualFloppy"]
    slot: Slot


class Video(_Part):
    """memory_kb: video memory; auto: chosen by the host."""

    memory_kb: Count | None = None
    displays: Count | None = None
    auto: bool | None = None
    three_d: bool | None = None


class Share(_Part):
    """Of CPU (MHz) or memory (MB). limit: -1 is none. level: low, normal, high, custom."""

    reservation: int | None = None
    limit: int | None = None
    level: Text | None = None
    shares: int | None = None


class BootDevice(_Part):
    """kind: disk, network, cdrom, floppy. key: of the disk or the card."""

    kind: Literal["disk", "network", "cdrom", "floppy"]
    key: Key | None = None


class Boot(_Part):
    """Delays in ms."""

    firmware: Text = "bios"
    secure: bool = False
    delay_ms: Count | None = None
    enter_setup: bool | None = None
    retry: bool | None = None
    retry_delay_ms: Count | None = None
    network_protocol: Text | None = None
    order: tuple[BootDevice, ...] = ()


class MachineDescription(_Part):
    """A VM's configuration. hardware: "vmx-19". flags: FLAGS and SWITCHES that the
    origin had set. extra: advanced settings,
    without those that belong to one instance. left_out: what a restore does not bring back, for
    the user."""

    format: Literal["backpoint machine"] = "backpoint machine"
    version: int = VERSION
    name: Text
    uuid: Text = ""
    instance: Text = ""
    guest_id: Text = "otherGuest"
    alternate_guest_name: Text = ""
    hardware: Text = ""
    annotation: Text = ""
    vmx: Text = ""
    cpus: Annotated[int, Field(ge=1, le=_MANY)]
    cores_per_socket: Annotated[int, Field(ge=0, le=_MANY)] = 1
    memory_mb: Annotated[int, Field(ge=4, lt=1 << 40)]
    cpu_share: Share = Share()
    memory_share: Share = Share()
    flags: Annotated[dict[Text, bool | str], Field(max_length=_MANY)] = {}
    boot: Boot = Boot()
    controllers: Annotated[tuple[Controller, ...], Field(max_length=_MANY)] = ()
    disks: Annotated[tuple[DescribedDisk, ...], Field(max_length=_MANY)] = ()
    cards: Annotated[tuple[NetworkCard, ...], Field(max_length=_MANY)] = ()
    drives: Annotated[tuple[Drive, ...], Field(max_length=_MANY)] = ()
    video: Video = Video()
    extra: Annotated[dict[Text, Text], Field(max_length=_MANY)] = {}
    left_out: Annotated[tuple[Text, ...], Field(max_length=_MANY)] = ()


def encode_description(description: dict[str, Any]) -> bytes:
    """The content of `machine.json`; readable by a person."""
    return json.dumps(description, indent=1, sort_keys=True).encode()


def decode_description(data: bytes, what: str) -> MachineDescription:
    """what: the file and its point, for the message.

    Raises UnknownFormat where a newer version wrote it, ObjectDamaged where it is none.
    """
    try:
        loaded = json.loads(data)
        # Half a surrogate pair is JSON, and nothing that vCenter could be told.
        json.dumps(loaded, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ObjectDamaged(f"{what} is no JSON") from None
    version = loaded.get("version") if isinstance(loaded, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise UnknownFormat(f"{what} was written by a newer version of Backpoint ({version})")
    try:
        return MachineDescription.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise ObjectDamaged(f"{what} describes no VM: {at}: {first['msg']}") from None
