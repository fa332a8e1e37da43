"""A VM of the simulator with two real disks, a point of it in a repository, and restores of it.

Knows how points of the agent look (capture, machine.json, nvram) and what a restore is given; what
must come of it is the test's business.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backpoint_agent.effect import Effect
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import Machine
from backpoint_agent.reaping.apply import Means
from backpoint_agent.reaping.reap import reap_effects
from backpoint_agent.reaping.step import Outcome
from backpoint_agent.restoring.description import FILE_NAME, encode_description
from backpoint_agent.restoring.destination import PlaceChoices, plan_destination
from backpoint_agent.restoring.finding import find_origin
from backpoint_agent.restoring.hardware import describe_hardware
from backpoint_agent.restoring.machine_plan import MachineChoices, NetworkRule, plan_machine
from backpoint_agent.restoring.new_machine import Workshop
from backpoint_agent.restoring.places import read_possible_places
from backpoint_agent.restoring.sides import Way
from backpoint_agent.restoring.stored_machine import StoredMachine, read_stored_machine
from backpoint_agent.restoring.to_existing import ExistingJob, RestoredOver, restore_over
from backpoint_agent.restoring.to_new import NewMachineJob, Restored, restore_to_new
from backpoint_agent.settings.model import (
    RepositorySettings,
    SecretSettings,
    Settings,
    TransportSettings,
    VddkSettings,
    Waits,
)
from backpoint_agent.state_folder import StateFolder, make_state_folder
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.backup_session import DiskJob
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.local import LocalStore
from small_repository import PASSPHRASE, new_repository
from vcenter_login import logged_in, vcenter_settings
from vcsim import Simulator, running_simulator

SECOND_SIZE = (3 << 20) + 512
NVRAM = b"MRVN" + bytes(range(256)) * 4
WAITS = Waits(reconfigure_s=20, power_s=20, machine_lock_s=1)
VDDK = Path(__file__).with_name("vddk_writable.py")


@dataclass(frozen=True)
class StoredVm:
    """images: the content of each disk, by its key in the point."""

    repository: Repository
    point: Point
    machine: Machine
    images: Mapping[str, bytes]

    @property
    def stored(self) -> StoredMachine:
        return read_stored_machine(self.repository, self.point)


def store_vm(
    simulator: Simulator, vcenter: VCenter, guest_image: Path, folder: Path, number: int = 0
) -> StoredVm:
    """The VM's first disk becomes the guest's image, its second one random; the VM is stored as it
    then is."""
    moref = simulator.vms()[number]
    simulator.attach(moref, guest_image)
    second = folder / "second.img"
    with second.open("wb") as file:
        file.truncate(SECOND_SIZE)
        for at in (0, 1 << 20, SECOND_SIZE - 70_000):
            file.seek(at)
            file.write(random.Random(at).randbytes(70_000))
    simulator.add_disk(moref, second)
    machine = read_machine(vcenter, moref)
    repository = new_repository(LocalStore(folder / "repository"))
    config = vcenter.object("VirtualMachine", moref).config
    images = {}
    with repository.begin_backup(machine.name) as session:
        for disk, image in zip(machine.disks, (guest_image, second), strict=True):
            session.store_disk(DiskJob(disk.key, RawImage(image)), lambda _: None)
            images[disk.key] = image.read_bytes()
        session.store_file(FILE_NAME, encode_description(describe_hardware(config)))
        session.store_file(f"{machine.name}.nvram", NVRAM)
        point = session.publish(time=None, label="", capture=_capture(machine))
    return StoredVm(repository, point, machine, images)


class Notes:
    """A watcher that remembers, and can be made to do something while disks are written."""

    def __init__(self, on_advance: Callable[[], None] = lambda: None) -> None:
        self.said: list[str] = []
        self.done = 0
        self._on_advance = on_advance

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, size: int) -> None:
        self.done += size
        self._on_advance()


@dataclass
class Scene:
    """One vCenter, one VM with its point, one agent's state."""

    simulator: Simulator
    vcenter: VCenter
    folder: Path
    vm: StoredVm
    settings: Settings
    notes: Notes = field(default_factory=Notes)
    stop: Stop = field(default_factory=Stop)

    @property
    def state(self) -> StateFolder:
        return make_state_folder(self.folder / "state")

    def job(
        self, name: str = "copy", networks: NetworkRule | None = None, **options: Any
    ) -> NewMachineJob:
        """A new VM in the places of the origin."""
        stored = self.vm.stored
        needs = {key: disk.allocated for key, disk in stored.disks.items()}
        sizes = {key: disk.size for key, disk in stored.disks.items()}
        places = read_possible_places(self.vcenter)
        destination = plan_destination(places, stored.origin, PlaceChoices(), needs)
        exists = find_origin(self.vcenter, stored) is not None
        keep_uuid = options.pop("keep_uuid", False)
        choices = MachineChoices(name, exists, networks or NetworkRule(), keep_uuid)
        plan = plan_machine(stored.description, sizes, destination.networks, choices)
        return NewMachineJob(stored, plan, destination, **options)

    def make(self, *ways: Way, job: NewMachineJob | None = None) -> Restored:
        """Restore to a new VM."""
        with self.shop() as shop:
            return restore_to_new(shop, self.settings, job or self.job(), ways, self.notes)

    def write_over(self, *ways: Way, moref: str | None = None, **options: Any) -> RestoredOver:
        """Restore over the VM."""
        job = ExistingJob(self.vm.stored, moref or self.vm.machine.moref, **options)
        with self.shop() as shop:
            return restore_over(shop, self.settings, job, ways, self.notes)

    @contextmanager
    def shop(self) -> Iterator[Workshop]:
        """With a ledger whose process is gone afterwards."""
        with Ledger(self.state.ledger) as ledger:
            yield Workshop(self.vcenter, ledger, WAITS, self.stop)

    def open_effects(self) -> list[Effect]:
        """What the ledger has open."""
        with Ledger(self.state.ledger) as ledger:
            return ledger.open_effects()

    def reap(self) -> list[Outcome]:
        """A reaper does its work."""
        with Ledger(self.state.ledger) as ledger:
            means = Means(self.vcenter, ledger, WAITS, {}, Stop())
            return list(reap_effects(means, self.state.locks))

    def run(self, moref: str, method: str, *arguments: Any) -> None:
        """A task of a VM, to its end."""
        machine = self.vcenter.object("VirtualMachine", moref)
        start = getattr(machine, method)
        run_task(self.vcenter, method, lambda: start(*arguments), limit_s=20, stop=None)

    def config(self, moref: str) -> Any:
        """The VM's ConfigInfo."""
        return self.vcenter.object("VirtualMachine", moref).config

    def machine(self, moref: str) -> Machine:
        return read_machine(self.vcenter, moref)

    def disk_bytes(self, moref: str) -> list[bytes]:
        """What the flat files of the VM's disks hold, in the order of its slots."""
        disks = sorted(self.machine(moref).disks, key=lambda disk: disk.slot)
        return [self.simulator.live_disk(moref, disk.device_key).read_bytes() for disk in disks]


