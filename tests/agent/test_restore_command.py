"""`backpoint agent restore`, as a user says it."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backpoint_agent.commands import restore
from backpoint_agent.restoring.description import FILE_NAME
from backpoint_repo.command_parser import CommandParser
from backpoint_repo.credential import AgentCredential, write_credential
from backpoint_repo.errors import OwnerKeyNeeded, UsageError
from backpoint_repo.source.raw_image import RawImage
from command_line import CommandLine
from small_repository import PASSPHRASE, back_up
from stored_vm import Scene, running_scene
from vcsim import Simulator

LIMIT_S = 30


@dataclass
class Console:
    """The command with the scene's configuration."""

    scene: Scene
    config: Path

    @property
    def name(self) -> str:
        """The VM's."""
        return self.scene.vm.machine.name

    @property
    def line(self) -> CommandLine:
        """The installed command."""
        return CommandLine(self.scene.folder, {})

    def words(self, point: str, *more: str) -> list[str]:
        """After `backpoint`."""
        return ["agent", "restore", "-c", str(self.config), point, *more]

    def run(self, *more: str) -> None:
        """The command on the VM's latest point, in this process."""
        parser = CommandParser()
        parser.set_defaults(json=False)
        parser.add_argument("-c", dest="config", type=Path)
        restore.add_arguments(parser)
        assert restore.run(parser.parse_args(["-c", str(self.config), self.name, *more])) == 0


@pytest.fixture
def console(tmp_path: Path, guest_image: Path) -> Iterator[Console]:
    with running_scene(tmp_path, guest_image) as scene:
        yield Console(scene, configure(scene))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, guest_image: Path) -> Iterator[Console]:
    """Shared by tests that change nothing. The VM is off."""
    with running_scene(tmp_path_factory.mktemp("untouched"), guest_image) as scene:
        scene.run(scene.vm.machine.moref, "PowerOffVM_Task")
        yield Console(scene, configure(scene))


def configure(scene: Scene, credential: str = "", name: str = "backpoint.toml") -> Path:
    """The configuration file; without a credential, the repository's is the passphrase."""
    account = scene.settings.vcenters["dc1"]
    (folder,) = scene.simulator.datastores().values()
    config = scene.folder / name
    config.write_text(
        f"""
state = "{scene.state.path}"
[repository]
path = "{scene.folder / "repository"}"
{credential or f'passphrase = {{ file = "{scene.folder / "passphrase"}" }}'}
[vcenters.dc1]
address = "{account.address}"
user = "{account.user}"
password = {{ file = "{account.password.file}" }}
ca_file = "{account.ca_file}"
request_limit_s = 10
[transports.datastores]
LocalDS_0 = "{folder}"
"""
    )
    return config


def until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def called(simulator: Simulator, method: str) -> bool:
    return any(call.method == method for call in simulator.calls())


def test_a_new_vm_with_a_record(console: Console) -> None:
    """The record names the VM; its disks hold the point's bytes; it runs where that was asked."""
    words = console.words(console.name, "--to", "new", "--power-on", "--verify", "--json")
    record = console.line.run(*words).record
    assert record["type"] == "restored-machine"
    assert record["name"] == f"{console.name}-restored"
    assert record["transport"] == "datastore"
    machine = console.scene.machine(record["moref"])
    assert machine.power == "poweredOn"
    assert record["verified"] == sum(disk.size for disk in machine.disks)
    assert console.scene.disk_bytes(machine.moref) == list(console.scene.vm.images.values())
    assert console.scene.open_effects() == []


