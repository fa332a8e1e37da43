"""QEMU's command line: what the guest may reach, and that no name breaks out of its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.boot.accelerator import Accelerator
from backpoint_fusefs.boot.disk_slots import plan_slots
from backpoint_fusefs.boot.errors import MachineFailed
from backpoint_fusefs.boot.firmware import FirmwareFiles, prepare_firmware
from backpoint_fusefs.boot.hardware import BootDisk, DiskBus, Firmware, Hardware, Nic
from backpoint_fusefs.boot.host_limits import Host, fitted
from backpoint_fusefs.boot.machine_plan import Forward, MachinePlan
from backpoint_fusefs.boot.qemu_command import QemuCommand, Wires, plan_command

TCG = Accelerator("tcg", "a test")
TWO_CARDS = (Nic("vmxnet3", "00:0c:29:00:00:01"), Nic("pcnet32"))


def _command(
    hardware: Hardware = Hardware(nics=TWO_CARDS),  # noqa: B008
    firmware: FirmwareFiles | None = None,
    **wishes: Any,
) -> QemuCommand:
    wishes.setdefault("disks", [Path(f"/d/disk{disk.number}") for disk in hardware.disks])
    plan = MachinePlan(hardware, scratch=Path("/s"), **wishes)
    return plan_command(plan, TCG, firmware, Wires(3, 4, 5))


def _values(command: QemuCommand, option: str) -> list[str]:
    words = command.words
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def test_no_network_is_no_cable() -> None:
    """The guest has its cards, and none is connected to anything."""
    command = _command()
    assert _values(command, "-netdev") == []
    cards = [device for device in _values(command, "-device") if "romfile" in device]
    assert cards == ["vmxnet3,id=nic0,romfile=,mac=00:0c:29:00:00:01", "pcnet,id=nic1,romfile="]


def test_an_isolated_guest_reaches_nobody() -> None:
    """Forwards lead in; nothing leads out, and only this machine's loopback listens."""
    forwards = (Forward(8080, 80), Forward(2222, 22))
    command = _command(network="user", forwards=forwards)
    (network,) = _values(command, "-netdev")
    assert "restrict=on" in network.split(",")
    assert [word for word in network.split(",") if word.startswith("hostfwd")] == [
        "hostfwd=tcp:127.0.0.1:8080-:80",
        "hostfwd=tcp:127.0.0.1:2222-:22",
    ]
    assert "restrict=off" in _values(_command(network="user", isolated=False), "-netdev")[0]


@given(st.ip_addresses(v=4))
def test_a_guest_with_an_address_of_its_own_is_in_the_network(address: Any) -> None:
    """And none of our own addresses there is the guest's."""
    command = _command(network="user", forwards=(Forward(8080, 80, str(address)),))
    words = dict(word.partition("=")[::2] for word in _values(command, "-netdev")[0].split(","))
    assert words["hostfwd"] == f"tcp:127.0.0.1:8080-{address}:80"
    assert str(address) not in (words["host"], words["dns"])


def test_an_address_that_is_none_is_refused() -> None:
    """It would be an option of QEMU's."""
    with pytest.raises(MachineFailed, match="no IPv4 address"):
        _command(network="user", forwards=(Forward(1, 2, "1.2.3.4,guestfwd=x"),))


def test_a_switch_is_alone() -> None:
    """The user network beside it would answer for other guests; paths may hold commas."""
    command = _command(network="user", switch=(Path("/a,b/own"), Path("/a,b/peer")))
    (network,) = _values(command, "-netdev")
    assert network.endswith("local.path=/a,,b/own,remote.type=unix,remote.path=/a,,b/peer")
    assert "netdev=net0" in next(item for item in _values(command, "-device") if "nic0" in item)
    alone = _command(switch=(Path("/own"), Path("/peer")), hardware=Hardware())
    assert len(_values(alone, "-netdev")) == 1
    assert any("netdev=net0" in device for device in _values(alone, "-device"))


