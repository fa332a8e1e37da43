"""Disks with LVM2 on them, made by LVM2's own tools without a device-mapper.

The tools keep the metadata (`--driverloaded n`); what a kernel would do, to put the bytes of a
logical volume where they belong, `LvmHost.write` does by LVM2's own report of the extents. Decides
that a host sees only its own disks, and has its configuration in a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from guest_disks.tool import run

MIB = 1 << 20
EXTENT = MIB
_AREA = re.compile(r"(/dev/loop[0-9]+)\(([0-9]+)\)")


@dataclass(frozen=True)
class LvmDisk:
    """Bytes [offset, offset + size) of an image: a partition, or all of it."""

    image: Path
    offset: int
    size: int


@dataclass(frozen=True)
class LvmHost:
    """devices: the loop device of each disk, in their order."""

    disks: Sequence[LvmDisk]
    devices: Sequence[str]
    folder: Path

    def lvm(self, command: str, *words: str) -> str:
        """Run pvcreate, vgcreate, lvcreate, ... Raises RuntimeError."""
        environment = {
            "LVM_SYSTEM_DIR": str(self.folder),
            "LVM_SUPPRESS_FD_WARNINGS": "1",
            "LC_ALL": "C.UTF-8",
        }
        quiet = ["--driverloaded", "n"]
        return run(command, *quiet, *words, environment=environment)

    def group(self, name: str, *options: str, pvcreate: Sequence[str] = ()) -> None:
        """A volume group on all disks."""
        self.lvm("pvcreate", "-y", *pvcreate, *self.devices)
        self.lvm("vgcreate", "-y", "-s", f"{EXTENT}b", *options, name, *self.devices)

    def volume(self, group: str, name: str, extents: int, *words: str) -> None:
        """words: options, and physical volumes with ranges of extents."""
        options = ["-an", "-Zn", "-Wn", "-y", "-l", str(extents), "-n", name]
        devices = [word for word in words if word.startswith("/dev/")]
        others = [word for word in words if not word.startswith("/dev/")]
        self.lvm("lvcreate", *options, *others, group, *devices)

    def edit(self, group: str, change: Callable[[str], str]) -> None:
        """Change the metadata as text, and have LVM2 write what it makes of that."""
        text = self.folder / f"{group}.txt"
        self.lvm("vgcfgbackup", "-f", str(text), group)
        text.write_text(change(text.read_text()))
        self.lvm("vgcfgrestore", "--force", "-y", "-f", str(text), group)

    def write(self, group: str, name: str, content: bytes) -> None:
        """Put the content of a logical volume where LVM2 says that its extents are."""
        columns = "seg_start_pe,seg_size_pe,stripes,stripe_size,devices"
        plain = ["--reportformat", "json", "--units", "b", "--nosuffix", "--segments", "-a"]
        report = self.lvm("lvs", *plain, "-o", columns, f"{group}/{name}")
        for segment in json.loads(report)["report"][0]["seg"]:
            areas = [(device, int(extent)) for device, extent in _AREA.findall(segment["devices"])]
            start = int(segment["seg_start_pe"]) * EXTENT
            part = content[start : start + int(segment["seg_size_pe"]) * EXTENT]
            unit = int(segment["stripe_size"]) or len(part)
            self._write_units(areas, [part[at : at + unit] for at in range(0, len(part), unit)])

    def _write_units(self, areas: list[tuple[str, int]], units: list[bytes]) -> None:
        for number, (device, extent) in enumerate(areas):
            disk = self.disks[self.devices.index(device)]
            plain = ["--noheadings", "--units", "b", "--nosuffix"]
            report = self.lvm("pvs", *plain, "-o", "pe_start", device)
            at = disk.offset + int(report) + extent * EXTENT
            with disk.image.open("r+b") as image:
                os.pwrite(image.fileno(), b"".join(units[number :: len(areas)]), at)


@contextlib.contextmanager
def lvm_host(disks: Sequence[LvmDisk], folder: Path) -> Iterator[LvmHost]:
    """A machine with these disks while the block runs; `folder` is made for its configuration."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        devices = [stack.enter_context(_attached(disk)) for disk in disks]
        seen = ", ".join(f'"a|^{device}$|"' for device in devices)
        (folder / "lvm.conf").write_text(
            f'devices {{ use_devicesfile = 0\nglobal_filter = [{seen}, "r|.*|"] }}\n'
            "backup { backup = 0\narchive = 0 }\n"
            "activation { udev_sync = 0\nudev_rules = 0\nmonitoring = 0 }\n"
        )
        yield LvmHost(disks, devices, folder)


def whole_disk(path: Path, size: int) -> LvmDisk:
    """A new empty image."""
    with path.open("xb") as image:
        image.truncate(size)
    return LvmDisk(path, 0, size)


@contextlib.contextmanager
def _attached(disk: LvmDisk) -> Iterator[str]:
    part = [f"--offset={disk.offset}", f"--sizelimit={disk.size}"]
    device = run("losetup", "--find", "--show", *part, disk.image).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)