@contextmanager
def running_scene(folder: Path, guest_image: Path, **options: Any) -> Iterator[Scene]:
    """A scene of its own; options as `Simulator`'s."""
    with (
        running_simulator(folder / "vcsim", **options) as simulator,
        logged_in(simulator, folder) as vcenter,
    ):
        vm = store_vm(simulator, vcenter, guest_image, folder)
        settings = settings_of(simulator, folder, datastores=simulator.datastores())
        yield Scene(simulator, vcenter, folder, vm, settings)


def settings_of(simulator: Simulator, folder: Path, **transports: Any) -> Settings:
    """The agent's configuration for one vCenter `dc1` and the repository of `store_vm`."""
    passphrase = folder / "passphrase"
    passphrase.write_text(PASSPHRASE.text + "\n")
    passphrase.chmod(0o600)
    return Settings(
        state=folder / "state",
        repository=RepositorySettings(
            path=str(folder / "repository"), passphrase=SecretSettings(file=passphrase)
        ),
        vcenters={"dc1": vcenter_settings(simulator, folder)},
        transports=TransportSettings(**transports),
        waits=WAITS,
    )


def with_vddk(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in for VDDK is installed and configured; the folder of its figures."""
    programs, written = scene.folder / "programs", scene.folder / "written"
    for made in (programs, written):
        made.mkdir()
    (programs / "nbdkit").symlink_to(VDDK)
    folders = {name: str(path) for name, path in scene.simulator.datastores().items()}
    for name, value in (
        ("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}"),
        ("VDDK_STAND_IN_DATASTORES", json.dumps(folders)),
        ("VDDK_STAND_IN_PASSWORD", scene.simulator.password),
        ("VDDK_STAND_IN_THUMBPRINT", scene.simulator.thumbprint_sha1),
        ("VDDK_STAND_IN_WRITTEN", str(written)),
    ):
        monkeypatch.setenv(name, value)
    configured = {"vddk": VddkSettings(libdir=scene.folder)}
    transports = scene.settings.transports.model_copy(update=configured)
    scene.settings = scene.settings.model_copy(update={"transports": transports})
    return written


def _capture(machine: Machine) -> dict[str, Any]:
    return {
        "kind": "vsphere",
        "vcenter": machine.identity.vcenter,
        "instance": machine.identity.instance,
        "uuid": machine.uuid,
        "name": machine.name,
        "moref": machine.moref,
        "datacenter": machine.datacenter,
        "folder": machine.folder,
        "pool": machine.pool,
        "host": machine.host,
        "disks": {disk.key: {"slot": disk.slot, "file": disk.file} for disk in machine.disks},
    }
