"""Disks through nbdkit and VDDK, for which a stand-in serves the simulator's disks."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.ledger import Ledger
from backpoint_agent.settings.model import HotAddSettings, VddkSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.choose import choose_transport, transports_of
from backpoint_agent.transport.vddk import (
    REQUEST_LIMIT,
    VddkTransport,
    plan_command,
    plan_words,
)
from backpoint_repo.errors import SourceError
from frozen_vm import (
    DISK_SIZE,
    FAULT_AT,
    Trial,
    failing_at,
    frozen,
    gone,
    running_trial,
    settings_of,
    store,
)
from small_repository import assert_clean

STAND_IN = Path(__file__).parents[1] / "vddk_stand_in.py"
LIMIT_S = 20


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """With the stand-in first on the PATH, under nbdkit's name."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nbdkit").symlink_to(STAND_IN)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with running_trial(tmp_path) as ready:
        folders = {name: str(path) for name, path in ready.simulator.datastores().items()}
        monkeypatch.setenv("VDDK_STAND_IN_DATASTORES", json.dumps(folders))
        monkeypatch.setenv("VDDK_STAND_IN_PASSWORD", ready.simulator.password)
        monkeypatch.setenv("VDDK_STAND_IN_THUMBPRINT", ready.simulator.thumbprint_sha1)
        yield ready


@pytest.fixture
def settings(tmp_path: Path) -> VddkSettings:
    return VddkSettings(libdir=tmp_path)


def vddk(trial: Trial, settings: VddkSettings, stop: Stop | None = None) -> VddkTransport:
    return VddkTransport(settings, trial.account, trial.vcenter, stop or Stop())


def test_a_full_and_an_incremental(trial: Trial, settings: VddkSettings) -> None:
    """Both hold what the disk held at their snapshot, byte for byte."""
    trial.carry_full_and_incremental(vddk(trial, settings))


def test_holes_are_told(trial: Trial, settings: VddkSettings) -> None:
    """A full reads what the plugin calls allocated and passes over the rest."""
    with frozen(trial.vcenter, trial.vm) as machine:
        point = store(trial.repository, vddk(trial, settings), machine)
    assert 0 < point.traffic.read < DISK_SIZE // 2


def test_a_read_error_makes_no_point(trial: Trial, settings: VddkSettings) -> None:
    """A sector that fails, also when it is tried again, ends the backup; the error says where."""
    with frozen(trial.vcenter, trial.vm) as machine:
        disk = machine.disks[0]
        flat = trial.simulator.file(disk.file.replace(".vmdk", "-flat.vmdk"))
        with failing_at(flat, FAULT_AT), pytest.raises(SourceError) as caught:
            store(trial.repository, vddk(trial, settings), machine)
    message = str(caught.value)
    assert disk.file in message
    assert "Input/output error" in message
    offset = int(message.partition("at offset ")[2].split()[0])
    assert offset <= FAULT_AT < offset + REQUEST_LIMIT
    assert trial.points() == 0
    assert_clean(trial.repository)


