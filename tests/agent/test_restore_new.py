"""A point becomes a new VM by every way to write disks, or nothing of it stays."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyVmomi import vim

from backpoint_agent.errors import CannotConnect, Stopped, TaskFailed, TransportUnusable
from backpoint_agent.restoring.description import MachineDescription
from backpoint_agent.restoring.hardware import describe_hardware
from backpoint_agent.restoring.machine_plan import NetworkRule
from backpoint_agent.restoring.sides import Way
from backpoint_agent.restoring.to_new import power_on
from backpoint_agent.settings.model import TransportSettings
from backpoint_repo.errors import BackpointError, ObjectDamaged, TargetError
from stored_vm import NVRAM, Notes, Scene, running_scene, with_vddk

WAYS = ("datastore", "https", "import", "vddk")


@pytest.fixture
def scene(tmp_path: Path, guest_image: Path) -> Iterator[Scene]:
    with running_scene(tmp_path, guest_image) as scene:
        yield scene


def morefs(scene: Scene) -> set[str]:
    return set(scene.simulator.vms())


@pytest.mark.parametrize("way", WAYS)
def test_a_new_vm_has_the_points_disks_byte_for_byte(
    scene: Scene, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the way, what lies on the datastore is what was backed up, and is verified."""
    if way == "vddk":
        with_vddk(scene, monkeypatch)
    restored = scene.make(way, job=scene.job(verify=True))
    assert scene.disk_bytes(restored.machine.moref) == list(scene.vm.images.values())
    assert restored.verified == sum(map(len, scene.vm.images.values()))
    assert scene.notes.done == 2 * restored.verified
    assert scene.open_effects() == []


def test_configuration_and_devices_come_back(scene: Scene) -> None:
    """What describes the new VM is what described the original, but for what must be new."""
    origin = scene.vm.machine.moref
    scene.run(origin, "PowerOffVM_Task")
    spec = vim.vm.ConfigSpec(
        numCPUs=2, memoryMB=64, firmware="efi", annotation="the web server",
        bootOptions=vim.vm.BootOptions(
            efiSecureBootEnabled=True,
            bootDelay=5000,
            bootOrder=[
                vim.vm.BootOptions.BootableCdromDevice(),
                vim.vm.BootOptions.BootableDiskDevice(
                    deviceKey=scene.vm.machine.disks[1].device_key
                ),
            ],
        ),
        extraConfig=[
            vim.option.OptionValue(key="disk.EnableUUID", value="TRUE"),
            vim.option.OptionValue(key="vc.uuid", value="only of this one"),
        ],
    )  # fmt: skip
    scene.run(origin, "ReconfigVM_Task", spec)
    job = scene.job()
    before = MachineDescription.model_validate(describe_hardware(scene.config(origin)))
    job = replace(job, plan=replace(job.plan, description=before))
    moref = scene.make("datastore", job=job).machine.moref
    after = MachineDescription.model_validate(describe_hardware(scene.config(moref)))
    for same in ("guest_id", "hardware", "annotation", "cpus", "cores_per_socket", "memory_mb"):
        assert getattr(after, same) == getattr(before, same)
    assert (after.boot.firmware, after.boot.secure, after.boot.delay_ms) == ("efi", True, 5000)
    assert [device.kind for device in after.boot.order] == ["cdrom", "disk"]
    second = next(disk for disk in after.disks if disk.place == before.disks[1].place)
    assert after.boot.order[1].key == second.key
    assert after.extra["disk.EnableUUID"] == "TRUE"
    assert "vc.uuid" not in after.extra
    assert {(d.place, d.size) for d in after.disks} == {(d.place, d.size) for d in before.disks}
    assert all(disk.thin for disk in after.disks)
    buses = [{(c.kind, c.bus) for c in about.controllers} for about in (after, before)]
    assert buses[0] == buses[1]
    assert [card.kind for card in after.cards] == [card.kind for card in before.cards]
    assert after.instance != before.instance
    assert after.uuid != before.uuid
    assert scene.config(moref).changeTrackingEnabled is False


