"""The .vmx of a VM that runs from the backup: what of the stored one stays, and what goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.live.disk_slots import disks_by_slot
from backpoint_agent.live.made_vmx import make_vmx
from backpoint_agent.live.vmx_plan import MARK, PlannedVmx, VmxChoices, plan_vmx, slots_of
from backpoint_agent.live.vmx_text import Vmx, encode_vmx, parse_vmx
from backpoint_agent.restoring.description import (
    Boot,
    Controller,
    DescribedDisk,
    Drive,
    MachineDescription,
    NetworkCard,
    Slot,
)
from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.point import Disk, Point
from backpoint_repo.vmx_lines import VMX_SIZE_MAX

STORED = """\
#!/usr/bin/vmware
.encoding = "windows-1252"
config.version = "8"
virtualHW.version = "19"
displayName = "web01"
guestOS = "debian12-64"
memSize = "4096"
numvcpus = "2"
firmware = "efi"
nvram = "web01.nvram"
uuid.bios = "42 1e 4f 52 8a 1b 7c 3d-9e 6f 2b 4a 6c 8d 0e 1f"
uuid.location = "56 4d 00 00 00 00 00 00-00 00 00 00 00 00 00 01"
vc.uuid = "50 1e 4f 52 8a 1b 7c 3d-9e 6f 2b 4a 6c 8d 0e 1f"
ctkEnabled = "TRUE"
sched.swap.derivedName = "/vmfs/volumes/5f-1/web01/web01-1.vswp"
vmx.log.filename = "/vmfs/volumes/5f-1/logs/web01.log"
snapshot.redoNotWithParent = "TRUE"
migrate.hostlog = "./web01-1.hlog"
RemoteDisplay.vnc.password = "secret"
disk.EnableUUID = "TRUE"
pciPassthru0.present = "TRUE"
pciPassthru0.id = "00000:003:00.0"
serial0.present = "TRUE"
serial0.fileType = "file"
serial0.fileName = "/vmfs/volumes/5f-1/web01/console.log"
floppy0.present = "FALSE"
scsi0.present = "TRUE"
scsi0.virtualDev = "lsisas1068"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "web01-000002.vmdk"
scsi0:0.ctkEnabled = "TRUE"
scsi0:0.redo = ""
scsi0:1.present = "TRUE"
scsi0:1.fileName = "/vmfs/volumes/5f-2/data/data.vmdk"
scsi0:1.mode = "independent-nonpersistent"
scsi0:3.present = "TRUE"
scsi0:3.fileName = "scratch.vmdk"
scsi0:4.present = "FALSE"
scsi0:4.fileName = "gone.vmdk"
sata0.present = "TRUE"
sata0:0.present = "TRUE"
sata0:0.deviceType = "cdrom-image"
sata0:0.fileName = "/vmfs/volumes/iso/debian.iso"
sata0:0.startConnected = "TRUE"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "Production"
ethernet0.addressType = "vpx"
ethernet0.generatedAddress = "00:50:56:aa:bb:cc"
ethernet0.startConnected = "TRUE"
ethernet1.present = "TRUE"
ethernet1.dvs.switchId = "50 1e 00 00 00 00 00 00-00 00 00 00 00 00 00 02"
ethernet1.dvs.portgroupId = "dvportgroup-12"
ethernet1.dvs.portId = "17"
ethernet1.addressType = "static"
ethernet1.address = "00:50:56:00:00:07"
"""
DISKS = {"scsi0:0": "disk0.vmdk", "scsi0:1": "disk1.vmdk"}
COPY = VmxChoices("web01-live", "the number", DISKS, files=frozenset({"web01.nvram"}))


def planned(choices: VmxChoices = COPY) -> PlannedVmx:
    return plan_vmx(parse_vmx(STORED.encode(), "web01.vmx"), choices)


def test_a_copy_is_written_exactly() -> None:
    """Hardware stays; places, ids, ports, addresses and secrets of the old VM are gone."""
    assert (
        encode_vmx(planned().vmx).decode()
        == """\
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "web01-live"
guestOS = "debian12-64"
memSize = "4096"
numvcpus = "2"
firmware = "efi"
nvram = "web01.nvram"
uuid.bios = "42 1e 4f 52 8a 1b 7c 3d-9e 6f 2b 4a 6c 8d 0e 1f"
disk.EnableUUID = "TRUE"
scsi0.present = "TRUE"
scsi0.virtualDev = "lsisas1068"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "disk0.vmdk"
scsi0:1.present = "TRUE"
scsi0:1.fileName = "disk1.vmdk"
sata0.present = "TRUE"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "Production"
ethernet0.addressType = "generated"
ethernet0.startConnected = "FALSE"
ethernet1.present = "TRUE"
ethernet1.dvs.switchId = "50 1e 00 00 00 00 00 00-00 00 00 00 00 00 00 02"
ethernet1.dvs.portgroupId = "dvportgroup-12"
ethernet1.addressType = "generated"
scsi0:0.ctkEnabled = "FALSE"
scsi0:1.ctkEnabled = "FALSE"
sata0:0.present = "TRUE"
sata0:0.deviceType = "atapi-cdrom"
sata0:0.fileName = "emptyBackingString"
sata0:0.clientDevice = "TRUE"
sata0:0.startConnected = "FALSE"
ethernet1.startConnected = "FALSE"
uuid.action = "create"
ctkEnabled = "FALSE"
backpoint.live = "the number"
"""
    )


def test_what_cannot_be_had_again_is_told() -> None:
    """A note for each device that is left out; what was not present is none."""
    assert planned().notes == (
        "without a device of its old host (pcipassthru0)",
        "without a serial port (serial0)",
        "without the disk scsi0:3, which is not in the point",
    )


def test_in_the_originals_place_it_keeps_ids_and_addresses() -> None:
    """`--same-machine`: the guest, its licences and its DHCP server see the machine they know."""
    same = VmxChoices("web01", "n", DISKS, connected=True, same_machine=True)
    vmx, notes = planned(same).vmx, planned(same).notes
    assert vmx.get("uuid.action") == "keep"
    assert vmx.get("ethernet0.generatedAddress") == "00:50:56:aa:bb:cc"
    assert vmx.get("ethernet1.address") == "00:50:56:00:00:07"
    assert vmx.get("ethernet0.startConnected") == "TRUE"
    assert "nvram" not in vmx  # there is no such file in the session
    assert any("ethernet1 was on a distributed switch" in note for note in notes)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_.:]{0,20}", fullmatch=True), st.text()))
def test_what_is_written_is_read_again(values: dict[str, str]) -> None:
    """Whatever a value holds: quotes, pipes, line ends, any script."""
    values = {key: "".join(c for c in value if c.isprintable()) for key, value in values.items()}
    values["config.version"] = '8" |22\n'
    again = parse_vmx(encode_vmx(Vmx(values)), "it")
    assert dict(again.items()) == values


def test_what_people_edit_is_read_too() -> None:
    """In the encoding it names, without quotes, with comments; what is written is UTF-8."""
    data = '.encoding = "windows-1252"\nmemSize = 64 # MiB\ndisplayName = "Büro"\n'
    vmx = parse_vmx(data.encode("cp1252"), "it")
    assert (vmx.get("memsize"), vmx.get("displayname")) == ("64", "Büro")
    written = encode_vmx(vmx).decode()
    assert written == '.encoding = "UTF-8"\nmemSize = "64"\ndisplayName = "Büro"\n'


@given(st.binary(max_size=400), st.sampled_from(["scsi0:0", "ide1:1", "nvme3:14"]))
def test_any_bytes_give_a_safe_vmx_or_a_refusal(data: bytes, slot: str) -> None:
    """Nothing of a stranger's file decides whose VM it is, or which files are opened."""
    hostile = b'config.version = "8"\n' + STORED.encode() + data
    vmx = plan_vmx(parse_vmx(hostile, "it"), VmxChoices("n", "m", {slot: "disk0.vmdk"})).vmx
    assert vmx.get(MARK) == "m"
    files = {value for key, value in vmx.items() if key.lower().endswith(".filename")}
    assert files <= {"disk0.vmdk", "emptyBackingString"}
    assert vmx.get(f"{slot}.fileName") == "disk0.vmdk"
    assert slots_of(vmx) == [slot]