def test_a_process_killed_while_it_reads_is_an_error_with_its_last_words(
    trial: Trial, settings: VddkSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names disk and offset, and not the password that the process gave away; no child stays."""
    monkeypatch.setenv("VDDK_STAND_IN_NOISE", f"login with {trial.simulator.password} was refused")
    with frozen(trial.vcenter, trial.vm) as machine:
        ready = vddk(trial, settings).prepare(machine)
        image = ready.open(machine.disks[0])
        image.read_into(0, memoryview(bytearray(4096)))
        os.kill(image.pid, signal.SIGKILL)
        with pytest.raises(SourceError) as caught:
            image.read_into(1 << 20, memoryview(bytearray(4096)))
        with pytest.raises(SourceError, match="nbdkit ended with code -9"):
            list(image.extents(0, DISK_SIZE))
        ready.close()
        assert gone(image.pid)
    message = str(caught.value)
    assert machine.disks[0].file in message
    assert f"offset {1 << 20}" in message
    assert "login with *** was refused" in message
    assert trial.simulator.password not in message


def test_the_password_is_gone_and_the_process_ends_with_us(
    trial: Trial, settings: VddkSettings
) -> None:
    """While the disk is open no file has the password; nothing of it stays when it is closed."""
    with frozen(trial.vcenter, trial.vm) as machine:
        ready = vddk(trial, settings).prepare(machine)
        image = ready.open(machine.disks[0])
        command = Path(f"/proc/{image.pid}/cmdline").read_bytes().split(b"\0")
        folder = Path(os.fsdecode(command[command.index(b"--unix") + 1])).parent
        assert {path.name for path in folder.iterdir()} == {"socket", "pid"}
        secret = trial.simulator.password.encode()
        assert secret not in b" ".join(command)
        image.close()
        image.close()
        assert gone(image.pid)
        assert not folder.exists()
        ready.close()
        ready.close()


def test_every_disk_has_a_process_of_its_own(trial: Trial, settings: VddkSettings) -> None:
    """Two disks, two processes; closing the transport ends both."""
    trial.simulator.add_disk(trial.vm, 1 << 20)
    with frozen(trial.vcenter, trial.vm) as machine:
        ready = vddk(trial, settings).prepare(machine)
        first, second = (ready.open(disk) for disk in machine.disks)
        assert first.pid != second.pid
        assert (first.size, second.size) == (DISK_SIZE, 1 << 20)
        ready.close()
        assert gone(first.pid)
        assert gone(second.pid)


def test_without_nbdkit_or_vddk_the_remedy_is_told(
    trial: Trial, settings: VddkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is started."""
    absent = VddkSettings(libdir=tmp_path / "none")
    with frozen(trial.vcenter, trial.vm) as machine:
        with pytest.raises(TransportUnusable, match=r"no folder .*none: install .*libdir"):
            vddk(trial, absent).prepare(machine)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(TransportUnusable, match=r"no program 'nbdkit' here: install nbdkit"):
            vddk(trial, settings).prepare(machine)


def test_what_nbdkit_refuses_is_told_and_the_next_way_is_taken(
    trial: Trial, settings: VddkSettings, tmp_path: Path
) -> None:
    """Its own words are the reason that the point keeps; the configuration's ways are all tried."""
    # A real nbdkit, which has no vddk plugin here.
    real = settings.model_copy(
        update={"command": ("/usr/bin/nbdkit", *plan_words(settings, ":443")[1:])}
    )
    configured = settings_of(trial.account, tmp_path, vddk=real)
    with frozen(trial.vcenter, trial.vm) as machine, Ledger(tmp_path / "ledger") as ledger:
        ways = transports_of(configured, trial.vcenter, ledger, Stop())
        chosen = choose_transport(("vddk", "datastore", "https"), ways, machine)
        chosen.close()
    assert chosen.transport.name == "https"
    assert "vddk" in chosen.passed_over[0]
    assert "plugin" in chosen.passed_over[0]
    assert chosen.passed_over[1] == "datastore: not configured"


def test_every_configured_way_is_there(trial: Trial, tmp_path: Path) -> None:
    """Two need no configuration; the others are there where they are configured."""
    tables = {
        "vddk": VddkSettings(),
        "datastores": {"ds1": tmp_path},
        "hotadd": HotAddSettings(proxy="50000000-0000-0000-0000-000000000001"),
    }
    with Ledger(tmp_path / "ledger") as ledger:
        few, all_ways = (
            {way.name for way in transports_of(settings, trial.vcenter, ledger, Stop())}
            for settings in (
                settings_of(trial.account, tmp_path),
                settings_of(trial.account, tmp_path, **tables),
            )
        )
    assert few == {"https", "export"}
    assert all_ways == {"vddk", "datastore", "hotadd", "https", "export"}


def test_a_wrong_password_is_refused_and_leaves_nothing(
    trial: Trial, settings: VddkSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the program says of it is told."""
    monkeypatch.setenv("VDDK_STAND_IN_PASSWORD", "another one")
    with frozen(trial.vcenter, trial.vm) as machine:
        ready = vddk(trial, settings).prepare(machine)
        with pytest.raises(TransportUnusable, match="another password in the file"):
            ready.open(machine.disks[0])
        ready.close()


def test_what_vddk_says_of_a_disk_it_cannot_open_is_told(
    trial: Trial, settings: VddkSettings
) -> None:
    """nbdkit goes on listening then; its words are the only hint at what is wrong."""
    words = ("/usr/bin/nbdkit", "--foreground", "--exit-with-parent", "--unix", "{socket}", "eval")
    fails = "open=echo EIO the host key is not the one that was expected >&2; exit 1"
    own = settings.model_copy(update={"command": (*words, fails, "get_size=echo 1M")})
    with frozen(trial.vcenter, trial.vm) as machine:
        ready = vddk(trial, own).prepare(machine)
        with pytest.raises(TransportUnusable, match="the host key is not the one"):
            ready.open(machine.disks[0])
        ready.close()


def test_a_disk_of_another_size_is_refused(trial: Trial, settings: VddkSettings) -> None:
    """What VDDK serves is not what was frozen; the process ends."""
    with frozen(trial.vcenter, trial.vm) as machine:
        flat = trial.simulator.file(machine.disks[0].file.replace(".vmdk", "-flat.vmdk"))
        os.truncate(flat, DISK_SIZE + 512)
        ready = vddk(trial, settings).prepare(machine)
        with pytest.raises(TransportUnusable, match=f"as {DISK_SIZE + 512} bytes"):
            ready.open(machine.disks[0])
        ready.close()
        os.truncate(flat, DISK_SIZE)


def test_the_command_has_each_value_once_and_in_its_word() -> None:
    """Braces of a file's name are no placeholders; the port is named where it is not 443."""
    words = plan_words(VddkSettings(compression="fastlz"), "vc.example.com:8443")
    assert words[-2:] == ("port=8443", "compression={compression}")
    assert "port=443" not in plan_words(VddkSettings(), "vc.example.com:443")
    own = VddkSettings(command=("sh", "{file}", "a={socket}:{user}"))
    values = {"file": "[ds] {user}.vmdk", "socket": "/s", "user": "{socket}"}
    assert plan_command(plan_words(own, "vc:443"), values) == [
        "sh",
        "[ds] {user}.vmdk",
        "a=/s:{socket}",
    ]