def test_cards_of_a_copy_stay_disconnected_with_new_addresses(scene: Scene) -> None:
    """While the original exists nothing of the copy disturbs its network."""
    job = scene.job()
    moref = scene.make("datastore", job=job).machine.moref
    origin, copy = (describe_hardware(scene.config(m)) for m in (scene.vm.machine.moref, moref))
    assert [card["start_connected"] for card in copy["cards"]] == [False]
    assert copy["cards"][0]["portgroup"] == origin["cards"][0]["portgroup"]
    assert copy["cards"][0]["mac"] != origin["cards"][0]["mac"]
    assert any("disconnected" in note for note in job.plan.notes)


def test_a_lost_vm_comes_back_as_it_was(scene: Scene) -> None:
    """Where the original is gone, cards are connected with their addresses, and ids can be kept."""
    origin = scene.vm.machine
    described = describe_hardware(scene.config(origin.moref))
    scene.run(origin.moref, "PowerOffVM_Task")
    scene.run(origin.moref, "Destroy_Task")
    job = scene.job(origin.name, keep_uuid=True)
    moref = scene.make("datastore", job=job).machine.moref
    copy = describe_hardware(scene.config(moref))
    assert copy["name"] == origin.name
    assert copy["uuid"] == described["uuid"]
    assert copy["cards"][0]["start_connected"]
    assert copy["cards"][0]["mac"] == described["cards"][0]["mac"]
    assert scene.disk_bytes(moref) == list(scene.vm.images.values())


def test_a_card_is_put_on_the_network_it_is_mapped_to(scene: Scene) -> None:
    """By the old network's key or present name; then it is connected."""
    other = next(n for n in scene.job().destination.networks if not n.portgroup)
    old = scene.vm.stored.description.cards[0].portgroup
    job = scene.job(networks=NetworkRule({old: other.name}))
    moref = scene.make("datastore", job=job).machine.moref
    card = describe_hardware(scene.config(moref))["cards"][0]
    assert (card["network"], card["start_connected"]) == (other.name, True)


def test_nvram_lies_beside_the_new_vmx(scene: Scene) -> None:
    """EFI's variables are those of the point."""
    machine = scene.make("datastore").machine
    path = scene.simulator.file(machine.vmx.removesuffix(".vmx") + ".nvram")
    assert path.read_bytes() == NVRAM


def fail_https(scene: Scene) -> None:
    scene.simulator.http_status(507, 10, "PUT /folder")


def fail_import(scene: Scene) -> None:
    scene.simulator.http_status(500, 10, "POST /nfc")


def stop_half_way(scene: Scene) -> None:
    scene.notes = Notes(lambda: scene.stop.request("the test says so"))


def damage_repository(scene: Scene) -> None:
    pack = max((scene.folder / "repository" / "packs").rglob("*"), key=lambda f: f.stat().st_size)
    content = bytearray(pack.read_bytes())
    for at in range(4096, len(content) - 4096, 8192):
        content[at : at + 16] = random.Random(at).randbytes(16)
    pack.write_bytes(content)


FAILURES: list[tuple[Way, Callable[[Scene], None], type[BackpointError]]] = [
    ("https", fail_https, CannotConnect),
    ("import", fail_import, TargetError),
    ("import", stop_half_way, Stopped),
    ("datastore", stop_half_way, Stopped),
    ("datastore", damage_repository, ObjectDamaged),
]


@pytest.mark.parametrize(("way", "spoil", "error"), FAILURES)
def test_a_failure_half_way_leaves_no_vm(
    scene: Scene, way: Way, spoil: Callable[[Scene], None], error: type[BackpointError]
) -> None:
    """The unfinished VM is removed with its files, the ledger is closed, and the user hears it."""
    before, job = morefs(scene), scene.job()
    spoil(scene)
    with pytest.raises(error):
        scene.make(way, job=job)
    assert morefs(scene) == before
    assert scene.open_effects() == []
    assert scene.notes.said[-1] == "the unfinished VM copy was removed"
    assert not list(scene.folder.rglob("copy*.vmdk"))


