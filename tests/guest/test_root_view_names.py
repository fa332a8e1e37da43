"""What the source of an fstab line means, among the volumes of a backup."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.guest.root_view.storage_name import Found, find_volume
from backpoint_fusefs.guest.volume import Piece, Volume


def volume(name: str, kind: str = "ext", disk: int = 0, **facts: object) -> Volume:
    """On one disk, at its start."""
    pieces = (Piece(0, 1 << 20, 1 << 20, ((disk, 0),)),)
    return Volume(name, 1 << 20, pieces, kind, **facts)  # type: ignore[arg-type]


EFI = volume(
    "disk0-p1", "fat32", uuid="C0FF-EE00", label="EFI",
    partition="4D1C7B1E-0A5B-4C36-8B5A-0B6F6E2F0001", partition_label="EFI System Partition",
)  # fmt: skip
ROOT = volume("disk0-p2", uuid="0d3c1ac2-8f2c-4f4a-9c6d-5f1d1f3c2a11", label="root/é x")
DATA = volume("disk1", "xfs", 1, uuid="7d8e0000-0000-4000-8000-000000000001", label="data")
MBR = volume("disk2-p5", "ntfs", 2, uuid="01D9ABCDEF012345", partition="1234abcd-05")
LOGICAL = volume("my-vg-lv", "btrfs", 3, devices=("/dev/mapper/my--vg-lv", "/dev/dm-0"))
LAST = volume("disk27", "ext", 27)
VOLUMES = (EFI, ROOT, DATA, MBR, LOGICAL, LAST)


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("UUID=0d3c1ac2-8f2c-4f4a-9c6d-5f1d1f3c2a11", ROOT),
        ("UUID=0D3C1AC2-8F2C-4F4A-9C6D-5F1D1F3C2A11", ROOT),
        ('UUID="c0ff-ee00"', EFI),
        ("UUID='C0FF-EE00'", EFI),
        ("UUID=01d9abcdef012345", MBR),
        ("UUID=", None),
        ('UUID=""', None),
        ("LABEL=data", DATA),
        ("LABEL=DATA", None),
        ("LABEL=root/é x", ROOT),
        ("PARTUUID=4d1c7b1e-0a5b-4c36-8b5a-0b6f6e2f0001", EFI),
        ("PARTUUID=1234ABCD-05", MBR),
        ("PARTLABEL=EFI System Partition", EFI),
        ("/dev/disk/by-uuid/C0FF-EE00", EFI),
        ("/dev/disk/by-label/data", DATA),
        ("/dev/disk/by-label/root\\x2f\\xc3\\xa9\\x20x", ROOT),
        ("/dev/disk/by-label/root\\x2fé\\x20x", ROOT),
        ("/dev/disk/by-partuuid/1234abcd-05", MBR),
        ("/dev/disk/by-partlabel/EFI\\x20System\\x20Partition", EFI),
        ("/dev/disk/by-id/dm-name-my--vg-lv", LOGICAL),
        ("/dev/disk/by-path/pci-0000:00:10.0-scsi-0:0:0:0-part1", None),
        ("/dev/mapper/my--vg-lv", LOGICAL),
        ("/dev/my-vg/lv", LOGICAL),
        ("/dev/dm-0", LOGICAL),
        ("/dev/mapper/my-vg-lv", None),
        ("/swap.img", None),
        ("tank/home", None),
        ("", None),
    ],
)
def test_names_that_say_which(source: str, meant: Volume | None) -> None:
    """By identity and by device-mapper name; nothing about the order of disks in it."""
    assert find_volume(source, "auto", VOLUMES, ROOT) == (meant and Found(meant))


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("/dev/sda1", EFI),
        ("/dev/vda2", ROOT),
        ("/dev/xvda2", ROOT),
        ("/dev/hda2", ROOT),
        ("/dev/sdb", DATA),
        ("/dev/sdb1", None),
        ("/dev/sdc5", MBR),
        ("/dev/sdab", LAST),
        ("/dev/sda", None),
        ("/dev/sda02", ROOT),
        ("/dev/sda9", None),
        ("/dev/nvme0n1p2", ROOT),
        ("/dev/nvme0n2", DATA),
        ("/dev/nvme1n1", DATA),
        ("/dev/nvme1n2", None),
        ("/dev/nvme0n0", None),
        ("/dev/nvme2n1p5", MBR),
        ("/dev/fd0", None),
        ("/dev/sr0", None),
    ],
)
def test_names_by_the_order_of_the_disks(source: str, meant: Volume | None) -> None:
    """And it is said that they are a guess."""
    assert find_volume(source, "auto", VOLUMES, ROOT) == (meant and Found(meant, by_order=True))


@pytest.mark.parametrize(
    ("kind", "fits"),
    [
        ("ext4", True),
        ("ext3", True),
        ("auto", True),
        ("xfs,ext4", True),
        ("reiserfs", True),
        ("xfs", False),
        ("vfat", False),
    ],
)
def test_a_guess_by_order_needs_the_right_filesystem(kind: str, fits: bool) -> None:
    """Where the line asks for another type than the volume has, the order was another one."""
    assert (find_volume("/dev/sda2", kind, VOLUMES, ROOT) is not None) is fits
    assert find_volume("UUID=" + ROOT.uuid, kind, VOLUMES, ROOT) == Found(ROOT)


def test_of_several_with_one_name() -> None:
    """The fstab's own volume, then one that can be read, then one on its disk, then the first."""
    twins = [volume(f"disk{disk}-p1", disk=disk, uuid="aa", label="t") for disk in range(4)]
    broken = volume("disk1-p1", disk=1, uuid="aa", label="t", problem="It is locked.")
    twins[1] = broken
    assert find_volume("UUID=AA", "auto", twins, twins[2]) == Found(twins[2], others=3)
    home = volume("disk3-p9", disk=3)
    assert find_volume("LABEL=t", "auto", twins, home) == Found(twins[3], others=3)
    home = volume("disk1-p9", disk=1)
    assert find_volume("LABEL=t", "auto", twins, home) == Found(twins[0], others=3)
    assert find_volume("LABEL=t", "auto", [broken], home) == Found(broken)


NAMES = st.sampled_from(["UUID=", "/dev/", "/dev/disk/by-label/", "sd", "nvme0n", "LABEL=", "\\x"])


@given(st.lists(NAMES | st.text(max_size=5), max_size=5).map("".join), st.text(max_size=9))
def test_any_source_is_answered(source: str, kind: str) -> None:
    """Nothing raises, also for surrogates and digits of other scripts."""
    for each in (source, source + "\udcff", source + "٣"):
        found = find_volume(each, kind, VOLUMES, ROOT)
        assert found is None or found.volume in VOLUMES