def test_what_is_no_vmx_is_refused() -> None:
    """Too large, or not a setting in it."""
    for data in (b"", b"\x00" * 100, b"a b\n", b'a = "b"\n' * VMX_SIZE_MAX):
        with pytest.raises(ObjectDamaged, match=r"web\.vmx"):
            parse_vmx(data, "web.vmx")


def described(**changes: object) -> MachineDescription:
    """A VM with a disk on SCSI and one on NVMe, a card, a drive."""
    values: dict[str, object] = {
        "name": "web01",
        "uuid": "421e4f52-8a1b-7c3d-9e6f-2b4a6c8d0e1f",
        "guest_id": "windows9Server64Guest",
        "hardware": "vmx-19",
        "cpus": 4,
        "cores_per_socket": 2,
        "memory_mb": 2048,
        "boot": Boot(firmware="efi", secure=True),
        "controllers": (
            Controller(key=1000, kind="VirtualLsiLogicSASController", bus=0),
            Controller(key=31000, kind="VirtualNVMEController", bus=0),
            Controller(key=15000, kind="VirtualAHCIController", bus=0),
        ),
        "disks": (
            DescribedDisk(key=31000, place="nvme0:0", label="2", size=1, file="", slot=Slot()),
            DescribedDisk(key=2000, place="scsi0:0", label="1", size=1, file="", slot=Slot()),
        ),
        "cards": (NetworkCard(key=4000, kind="VirtualE1000e", label="n", network="Lab"),),
        "drives": (Drive(key=16000, kind="VirtualCdrom", slot=Slot(controller=15000, unit=1)),),
        "extra": {"disk.EnableUUID": "TRUE", "memSize": "9"},
    }
    return MachineDescription.model_validate(values | changes)


