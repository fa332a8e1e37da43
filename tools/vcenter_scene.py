"""The vCenter of the demo: which VMs it has, and what its administrator does with them.

Knows the simulator, and nothing of Backpoint.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import busy_disk
from tools.busy_disk import BusyDisk

from guest_disks import build_bootable, build_data_disk
from vcsim import Simulator, running_simulator
from vcsim.client import Client, connected, disks, done

_MIB = 1 << 20
SYSTEM_SIZE = 64 * _MIB
DATA_SIZE = 512 * _MIB
_DATA_FILES_SIZE = 200 * _MIB
_INDEPENDENT_SIZE = 8 * _MIB
_NAMES = ("web01", "web02", "db01", "tmp-build")


class VCenterScene:
    """Four running VMs.

    web01 boots and has a disk full of files; web02 is a clone of its system disk, with a disk that
    no snapshot covers; db01 is never at rest; tmp-build is nobody's business.
    """

    def __init__(self, simulator: Simulator, client: Client, folder: Path) -> None:
        """Needs some seconds; `folder` is for the disks to copy from."""
        self.simulator = simulator
        self._client = client
        self._live = folder / "live"
        self._live.mkdir()
        system, data, pages = folder / "system.raw", folder / "data.raw", folder / "pages.raw"
        build_bootable(system, SYSTEM_SIZE, hostname="web01")
        build_data_disk(data, DATA_SIZE, seed=1, files_total_bytes=_DATA_FILES_SIZE)
        busy_disk.make_image(pages)
        for place, name in enumerate(_NAMES):
            done(client.vm(place).Rename_Task(name))
        simulator.attach(self.moref("web01"), system)
        simulator.add_disk(self.moref("web01"), data)
        simulator.attach(self.moref("web02"), system)
        simulator.add_disk(self.moref("web02"), _INDEPENDENT_SIZE, mode="independent_persistent")
        simulator.attach(self.moref("db01"), pages)
        for image in (system, data, pages):
            image.unlink()
        self.busy = BusyDisk(simulator, self.moref("db01"))

    def moref(self, name: str) -> str:
        """Raises RuntimeError where there is none."""
        return str(self._vm(name)._GetMoId())

    def disk(self, name: str, number: int = 0) -> Path:
        """A link to the file that the guest writes now; a snapshot or its removal makes another."""
        vm = self._vm(name)
        key = disks(vm.config)[number].key
        link = self._live / f"{name}-disk{number}"
        link.unlink(missing_ok=True)
        link.symlink_to(self.simulator.live_disk(vm._GetMoId(), key))
        return link

    def names(self) -> list[str]:
        """Of all VMs."""
        return [self._client.vm(place).name for place in range(len(self.simulator.vms()))]

    def power(self, name: str) -> str:
        return str(self._vm(name).runtime.powerState)

    def power_off(self, name: str) -> None:
        done(self._vm(name).PowerOffVM_Task())

    def take_snapshot(self, name: str, title: str) -> None:
        """As a user does."""
        done(self._vm(name).CreateSnapshot_Task(title, "by the administrator", False, False))

    def remove_snapshots(self, name: str) -> None:
        done(self._vm(name).RemoveAllSnapshots_Task())

    def snapshots(self, name: str) -> list[str]:
        """Their names, oldest first."""
        tree = self._vm(name).snapshot
        return list(_names(tree.rootSnapshotList)) if tree else []

    def _vm(self, name: str) -> Any:
        for place in range(len(self.simulator.vms())):
            vm = self._client.vm(place)
            if vm.name == name:
                return vm
        raise RuntimeError(f"vCenter has no VM {name}")


def _names(nodes: Any) -> Iterator[str]:
    for node in nodes:
        yield str(node.name)
        yield from _names(node.childSnapshotList)


@contextlib.contextmanager
def running_scene(folder: Path) -> Iterator[VCenterScene]:
    """Ends the vCenter with the block."""
    with contextlib.ExitStack() as opened:
        with _deaf_to_interrupts():
            made = running_simulator(folder / "vcenter", vms=len(_NAMES))
            simulator = opened.enter_context(made)
        client = opened.enter_context(connected(simulator))
        yield VCenterScene(simulator, client, folder)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started meanwhile stays so: an agent that is interrupted at the terminal needs its
    vCenter to clean up."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
