"""Windows drives: by the registry, and by order where it does not tell."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.guest.filesystem import FileId, GuestDamaged
from backpoint_fusefs.guest.root_view.choose import plan_root
from backpoint_fusefs.guest.root_view.drive_letters import letters_by_order, letters_of
from backpoint_fusefs.guest.root_view.plan import Mount, RootPlan
from backpoint_fusefs.guest.volume import Piece, Volume

MIB = 1 << 20
HIVE = b"Windows/System32/config/SYSTEM"
CLEAN = struct.pack("<4sII", b"regf", 7, 7)
DIRTY = struct.pack("<4sII", b"regf", 8, 7)
GUID = "4d1c7b1e-0a5b-4c36-8b5a-0b6f6e2f0001"
GUID_ON_DISK = bytes.fromhex("1e7b1c4d5b0a364c8b5a0b6f6e2f0001")
"""As in a GPT and in the registry: the first three numbers are little-endian."""


def volume(name: str, disk: int, offset: int, kind: str = "ntfs", **facts: object) -> Volume:
    """A partition."""
    pieces = (Piece(0, MIB, MIB, ((disk, offset),)),)
    return Volume(name, MIB, pieces, kind, **facts)  # type: ignore[arg-type]


RESERVED = volume("disk0-p1", 0, MIB, partition="1234abcd-01", label="System Reserved")
SYSTEM = volume("disk0-p2", 0, 51 * MIB, partition="1234abcd-02")
DATA = volume("disk1-p2", 1, 129 * MIB, partition=GUID.upper(), label="Data")
CLONE = volume("disk2-p2", 2, 51 * MIB, partition="1234abcd-02")
VOLUMES = (DATA, CLONE, RESERVED, SYSTEM)


def mbr(signature: int, offset: int) -> bytes:
    """As Windows writes it."""
    return signature.to_bytes(4, "little") + offset.to_bytes(8, "little")


C = {"\\DosDevices\\C:": mbr(0x1234ABCD, 51 * MIB)}
D = {"\\DosDevices\\D:": b"DMIO:ID:" + GUID_ON_DISK}
TEXT = "\\??\\SCSI#CdRom&Ven_VBOX#4&0123456&0&010000".encode("utf-16-le")


@dataclass
class Files:
    """trees: path -> content by volume, with no case as Windows. drives: by volume."""

    trees: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    drives: dict[str, dict[str, bytes]] = field(default_factory=dict)
    hives: list[bytes] = field(default_factory=list)
    damaged_hive: bool = False

    def exists(self, volume_name: str, subvolume: bytes | None, path: bytes) -> bool:
        assert subvolume is None
        tree = self.trees.get(volume_name, {})
        return path in tree or any(each.startswith(path + b"/") for each in tree)

    def names(self, volume_name: str, subvolume: bytes | None, folder: bytes) -> Iterable[bytes]:
        assert subvolume is None
        above = folder + b"/" if folder else b""
        tree = self.trees.get(volume_name, {})
        return {path[len(above) :].split(b"/")[0] for path in tree if path.startswith(above)}

    def read_file(
        self, volume_name: str, subvolume: bytes | None, path: bytes, max_size: int
    ) -> bytes | None:
        content = self.trees.get(volume_name, {}).get(path)
        return None if content is None else content[:max_size]

    def subvolumes(self, volume_name: str) -> Mapping[bytes, FileId]:
        raise AssertionError(f"{volume_name} is not btrfs")

    def default_subvolume(self, volume_name: str) -> FileId:
        raise AssertionError(f"{volume_name} is not btrfs")

    def mounted_devices(self, volume_name: str, hive: bytes) -> Mapping[str, bytes]:
        self.hives.append(hive)
        if self.damaged_hive:
            raise GuestDamaged("the registry hive ends too early")
        return self.drives[volume_name]


def test_partitions_of_both_tables() -> None:
    """By signature and offset, and by GUID; of cloned disks the first."""
    assert letters_of({**C, **D}, VOLUMES) == ({"C": SYSTEM, "D": DATA}, [])


@pytest.mark.parametrize(
    ("name", "value", "missing"),
    [
        ("\\DosDevices\\E:", TEXT, []),
        ("\\DosDevices\\E:", b"", []),
        ("\\DosDevices\\E:", b"DMIO:ID:" + bytes(15), []),
        ("\\DosDevices\\E:", b"dmio:id:" + GUID_ON_DISK, []),
        ("\\DosDevices\\E:", b"DMIO:ID:" + bytes(16), ["E"]),
        ("\\DosDevices\\E:", mbr(0x1234ABCD, 52 * MIB), ["E"]),
        ("\\DosDevices\\E:", mbr(0x1234ABCE, 51 * MIB), ["E"]),
        ("\\DosDevices\\\u212a:", mbr(0x1234ABCD, 51 * MIB), []),
        ("\\DosDevices\\É:", mbr(0x1234ABCD, 51 * MIB), []),
        ("\\DosDevices\\CC:", mbr(0x1234ABCD, 51 * MIB), []),
        ("\\DosDevices\\C:\\x", mbr(0x1234ABCD, 51 * MIB), []),
        ("\\??\\Volume{01234567-89ab-cdef-0123-456789abcdef}", mbr(0x1234ABCD, 51 * MIB), []),
    ],
)
def test_values_that_give_no_letter(name: str, value: bytes, missing: list[str]) -> None:
    """Removable drives and other names are no letters; fixed drives elsewhere are missing."""
    assert letters_of({name: value}, VOLUMES) == ({}, missing)


def test_letters_in_any_case() -> None:
    """Registry names have none."""
    assert letters_of({"\\dosdevices\\c:": C["\\DosDevices\\C:"]}, VOLUMES)[0] == {"C": SYSTEM}


@given(st.dictionaries(st.text(max_size=16), st.binary(max_size=32), max_size=5))
def test_any_values_are_answered(values: dict[str, bytes]) -> None:
    """Nothing raises."""
    found, missing = letters_of({**values, **C}, VOLUMES)
    assert found["C"] == SYSTEM
    assert set(missing) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_letters_end_at_z() -> None:
    """Windows has no more; the rest is found under its volumes' names."""
    many = [volume(f"disk{disk}-p1", disk, MIB) for disk in range(1, 40)]
    letters = letters_by_order(SYSTEM, many)
    assert "".join(letters) == "CDEFGHIJKLMNOPQRSTUVWXYZ"
    assert letters["Z"] == many[22]