def test_a_dry_run_makes_nothing(untouched: Console, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where the VM would be, and what would be different."""
    before = untouched.scene.simulator.vms()
    untouched.run("--to", "new", "--dry-run")
    said = capsys.readouterr()
    assert f"{untouched.name}-restored would be made in DC0/vm, on" in said.out
    assert "not connected" in said.err
    assert untouched.scene.simulator.vms() == before


def test_a_taken_name_is_refused_with_a_free_one(untouched: Console) -> None:
    """The user need not guess."""
    with pytest.raises(UsageError) as caught:
        untouched.run("--to", "new", "--name", untouched.name)
    assert f"something named '{untouched.name}'" in str(caught.value)
    assert f"--name {untouched.name}-2 is free" in str(caught.value)


def test_over_the_existing_vm_only_with_a_word_for_it(
    console: Console, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal `--yes` is needed; then it is done, and reported per disk."""
    scene = console.scene
    vm = scene.vm.machine.moref
    scene.run(vm, "PowerOffVM_Task")
    scene.simulator.write(vm, 0, b"changed")
    with open(os.devnull) as nothing, monkeypatch.context() as context:
        context.setattr(sys, "stdin", nothing)
        with pytest.raises(UsageError, match="say --yes"):
            console.run("--to", "existing")
    console.run("--to", "existing", "--yes", "--json")
    record = json.loads(capsys.readouterr().out)
    assert [disk["written"] for disk in record["disks"]] == [64 << 10, 0]
    assert scene.disk_bytes(vm) == list(scene.vm.images.values())


@pytest.mark.parametrize("answer", ["n", "yes"])
def test_on_a_terminal_it_asks(
    console: Console,
    answer: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only a yes is a yes."""
    scene = console.scene
    vm = scene.vm.machine.moref
    scene.run(vm, "PowerOffVM_Task")
    scene.simulator.write(vm, 0, b"changed")
    ours, theirs = pty.openpty()
    with open(theirs) as terminal, open(ours, "wb") as keys, monkeypatch.context() as context:
        context.setattr(sys, "stdin", terminal)
        keys.write(f"{answer}\n".encode())
        keys.flush()
        if answer == "yes":
            console.run("--to", "existing")
        else:
            with pytest.raises(UsageError, match="nothing was written"):
                console.run("--to", "existing")
    assert "Write over them? [y/N]" in capsys.readouterr().err
    assert (scene.disk_bytes(vm) == list(scene.vm.images.values())) == (answer == "yes")


def test_an_agents_credential_is_not_enough(
    untouched: Console, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is needed; the owner's passphrase in the environment is taken instead."""
    scene = untouched.scene
    credential = scene.folder / "agent.credential"
    keyring = scene.vm.repository.sealed.keyring
    write_credential(AgentCredential.of(scene.vm.repository.config, keyring.secret), credential)
    agent = Console(scene, configure(scene, f'credential = "{credential}"', "agent.toml"))
    with pytest.raises(OwnerKeyNeeded, match="needs the owner's passphrase"):
        agent.run("--to", "new", "--dry-run")
    monkeypatch.setenv("BACKPOINT_PASSPHRASE", PASSPHRASE.text)
    agent.run("--to", "new", "--dry-run")
    assert "would be made" in capsys.readouterr().out


def test_a_point_of_images_makes_no_vm(console: Console, guest_image: Path) -> None:
    """It does not know what VM it was; the error names the command for its disks."""
    back_up(console.scene.vm.repository, console.name, RawImage(guest_image))
    with pytest.raises(UsageError) as caught:
        console.run("--to", "new")
    assert FILE_NAME in str(caught.value)
    assert "`backpoint restore` writes its disks to files" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "new", "--network", "nonsense"], "say keep, disconnected or OLD=NEW"),
        (["--to", "new", "--network", "None=DC0_DVPG0"], "the VM has no network 'None'"),
        (["--to", "new", "--datastore", "none"], "there is no datastore 'none'; there are: "),
        (["--to", "new", "--host", "none"], "there is no host 'none'; there are: "),
        (["--to", "new", "--transport", "vddk"], "transports.vddk is not in the configuration"),
        (["--to", "new", "--disks", "scsi9:9"], "the point describes no disk 'scsi9:9'"),
        (["--to", "existing", "--host", "x"], "--host is for --to new"),
        (["--to", "existing", "--transport", "import"], "import makes new VMs only"),
        (["--to", "existing", "--name", "none"], "vCenter dc1 has no VM 'none'"),
        (["--to", "new", "--vcenter", "dc2"], "no vCenter is called 'dc2'; there are: dc1"),
    ],
)
def test_mistakes_are_named(untouched: Console, words: list[str], said: str) -> None:
    """Before anything changes, in one sentence."""
    with pytest.raises(UsageError) as caught:
        untouched.run(*words)
    assert said in str(caught.value)
    assert len(untouched.scene.simulator.vms()) == 2


def test_killed_while_disks_are_written_it_leaves_what_the_reaper_removes(
    console: Console,
) -> None:
    """kill -9 in the middle of a PUT: the ledger knows the VM, and `reap` removes it."""
    simulator = console.scene.simulator
    before = simulator.vms()
    simulator.slow_calls(LIMIT_S, 1, "PUT /folder")
    words = console.words(console.name, "--to", "new", "--transport", "https")
    with console.line.start(*words) as process:
        until(lambda: called(simulator, "PUT /folder"), "nothing was written")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    simulator.clear()
    (effect,) = console.scene.open_effects()
    assert effect.facts["moref"] in set(simulator.vms()) - set(before)
    assert [outcome.result for outcome in console.scene.reap()] == ["done"]
    assert simulator.vms() == before


def test_killed_before_it_knew_the_vm_the_mark_finds_it(console: Console) -> None:
    """kill -9 while vCenter makes the VM: what appears then is known by its mark alone."""
    simulator = console.scene.simulator
    before = simulator.vms()
    simulator.hang_tasks("CreateVM_Task")
    with console.line.start(*console.words(console.name, "--to", "new")) as process:
        until(lambda: called(simulator, "CreateVM_Task"), "nothing was made")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    simulator.release_tasks()
    until(lambda: len(simulator.vms()) > len(before), "the VM did not appear")
    (effect,) = console.scene.open_effects()
    assert "moref" not in effect.facts
    assert [outcome.result for outcome in console.scene.reap()] == ["done"]
    assert simulator.vms() == before


def test_interrupted_it_removes_what_it_made(console: Console) -> None:
    """SIGTERM half way ends like any failure: no VM, no open entry."""
    simulator = console.scene.simulator
    before = simulator.vms()
    simulator.slow_calls(2, 1, "PUT /folder")
    words = console.words(console.name, "--to", "new", "--transport", "https")
    with console.line.start(*words) as process:
        until(lambda: called(simulator, "PUT /folder"), "nothing was written")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"the unfinished VM" in said
    assert simulator.vms() == before
    assert console.scene.open_effects() == []