def test_what_cannot_be_removed_is_left_to_the_reaper(scene: Scene) -> None:
    """When removing fails too, the ledger has the VM, and `reap` removes it later."""
    before = morefs(scene)
    scene.simulator.fault("Destroy_Task", "ResourceInUse")
    scene.notes = Notes(lambda: scene.stop.request("the test says so"))
    with pytest.raises(Stopped):
        scene.make("datastore")
    (left,) = morefs(scene) - before
    assert [effect.facts["moref"] for effect in scene.open_effects()] == [left]
    assert "`backpoint agent reap` removes it" in scene.notes.said[-1]
    assert [outcome.result for outcome in scene.reap()] == ["done"]
    assert morefs(scene) == before
    assert scene.open_effects() == []


def test_a_vm_whose_making_was_not_confirmed_is_found_and_removed(scene: Scene) -> None:
    """The answer to CreateVM_Task is lost: the instanceUuid that we chose finds what was made."""
    before, job = morefs(scene), scene.job()
    scene.simulator.drop_connections(1, "CreateVM_Task", after_effect=True)
    with pytest.raises(CannotConnect):
        scene.make("datastore", job=job)
    assert morefs(scene) == before
    assert scene.open_effects() == []


def test_a_vm_that_vcenter_refuses_leaves_nothing_open(scene: Scene) -> None:
    """A clear no needs no search."""
    scene.simulator.fault("CreateVM_Task", "InsufficientResourcesFault", message="no memory")
    with pytest.raises(TaskFailed, match="no memory"):
        scene.make("datastore")
    assert scene.open_effects() == []
    assert scene.notes.said == ["no VM copy was made"]


def test_the_next_way_is_tried_with_a_vm_of_its_own(scene: Scene, tmp_path: Path) -> None:
    """A mount that is not the datastore is found out; nothing of the first try stays."""
    before = morefs(scene)
    empty = {name: tmp_path for name in scene.simulator.datastores()}
    changed = scene.settings.model_copy(update={"transports": TransportSettings(datastores=empty)})
    scene.settings = changed
    restored = scene.make("datastore", "https")
    assert restored.way == "https"
    assert morefs(scene) == before | {restored.machine.moref}
    assert scene.disk_bytes(restored.machine.moref) == list(scene.vm.images.values())
    with pytest.raises(TransportUnusable, match="no way to write the disks: datastore: cannot"):
        scene.make("datastore", job=scene.job("another"))


def test_the_restored_vm_can_be_powered_on(scene: Scene) -> None:
    """A question on the way is seen by whoever looks."""
    moref = scene.make("datastore").machine.moref
    looks: list[None] = []
    with scene.shop() as shop:
        power_on(shop, moref, "copy", lambda: looks.append(None))
    assert scene.machine(moref).power == "poweredOn"


def test_disks_go_to_their_own_datastores(tmp_path: Path, guest_image: Path) -> None:
    """A VM whose disks lay apart gets them apart again."""
    with running_scene(tmp_path, guest_image, datastores=2) as scene:
        job = scene.job()
        apart = {"": "LocalDS_0"} | dict(
            zip(job.destination.datastores, ("LocalDS_0", "LocalDS_0", "LocalDS_1"), strict=True)
        )
        job = replace(job, destination=replace(job.destination, datastores=apart))
        machine = scene.make("datastore", job=job).machine
        assert [disk.datastore for disk in machine.disks] == ["LocalDS_0", "LocalDS_1"]
        assert scene.disk_bytes(machine.moref) == list(scene.vm.images.values())


def test_an_import_whose_answer_is_lost_leaves_no_vm(scene: Scene) -> None:
    """Nobody knows the lease then; the VM is found by the instanceUuid that we chose."""
    before, job = morefs(scene), scene.job()
    scene.simulator.drop_connections(1, "ImportVApp", after_effect=True)
    with pytest.raises(CannotConnect):
        scene.make("import", job=job)
    assert morefs(scene) == before
    assert scene.open_effects() == []