def test_a_plan_by_the_registry() -> None:
    """Exactly its letters: the reserved partition has none, and is not shown."""
    files = Files({SYSTEM.name: {HIVE: CLEAN}}, {SYSTEM.name: {**D, **C}})
    assert plan_root((DATA, RESERVED, SYSTEM), files) == RootPlan(
        "windows", (Mount(b"/C", SYSTEM.name), Mount(b"/D", DATA.name))
    )


@pytest.mark.parametrize(
    "hive",
    [
        b"WINDOWS/system32/config/system",
        b"windows/SYSTEM32/Config/System",
        b"WINNT/system32/config/system",
    ],
)
def test_a_hive_in_any_case(hive: bytes) -> None:
    """It is asked for by the name that it has on the volume."""
    files = Files({SYSTEM.name: {b"Windows.old/x": b"", hive: CLEAN}}, {SYSTEM.name: C})
    assert plan_root([SYSTEM], files).mounts == (Mount(b"/C", SYSTEM.name),)
    assert files.hives == [hive]


def test_a_dirty_hive_is_noted() -> None:
    """Its log might change the letters."""
    files = Files({SYSTEM.name: {HIVE: DIRTY}}, {SYSTEM.name: C})
    plan = plan_root([SYSTEM], files)
    assert plan.mounts == (Mount(b"/C", SYSTEM.name),)
    assert plan.notes[0].startswith("The registry was being written")


def test_drives_that_are_missing_or_unreadable_are_noted() -> None:
    """A disk that was excluded from the backup, and one that is encrypted."""
    locked = volume(
        "disk1-p2", 1, 129 * MIB, "bitlocker", partition=GUID, problem="It is encrypted."
    )
    files = Files({SYSTEM.name: {HIVE: CLEAN}}, {SYSTEM.name: {**C, **D, **gone("F"), **gone("E")}})
    plan = plan_root([SYSTEM, locked], files)
    assert plan.mounts == (Mount(b"/C", SYSTEM.name),)
    assert plan.notes == (
        "Not in this backup: the volumes of drive E, F.",
        "Drive D is disk1-p2, which cannot be read: It is encrypted.",
    )


