"""A Linux machine on two disks, as installers lay them out: /boot on a partition, / on a logical
volume that spans both disks, /home on a btrfs subvolume of another.

Decides what its fstab says. The files in it are few; awkward ones are for `awkward.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guest_disks.tool import run
from guest_trees.disks import Kind, make_image, mounted_image
from guest_trees.lvm_disks import EXTENT, MIB, LvmDisk, lvm_host, whole_disk

GROUP = "vg0"
_BOOT_AT, _BOOT_SIZE = 1 * MIB, 32 * MIB
_FIRST_LVM_AT, _FIRST_SIZE = 33 * MIB, 160 * MIB
_ROOT_SIZE, _HOME_SIZE = 128 * MIB, 128 * MIB
_FSTAB = """\
# made by the installer
UUID={root}  /      ext4  errors=remount-ro  0 1
UUID={boot}  /boot  ext4  defaults           0 2
/dev/mapper/{group}-home  /home  btrfs  subvol=@home  0 0
tmpfs        /tmp   tmpfs defaults           0 0
nas:/export  /mnt/nas  nfs defaults          0 0
/dev/{group}/gone  /srv  ext4 defaults       0 2
"""


@dataclass(frozen=True)
class LinuxMachine:
    """disks: of the machine, in order. boot, root, home: images of the single filesystems."""

    disks: tuple[Path, Path]
    boot: Path
    root: Path
    home: Path


def build_linux_machine(folder: Path, name: str = "linux") -> LinuxMachine:
    """name: told in /etc/hostname, so that two machines differ."""
    folder.mkdir()
    boot = _image(folder / "boot", "ext4", _BOOT_SIZE, lambda at: _write(at / "vmlinuz", "kernel"))
    home = _image(folder / "home", "btrfs", _HOME_SIZE, _fill_home)
    root = _image(folder / "root", "ext4", _ROOT_SIZE, _fill_root(name, boot))
    first, second = folder / "disk0", folder / "disk1"
    with first.open("xb") as disk:
        disk.truncate(_FIRST_LVM_AT + _FIRST_SIZE + MIB)
    start, size = _FIRST_LVM_AT // 512, _FIRST_SIZE // 512
    table = f"label: gpt\nstart=2048, size={_BOOT_SIZE // 512}\nstart={start}, size={size}\n"
    run("sfdisk", "-q", first, text=table)
    _put(first, _BOOT_AT, boot)
    parts = [LvmDisk(first, _FIRST_LVM_AT, _FIRST_SIZE), whole_disk(second, 160 * MIB)]
    with lvm_host(parts, folder / "lvm") as host:
        host.group(GROUP)
        one, other = host.devices
        # An extent each is left out: the volume has two segments, one on each disk.
        half = _ROOT_SIZE // EXTENT // 2
        host.volume(GROUP, "root", 2 * half, f"{one}:1-{half}", f"{other}:1-{half}")
        host.volume(GROUP, "home", _HOME_SIZE // EXTENT)
        host.write(GROUP, "root", root.read_bytes())
        host.write(GROUP, "home", home.read_bytes())
    return LinuxMachine((first, second), boot, root, home)


def uuid_of(image: Path) -> str:
    """Of the filesystem in an image, as blkid has it."""
    return run("blkid", "-p", "-o", "value", "-s", "UUID", image).strip()


def _image(path: Path, kind: Kind, size: int, fill: Callable[[Path], None]) -> Path:
    make_image(path, kind, size, ("-L", path.name))
    with mounted_image(path, kind) as at:
        fill(at)
    return path


def _fill_home(at: Path) -> None:
    run("btrfs", "-q", "subvolume", "create", at / "@home")
    _write(at / "@home/anna/letter.txt", "dear all\n")
    _write(at / "not in home", "another subvolume\n")


def _fill_root(name: str, boot: Path) -> Callable[[Path], None]:
    def fill(at: Path) -> None:
        uuid = run("findmnt", "-n", "-o", "UUID", at).strip()
        fstab = _FSTAB.format(root=uuid, boot=uuid_of(boot), group=GROUP)
        _write(at / "etc/fstab", fstab)
        _write(at / "etc/hostname", f"{name}\n")
        _write(at / "usr/bin/program", "#!/bin/sh\n")
        _write(at / "home/covered by the mount", "nobody sees this in the guest\n")
        (at / "boot").mkdir()
        os.symlink("/etc/hostname", at / "absolute link")
        os.symlink("usr/bin", at / "bin")

    return fill


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _put(disk: Path, offset: int, image: Path) -> None:
    with disk.open("r+b") as file:
        os.pwrite(file.fileno(), image.read_bytes(), offset)