def test_without_a_stored_vmx_one_is_made_of_what_vcenter_told() -> None:
    """Its buses, disks in their slots, firmware, card and advanced settings."""
    plan = plan_vmx(
        make_vmx(described()), VmxChoices("w", "n", {"nvme0:0": "disk0.vmdk", "scsi0:0": "d.vmdk"})
    )
    wanted = {
        "virtualHW.version": "19",
        "guestOS": "windows9srv-64",
        "memSize": "2048",
        "numvcpus": "4",
        "cpuid.coresPerSocket": "2",
        "uuid.bios": "42 1e 4f 52 8a 1b 7c 3d-9e 6f 2b 4a 6c 8d 0e 1f",
        "firmware": "efi",
        "uefi.secureBoot.enabled": "TRUE",
        "scsi0.virtualDev": "lsisas1068",
        "scsi0:0.fileName": "d.vmdk",
        "nvme0.present": "TRUE",
        "nvme0:0.fileName": "disk0.vmdk",
        "sata0:1.fileName": "emptyBackingString",
        "ethernet0.virtualDev": "e1000e",
        "ethernet0.networkName": "Lab",
        "ethernet0.startConnected": "FALSE",
        "disk.EnableUUID": "TRUE",
        "pciBridge4.virtualDev": "pcieRootPort",
    }
    assert {key: plan.vmx.get(key) for key in wanted} == wanted
    assert plan.notes == ()


def point_of(*disks: tuple[str, str], **capture: object) -> Point:
    """A point with disks of these keys and sources."""
    stored = tuple(Disk(key, 512, b"", 0, source) for key, source in disks)
    return Point(b"\0" * 16, "web01", 0.0, 0.0, "", stored, capture=dict(capture))


def test_disks_go_to_the_slots_that_the_agent_recorded() -> None:
    """Whatever order the point has them in."""
    point = point_of(("disk-31000", "x"), ("disk-2000", "y"))
    assert disks_by_slot(point, Vmx(), described()) == {
        "nvme0:0": "disk0.vmdk",
        "scsi0:0": "disk1.vmdk",
    }
    point = point_of(("a", ""), ("b", ""), disks={"b": {"slot": "scsi0:0"}, "a": {"slot": 3}})
    assert disks_by_slot(point, Vmx(), None) == {"scsi0:0": "disk1.vmdk", "scsi0:1": "disk0.vmdk"}


def test_disks_of_loose_images_go_by_their_names_then_by_order() -> None:
    """An image that was read from data-flat.vmdk is the disk whose descriptor is data.vmdk."""
    stored = parse_vmx(STORED.encode(), "it")
    point = point_of(("d0", "/images/data-flat.vmdk"), ("d1", "/images/other.raw"))
    assert disks_by_slot(point, stored, None) == {"scsi0:1": "disk0.vmdk", "scsi0:0": "disk1.vmdk"}
    many = point_of(*((f"d{number}", "") for number in range(5)))
    assert list(disks_by_slot(many, stored, None)) == [
        "scsi0:0", "scsi0:1", "scsi0:3", "scsi0:2", "scsi0:5",
    ]  # fmt: skip