def gone(letter: str) -> dict[str, bytes]:
    """A drive on a disk that no backup has."""
    return {f"\\DosDevices\\{letter}:": mbr(0xFFFF0000, MIB)}


def test_a_registry_without_its_own_volume() -> None:
    """The system gets the first free letter, and it is said that this is a guess."""
    files = Files({SYSTEM.name: {HIVE: CLEAN}}, {SYSTEM.name: D})
    plan = plan_root([SYSTEM, DATA], files)
    assert plan.mounts == (Mount(b"/C", SYSTEM.name), Mount(b"/D", DATA.name))
    assert "C is a guess" in plan.notes[0]


@pytest.mark.parametrize(
    ("tree", "drives", "damaged", "note"),
    [
        ({b"Windows/System32/ntdll.dll": b""}, {}, False, "has no registry"),
        ({HIVE: CLEAN}, {}, False, "gives a drive letter to no volume"),
        ({HIVE: CLEAN}, {"\\DosDevices\\C:": mbr(1, 1)}, False, "gives a drive letter to no"),
        ({HIVE: CLEAN}, {}, True, "gives a drive letter to no volume"),
    ],
)
def test_a_plan_by_order(
    tree: dict[bytes, bytes], drives: dict[str, bytes], damaged: bool, note: str
) -> None:
    """C is where Windows is, the other drives follow the disks; what setup makes is left out."""
    small = {
        "efi": volume("disk0-p3", 0, 200 * MIB, "fat32", partition_label="EFI system partition"),
        "winre": volume("disk0-p4", 0, 300 * MIB, label="Recovery"),
        "boot": volume("disk0-p5", 0, 400 * MIB),
        "linux": volume("disk0-p6", 0, 500 * MIB, "ext"),
        "locked": volume("disk0-p7", 0, 600 * MIB, problem="It is damaged."),
    }
    stick = volume("disk1-p1", 1, MIB, "exfat", label="Stick")
    files = Files(
        {SYSTEM.name: tree, "disk0-p5": {b"BOOTMGR": b""}, DATA.name: {b"x": b""}},
        {SYSTEM.name: drives},
        damaged_hive=damaged,
    )
    plan = plan_root([DATA, stick, RESERVED, *small.values(), SYSTEM], files)
    assert plan.mounts == (
        Mount(b"/C", SYSTEM.name),
        Mount(b"/D", stick.name),
        Mount(b"/E", DATA.name),
    )
    assert note in plan.notes[0]
    assert plan.notes[1] == "The drive letters are a guess, by the order of the disks."
    ended = "Not all of disk0-p2 could be read: the registry hive ends too early"
    assert plan.notes[2:] == ((ended,) if damaged else ())


def test_two_windows() -> None:
    """The first in the order of the disks is shown, the other told."""
    other = volume("disk3-p1", 3, MIB)
    tree = {HIVE: CLEAN}
    files = Files({other.name: tree, SYSTEM.name: tree}, {SYSTEM.name: C})
    plan = plan_root([other, SYSTEM], files)
    assert plan.mounts == (Mount(b"/C", SYSTEM.name),)
    assert plan.notes == ("There is another Windows on disk3-p1; shown is that on disk0-p2.",)


def test_linux_beside_windows() -> None:
    """With an fstab it is Linux, which shows Windows where its fstab says."""
    linux = volume("disk0-p5", 0, 900 * MIB, "ext", uuid="aaaa")
    fstab = b"UUID=aaaa / ext4\n/dev/sda2 /mnt/c ntfs-3g ro\n"
    files = Files({SYSTEM.name: {HIVE: CLEAN}, linux.name: {b"etc/fstab": fstab}})
    plan = plan_root([SYSTEM, linux], files)
    assert (plan.kind, plan.mounts) == (
        "unix",
        (Mount(b"/", linux.name), Mount(b"/mnt/c", SYSTEM.name)),
    )


def test_windows_beside_what_only_looks_like_linux() -> None:
    """Folders alone are a weaker sign than a Windows."""
    linux = volume("disk0-p5", 0, 900 * MIB, "ext")
    files = Files(
        {SYSTEM.name: {HIVE: CLEAN}, linux.name: {b"etc/x": b"", b"usr/x": b""}}, {SYSTEM.name: C}
    )
    assert plan_root([SYSTEM, linux], files).kind == "windows"
