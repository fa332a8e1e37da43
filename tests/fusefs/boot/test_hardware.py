"""The hardware of a VM, as its .vmx or the agent's machine.json tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.restoring.description import (
    Boot,
    BootDevice,
    Controller,
    DescribedDisk,
    Drive,
    MachineDescription,
    NetworkCard,
    Slot,
    encode_description,
)
from backpoint_fusefs.boot.disk_places import PointDisk
from backpoint_fusefs.boot.hardware import BootDisk, Hardware, Nic, hardware_of
from backpoint_fusefs.boot.machine_json import places_of_description, settings_of_description

WEB = b"""\
.encoding = "UTF-8"
config.version = "8"
firmware = "efi"
uefi.secureBoot.enabled = "TRUE"
guestOS = "windows2019srv-64"
numvcpus = "4"
cpuid.coresPerSocket = "2"
memSize = "8192"
nvram = "web.nvram"
scsi0.present = "TRUE"
scsi0.virtualDev = "lsisas1068"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "web.vmdk"
scsi1.virtualDev = "pvscsi"
scsi1:3.fileName = "/vmfs/volumes/5f-a/web/web_1-000002.vmdk"
scsi1:4.present = "FALSE"
scsi1:4.fileName = "gone.vmdk"
sata0:0.present = "TRUE"
sata0:0.deviceType = "cdrom-image"
sata0:0.fileName = "tools.iso"
nvme0:2.fileName = "fast.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.generatedAddress = "00:0C:29:AA:BB:CC"
ethernet1.present = "TRUE"
ethernet1.address = "01:00:5e:00:00:01"
uuid.bios = "56 4d 0e 11 22 33 44 55-66 77 88 99 aa bb cc dd"
bios.bootOrder = "hdd"
bios.hddOrder = "scsi1:3,scsi0:0"
"""


def _disks(*names: str) -> list[PointDisk]:
    return [PointDisk(number, "", name) for number, name in enumerate(names)]


def test_a_vmx_tells_all_of_it() -> None:
    """Disks are found by their names, whatever snapshots made of those, and in the boot order."""
    found = hardware_of(WEB, _disks("web.vmdk", "fast.vmdk", "web_1-000004-delta.vmdk"))
    assert (found.firmware, found.secure_boot) == ("efi", True)
    assert (found.cores, found.cores_per_socket, found.memory) == (4, 2, 8192)
    assert found.disks == (
        BootDisk("pvscsi", 1, 3, "disk2.vmdk", 2),
        BootDisk("lsisas1068", 0, 0, "disk0.vmdk", 0),
        BootDisk("nvme", 0, 2, "disk1.vmdk", 1),
    )
    # The second card's address is that of a group, which no card can have.
    assert found.nics == (Nic("vmxnet3", "00:0c:29:aa:bb:cc"), Nic("e1000"))
    assert found.local_time
    assert found.has_sata
    assert found.uuid == "564d0e11-2233-4455-6677-8899aabbccdd"
    assert found.nvram == "web.nvram"
    assert len(found.notes) == 1
    assert "EFI" in found.notes[0]


def test_without_a_vmx_something_is_assumed_and_told() -> None:
    """All disks on pvscsi, in the point's order."""
    found = hardware_of(None, _disks("a", "b"))
    assert [(disk.bus, disk.unit, disk.number) for disk in found.disks] == [
        ("pvscsi", 0, 0),
        ("pvscsi", 1, 1),
    ]
    assert (found.firmware, found.cores, found.memory) == ("bios", 1, 1024)
    assert "no .vmx" in found.notes[0]


def test_the_place_counts_more_than_the_name() -> None:
    """Two datastores may each have a web.vmdk; the agent knows where each disk was."""
    vmx = b'scsi0:0.fileName = "web.vmdk"\nscsi0:1.fileName = "/vmfs/volumes/b/web.vmdk"\n'
    disks = [PointDisk(0, "scsi0:1", "web.vmdk"), PointDisk(1, "scsi0:0", "web.vmdk")]
    assert [disk.unit for disk in hardware_of(vmx, disks).disks] == [1, 0]


def test_names_that_say_nothing_are_taken_in_order_and_told() -> None:
    """A disk that was converted before it was backed up; one alone is no guess."""
    one = hardware_of(b'ide0:0.fileName = "web.vmdk"', _disks("system.qcow2"))
    assert (one.disks[0].bus, one.notes) == ("ide", ())
    two = hardware_of(
        b'scsi0:10.fileName = "b.vmdk"\nscsi0:2.fileName = "a.vmdk"', _disks("x.raw", "y.raw")
    )
    assert [disk.unit for disk in two.disks] == [2, 10]
    assert "order" in two.notes[0]


