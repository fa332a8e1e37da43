"""A point booted in a vCenter from a real mount: what the VM is, how it ends, how it moves away."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVmomi import vim

from backpoint_agent.live.vmx_plan import MARK
from backpoint_repo.backup_session import DiskJob
from backpoint_repo.source.raw_image import RawImage
from live_scene import DATASTORE, HOST, LiveScene, record_of, running_live_scene
from vcsim.client import until

TEXT = (
    "msg.uuid.altered:This virtual machine might have been moved or copied. In order to configure "
    "certain management and networking features, ESX needs to know if it was moved or copied."
)
LOOSE = """\
config.version = "8"
displayName = "loose vm"
guestOS = "debian10-64"
memSize = "64"
serial0.present = "TRUE"
scsi1.present = "TRUE"
scsi1:3.present = "TRUE"
scsi1:3.fileName = "loose.vmdk"
"""
CHOICES = ["button.uuid.cancel", "button.uuid.movedTheVM", "button.uuid.copiedTheVM"]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, guest_image: Path) -> Iterator[LiveScene]:
    """Each test leaves it as it was, but for a VM that moved away."""
    with running_live_scene(tmp_path_factory.mktemp("live"), guest_image) as scene:
        yield scene


def cards(live: LiveScene, moref: str) -> list[bool]:
    """Whether each of its network cards starts connected."""
    devices = live.scene.config(moref).hardware.device
    kind = vim.vm.device.VirtualEthernetCard
    return [device.connectable.startConnected for device in devices if isinstance(device, kind)]


def test_a_vm_runs_from_the_backup_until_it_is_ended(live: LiveScene) -> None:
    """Disks as in the point, cards disconnected, its question answered; a second VM shares the
    datastore, `reap` leaves both, and the datastore goes with the last."""
    before = live.morefs()
    simulator = live.scene.simulator
    simulator.question("", TEXT, CHOICES, on_task="PowerOnVM_Task")
    record = live.boot("--isolated", "--memory", "66M", "--cores", "3")
    moref, session = record["moref"], record["session"]
    made = live.machine(moref)
    assert (made.name, made.power, made.host) == (f"{live.name}-live", "poweredOn", HOST)
    assert (made.datastores, made.change_tracking) == ((DATASTORE,), False)
    assert made.vmx == f"[{DATASTORE}] live/{session}/{session}.vmx"
    assert simulator.answers(moref) == ["2"]
    # So that `live discard` refuses it.
    assert json.loads((live.home / session / "session.json").read_text())["owner"] == "vcenter"
    assert cards(live, moref) == [False]
    config = live.scene.config(moref)
    assert (config.hardware.memoryMB, config.hardware.numCPU) == (68, 3)
    assert live.settings_of(moref)["uuid.action"] == "create"
    assert made.from_backup == live.settings_of(moref)[MARK]
    assert [vm.moref for vm in live.inventory() if vm.from_backup] == [moref]
    assert live.scene.disk_bytes(moref) == list(live.scene.vm.images.values())
    simulator.write(moref, 4096, b"written by the guest")
    second = live.boot("--no-power-on", "--name", "other")
    assert live.machine(second["moref"]).power == "poweredOff"
    assert [d.name for d in live.datastores()] == [DATASTORE]
    assert live.scene.disk_bytes(second["moref"]) == list(live.scene.vm.images.values())

    told = live.run("agent", "reap").out
    assert told.count("it runs from the backup") == 2
    assert live.morefs() == before | {moref, second["moref"]}
    assert "to be reaped" not in live.run("agent", "status").out

    ended = record_of(live.run("--json", "live", "end", session))
    assert ended["vm"] == f"{live.name}-live"
    assert live.morefs() == before | {second["moref"]}
    assert live.sessions() == {second["session"]}
    assert [d.name for d in live.datastores()] == [DATASTORE]
    live.run("live", "end", second["session"])
    live.assert_as_before(before)
    assert live.scene.disk_bytes(live.scene.vm.machine.moref)[0][4096:4100] != b"writ"
    assert "no VM runs from a session" in live.run("live", "end", session, code=2).err


def test_a_point_of_images_with_a_vmx_boots_too(live: LiveScene) -> None:
    """Its .vmx is edited under its own name; the image is at the slot that the .vmx names."""
    before = live.morefs()
    image = live.scene.folder / "loose.img"
    image.write_bytes(random.Random(5).randbytes(1 << 20))
    with live.scene.vm.repository.begin_backup("loose vm") as backup:
        backup.store_disk(DiskJob("d", RawImage(image)), lambda _: None)
        backup.store_file("loose.vmx", LOOSE.encode())
        backup.publish(time=None, label="")
    words = ["--json", "boot", "loose vm", "--vcenter", "--host", HOST]
    record = record_of(live.run(*words))
    made = live.machine(record["moref"])
    assert made.vmx == f"[{DATASTORE}] live/{record['session']}/loose.vmx"
    assert [disk.slot for disk in made.disks] == ["scsi1:3"]
    assert live.scene.disk_bytes(made.moref) == [image.read_bytes()]
    assert made.name == "loose vm-live"
    assert record["notes"] == ["without a serial port (serial0)"]
    live.run("live", "end", record["session"])
    live.assert_as_before(before)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "none"], "there is no host 'none'; there are: "),
        (["--pool", "none"], "there is no resource pool 'none'"),
        (["--name", "DC0_C0_RP0_VM1"], "--name DC0_C0_RP0_VM1-2 is free"),
        (["--vnc"], "--vnc is for a machine here"),
        (["--in", "dc2"], "no vCenter is called 'dc2'; there are: dc1"),
        (["--live", "/elsewhere", "-c", "no-export.toml"], "`backpoint export --nfs --listen"),
    ],
)
def test_mistakes_are_named(live: LiveScene, words: list[str], said: str) -> None:
    """Before anything is done, in one sentence."""
    config = Path(live.variables["BACKPOINT_CONFIG"])
    bare = config.read_text().partition("[live]")[0]
    (live.scene.folder / "no-export.toml").write_text(bare)
    words = [str(live.scene.folder / word) if word.endswith(".toml") else word for word in words]
    live.scene.simulator.forget_calls()
    assert said in live.run(*live.boot_words(*words), code=2).err
    assert live.stored_sessions() == set()
    assert not any("Nas" in c.method or "_Task" in c.method for c in live.scene.simulator.calls())


def test_migration_killed_half_way_goes_on_where_it_was(live: LiveScene) -> None:
    """Killed while vCenter moves the VM: `reap` leaves it alone, and the same command finishes.
    Then it is a VM like any other, with what its guest wrote."""
    before = live.morefs()
    simulator = live.scene.simulator
    record = live.boot()
    moref, session = record["moref"], record["session"]
    simulator.write(moref, 8192, b"written by the guest")
    content = live.scene.disk_bytes(moref)
    simulator.hang_tasks("RelocateVM_Task")
    words = ("live", "migrate", session, "--datastore", "LocalDS_0")
    with live.line.start(*words) as process:
        until(lambda: any(call.method == "RelocateVM_Task" for call in simulator.calls()))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    said = live.run("agent", "reap", "--dry-run").out
    assert "vCenter is still at it" in said
    simulator.release_tasks()
    until(lambda: live.machine(moref).datastores == ("LocalDS_0",))
    assert MARK in live.settings_of(moref)
    live.run(*words)
    live.assert_as_before(before | {moref})
    made = live.machine(moref)
    assert (made.power, made.datastores) == ("poweredOn", ("LocalDS_0",))
    assert live.scene.disk_bytes(moref) == content
    assert not {MARK, "uuid.action"} & set(live.settings_of(moref))


def test_what_vcenter_refuses_leaves_nothing(live: LiveScene) -> None:
    """A host that cannot mount, a .vmx that cannot be registered, a VM that does not start: each
    boot is undone at once."""
    before = live.morefs()
    simulator = live.scene.simulator
    for method, fault in (
        ("CreateNasDatastore", "HostConfigFault"),
        ("RegisterVM_Task", "InvalidVmConfig"),
        ("PowerOnVM_Task", "InsufficientResourcesFault"),
    ):
        simulator.fault(method, fault)
        said = live.run(*live.boot_words(), code=7)
        assert "was discarded" in said.err
        live.assert_as_before(before)


def test_a_datastore_of_somebodys_is_used_and_stays(live: LiveScene) -> None:
    """The export was mounted by hand, under another name: it is nobody's to unmount."""
    before = live.morefs()
    host = next(h for h in live.scene.vcenter.content.rootFolder.childEntity[0]
                .hostFolder.childEntity[0].host if h.name == HOST)  # fmt: skip
    spec = vim.host.NasVolume.Specification(
        remoteHost="127.0.0.1", remotePath=str(live.place), localPath="by-hand",
        accessMode="readWrite", type="NFS",
    )  # fmt: skip
    system = host.configManager.datastoreSystem
    mounted = system.CreateNasDatastore(spec)
    record = live.boot("--no-power-on")
    assert record["datastore"] == "by-hand"
    live.run("live", "end", record["session"])
    live.assert_as_before(before, ["by-hand"])
    system.RemoveDatastore(mounted)


def test_cards_are_connected_once_the_original_is_off(live: LiveScene) -> None:
    """While it runs they are not, and that is said; with --isolated never."""
    before = live.morefs()
    said = live.run(*live.boot_words("--no-power-on"))
    assert "network cards stay disconnected: the original VM is poweredOn" in said.err
    assert cards(live, record_of(said)["moref"]) == [False]
    live.scene.run(live.scene.vm.machine.moref, "PowerOffVM_Task")
    alone = live.boot("--no-power-on", "--name", "alone")
    assert cards(live, alone["moref"]) == [True]
    for session in live.stored_sessions():
        live.run("live", "end", session)
    live.assert_as_before(before)