@given(st.text(), st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_no_name_becomes_an_option(name: str, file: str) -> None:
    """A VM's name stays in its place, a path stays a path; both are a stranger's."""
    hardware = Hardware(disks=(BootDisk("pvscsi", 0, 0, "disk0.vmdk"),))
    path = Path("/x") / file.encode("utf-8", "replace").decode()
    command = _command(hardware, name=name, disks=[path])
    (shown,) = _values(command, "-name")
    assert "," not in shown.removeprefix("guest=").replace(",,", "")
    assert shown.isprintable()
    node = json.loads(_values(command, "-blockdev")[0])
    assert node["file"]["filename"] == str(path)
    assert node["driver"] == "raw"


def test_the_machine_is_shut_in() -> None:
    """No configuration of the user's, no default devices, a sandbox, and it begins paused."""
    words = _command().words
    assert {"-no-user-config", "-nodefaults", "-S"} <= set(words)
    assert "spawn=deny" in _values(_command(), "-sandbox")[0]
    assert _values(_command(), "-display") == ["none"]
    (vnc,) = _values(_command(display="vnc"), "-vnc")
    assert vnc.startswith("127.0.0.1:")
    assert "password=on" in vnc


def test_secure_boot_has_the_board_and_the_variables_for_it(tmp_path: Path) -> None:
    """SMM guards them; plain EFI is on VMware's own board."""
    secure = Hardware(firmware="efi", secure_boot=True)
    files = prepare_firmware(secure, tmp_path)
    assert files is not None
    assert "secboot" in files.code.name
    assert files.variables.stat().st_size > 0
    assert _values(_command(secure, files), "-machine")[0].startswith("q35,smm=on")
    plain = Hardware(firmware="efi")
    files = prepare_firmware(plain, tmp_path)
    assert files is not None
    assert "secboot" not in files.code.name
    assert _values(_command(plain, files), "-machine")[0].startswith("pc,")
    assert prepare_firmware(Hardware(), tmp_path) is None


def test_a_missing_firmware_is_told_with_its_package(tmp_path: Path) -> None:
    """Nothing is guessed in its place."""
    with pytest.raises(MachineFailed, match="Debian package ovmf"):
        prepare_firmware(Hardware(firmware="efi"), tmp_path, folder=tmp_path)


_BUSES: list[DiskBus] = ["pvscsi", "lsilogic", "lsisas1068", "buslogic", "sata", "ide", "nvme"]
_DISKS = st.lists(
    st.tuples(st.sampled_from(_BUSES), st.integers(0, 4), st.integers(0, 63)), max_size=40
)
_LIMITS = {"pvscsi": 64, "lsisas1068": 8, "sata": 6, "ide": 2, "nvme": 16}


@given(
    _DISKS,
    st.sampled_from(["bios", "efi"]),
    st.booleans(),
    st.sampled_from([None, "pvscsi", "lsisas1068", "sata", "ide", "nvme"]),
)
def test_every_disk_has_a_slot_of_its_own(
    places: list[tuple[DiskBus, int, int]], firmware: Firmware, sata: bool, forced: DiskBus | None
) -> None:
    """On a controller that QEMU has, with as many units as that has; the note says what moved."""
    disks = tuple(BootDisk(*place, "disk.vmdk", at) for at, place in enumerate(places))
    hardware = Hardware(firmware=firmware, disks=disks, has_sata=sata)
    slots, notes = plan_slots(hardware, forced)
    assert len(set(slots)) == len(slots) == len(disks)
    for disk, slot in zip(disks, slots, strict=True):
        assert slot.unit < _LIMITS[slot.bus]
        assert slot.bus != "ide" or slot.controller < 2
        if firmware == "efi" and forced is None:
            assert slot.bus in ("sata", "ide", "nvme")
        if disk.bus != slot.bus and forced is None:
            assert any(" are on " in note for note in notes)
    command = _command(hardware, disk_bus=forced)
    drives = [device for device in _values(command, "-device") if "drive=disk" in device]
    assert len({device.partition(",drive=")[0] for device in drives}) == len(disks)
    assert [f"bootindex={at}" in drive for at, drive in enumerate(drives)] == [True] * len(disks)


def test_what_the_guest_has_a_driver_for_stays() -> None:
    """At the very place where it was."""
    places: list[tuple[DiskBus, int, int]] = [
        ("pvscsi", 1, 3),
        ("ide", 1, 0),
        ("sata", 0, 5),
        ("nvme", 0, 2),
        ("lsisas1068", 2, 7),
    ]
    disks = tuple(BootDisk(*place, "disk.vmdk", at) for at, place in enumerate(places))
    slots, notes = plan_slots(Hardware(disks=disks))
    assert [(slot.bus, slot.controller, slot.unit) for slot in slots] == places
    assert notes == ()


@pytest.mark.parametrize(("sata", "expected"), [(False, "ide"), (True, "sata")])
def test_a_parallel_scsi_disk_goes_where_the_guests_cd_drive_was(sata: bool, expected: str) -> None:
    """QEMU has no such controller; a driver for the CD drive's is in every guest."""
    hardware = Hardware(disks=(BootDisk("lsilogic", 0, 0, "disk0.vmdk"),), has_sata=sata)
    slots, notes = plan_slots(hardware)
    assert slots[0].bus == expected
    assert "LSI Logic parallel" in notes[0]


def test_a_large_vm_gets_what_this_machine_has() -> None:
    """And the user is told; what he asks for is not doubted."""
    large = Hardware(cores=64, cores_per_socket=16, memory=1 << 20)
    small = fitted(large, Host(cores=2, memory=4096))
    assert (small.cores, small.cores_per_socket, small.memory) == (2, 1, 3072)
    assert len(small.notes) == 2
    assert fitted(large, Host(64, 4096), memory=9999).memory == 1 << 20
    assert fitted(Hardware(), Host(1, 4096)) == Hardware()
    assert Host.here().cores >= 1
    assert Host.here().memory > 0