def test_disks_that_the_vmx_does_not_name_come_last() -> None:
    """As after a disk was removed; none of the point's is left out."""
    found = hardware_of(b'sata0:1.fileName = "b.vmdk"', _disks("a.vmdk", "b.vmdk"))
    assert [(disk.number, disk.bus) for disk in found.disks] == [(1, "sata"), (0, "pvscsi")]
    assert "does not name" in found.notes[0]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"", "lsilogic"),
        (b'scsi0.virtualDev = "PVSCSI"', "pvscsi"),
        (b'scsi0.virtualDev = "buslogic"', "buslogic"),
        (b'scsi0.virtualDev = "what"', "lsilogic"),
    ],
)
def test_the_controller_is_the_one_it_says(lines: bytes, expected: str) -> None:
    """Or VMware's default."""
    found = hardware_of(lines + b'\nscsi0:0.fileName = "a.vmdk"', _disks("a.vmdk"))
    assert found.disks[0].bus == expected


_KEYS = [
    *("firmware", "uefi.secureBoot.enabled", "numvcpus", "cpuid.coresPerSocket", "memsize"),
    *("scsi0.virtualDev", "scsi0:0.fileName", "scsi0:0.deviceType", "scsi0:0.present"),
    *("scsi9:99.fileName", "ide0:0.fileName", "nvme3:63.fileName", "sata0:0.present"),
    *("ethernet0.present", "ethernet0.address", "ethernet0.virtualDev", "bios.hddOrder"),
    *("uuid.bios", "nvram", "guestOS", "encryption.keySafe"),
]
_LINES = st.lists(
    st.tuples(
        st.sampled_from(_KEYS),
        st.one_of(
            st.text(max_size=20),
            st.sampled_from(["TRUE", "efi", "0", "-1", "999999999999999999", "a.vmdk", "disk"]),
        ),
    ),
    max_size=12,
)


def _sane(hardware: Hardware, disks: int) -> None:
    assert sorted(disk.number for disk in hardware.disks) == list(range(disks))
    assert hardware.cores % hardware.cores_per_socket == 0
    assert 1 <= hardware.cores <= 768
    assert hardware.memory >= 16
    places = {(disk.bus, disk.controller, disk.unit) for disk in hardware.disks}
    assert len(places) == disks


@given(_LINES, st.integers(0, 70))
def test_whatever_it_says_it_is_hardware(lines: list[tuple[str, str]], disks: int) -> None:
    """Every disk is there once, at a place of its own; sizes are in bounds."""
    vmx = "\n".join(f'{key} = "{value}"' for key, value in lines).encode("utf-8", "replace")
    points = [
        PointDisk(number, "scsi0:0" if number < 3 else "", "a.vmdk") for number in range(disks)
    ]
    _sane(hardware_of(vmx, points), disks)


def _description(**fields: Any) -> bytes:
    machine = MachineDescription(
        name="web",
        uuid="564d0e11-2233-4455-6677-8899aabbccdd",
        guest_id="debian12_64Guest",
        cpus=2,
        memory_mb=512,
        boot=Boot(firmware="efi", secure=True, order=(BootDevice(kind="disk", key=2001),)),
        controllers=(
            Controller(key=1000, kind="ParaVirtualSCSIController", bus=0),
            Controller(key=15000, kind="VirtualAHCIController", bus=0),
        ),
        disks=(
            DescribedDisk(
                key=2000,
                place="scsi0:0",
                label="Hard disk 1",
                size=1,
                file="[ds] web/web.vmdk",
                slot=Slot(controller=1000, unit=0),
            ),
            DescribedDisk(
                key=2001,
                place="scsi0:1",
                label="Hard disk 2",
                size=1,
                file="[ds] web/web_1.vmdk",
                slot=Slot(controller=1000, unit=1),
            ),
        ),
        cards=(NetworkCard(key=4000, kind="VirtualVmxnet3", label="n", mac="00:50:56:00:00:01"),),
        drives=(Drive(key=16000, kind="VirtualCdrom", slot=Slot(controller=15000, unit=0)),),
    )
    return encode_description(machine.model_dump(mode="json") | fields)


def test_the_agents_description_stands_for_a_vmx() -> None:
    """What the agent writes is understood, the boot order included."""
    data = _description()
    places = places_of_description(data)
    assert places == {"disk-2000": "scsi0:0", "disk-2001": "scsi0:1"}
    disks = [PointDisk(0, places["disk-2000"]), PointDisk(1, places["disk-2001"])]
    found = hardware_of(None, disks, data)
    assert (found.firmware, found.secure_boot, found.cores, found.memory) == ("efi", True, 2, 512)
    assert [(disk.bus, disk.unit, disk.number) for disk in found.disks] == [
        ("pvscsi", 1, 1),
        ("pvscsi", 0, 0),
    ]
    assert found.nics == (Nic("vmxnet3", "00:50:56:00:00:01"),)
    assert found.has_sata
    assert found.uuid == "564d0e11-2233-4455-6677-8899aabbccdd"


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(["boot", "controllers", "disks", "cards", "drives", "cpus", "memory_mb"]), _JSON
)
def test_a_forged_description_is_hardware_too(field: str, value: object) -> None:
    """Any JSON in place of any part."""
    _sane(hardware_of(None, _disks("a", "b"), _description(**{field: value})), 2)


@given(st.one_of(st.binary(max_size=100), _JSON.map(lambda value: json.dumps(value).encode())))
def test_no_description_raises(data: bytes) -> None:
    """Nor is it believed to be one."""
    settings_of_description(data)
    _sane(hardware_of(None, _disks("a"), data), 1)
