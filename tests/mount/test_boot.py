"""`backpoint boot`: a point runs from a session, by the real mount, and its writes stay."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.source.detect import open_image
from command_line import COMMAND, CommandLine
from guest_disks import build_bootable
from leftovers import find_leftovers
from mounted_repository import MountedRepository
from small_repository import PASSPHRASE

VMX: Final = b"""\
.encoding = "UTF-8"
firmware = "bios"
memsize = "160"
numvcpus = "1"
scsi0.present = "TRUE"
scsi0.virtualDev = "%s"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web.vmdk"
scsi0:1.present = "TRUE"
scsi0:1.fileName = "web_1.vmdk"
bios.hddOrder = "scsi0:1"
"""


@pytest.fixture
def boots(shared_repository: MountedRepository, tmp_path: Path) -> CommandLine:
    """The command line with a home of sessions and a scratch folder of its own."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    variables = {
        "BACKPOINT_REPO": str(shared_repository.root),
        "BACKPOINT_PASSPHRASE": PASSPHRASE.text,
        "BACKPOINT_LIVE": str(tmp_path / "live"),
        "TMPDIR": str(scratch),
        "XDG_STATE_HOME": str(shared_repository.state),
    }
    return CommandLine(tmp_path, variables)


@pytest.fixture(scope="module", autouse=True)
def _points(shared_repository: MountedRepository, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A VM with a data disk first, so that what its .vmx says of the boot order counts."""
    folder = tmp_path_factory.mktemp("guest")
    disk, data = folder / "web_1.raw", folder / "web.raw"
    build_bootable(disk)
    data.write_bytes(bytes(1 << 20))
    for vm, controller in (("web", b"pvscsi"), ("old", b"lsilogic")):
        with shared_repository.fresh().begin_backup(vm) as session:
            for number, path in enumerate((data, disk)):
                source = open_image(path)
                session.store_disk(DiskJob(f"disk{number}", source, None), lambda _: None)
                source.close()
            session.store_file(f"{vm}.vmx", VMX % controller)
            session.publish(time=None, label="")


def _boot(boots: CommandLine, *words: str, code: int = 0) -> dict[str, Any]:
    """The record of a boot, and what it said before."""
    said = boots.run("boot", *words, "--json", code=code)
    record: dict[str, Any] = json.loads(said.out)
    assert record["accelerator"] == "kvm" or "QEMU's own translation" in said.err
    return record


def _sessions(boots: CommandLine) -> list[str]:
    home = Path(boots.variables["BACKPOINT_LIVE"])
    return sorted(path.name for path in home.iterdir() if path.is_dir() and path.name[0] != ".")


def _assert_nothing_left(boots: CommandLine) -> None:
    scratch = boots.variables["TMPDIR"]
    assert os.listdir(scratch) == []
    assert f" {scratch}" not in Path("/proc/self/mountinfo").read_text()


@contextmanager
def _running(boots: CommandLine, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A boot whose guest has said that it lives; its process, and a pidfd of its QEMU."""
    with boots.start("boot", *words, "--console") as process:
        try:
            assert process.stdout is not None
            while b"BOOT-OK" not in (line := process.stdout.readline()):
                assert line, process.communicate()
            pidfd = os.pidfd_open(_qemu_of(process.pid))
            try:
                yield process, pidfd
            finally:
                os.close(pidfd)
        finally:
            process.kill()
            process.communicate(timeout=60)


def _qemu_of(parent: int) -> int:
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if "qemu" in os.readlink(f"/proc/{pid}/exe"):
            return int(pid)
    raise AssertionError("no QEMU runs")


def _ends(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 60)[0])


def test_a_guest_goes_on_where_it_was_killed(boots: CommandLine) -> None:
    """We and QEMU die by SIGKILL, and the mount goes; from the same session the guest boots again,
    finds what it had written, and a boot of the point does not."""
    with _running(boots, "web@latest", "--session", "mine") as (process, qemu):
        assert _sessions(boots) == ["mine"]
        process.kill()
        assert _ends(qemu)
    record = _boot(boots, "--session", "mine", "--until", "BOOT-OK")
    assert "boots=2 " in record["sign"]["detail"]
    assert (record["vm"], record["session"], record["kept"]) == ("web", "mine", True)
    assert record["notes"] == []
    assert _sessions(boots) == ["mine"]
    assert not find_leftovers(within=Path(boots.variables["TMPDIR"]))


def test_a_boot_leaves_nothing(boots: CommandLine) -> None:
    """Not its session, nor its mount; on a controller that QEMU has not, it is told."""
    record = _boot(boots, "old@latest", "--until", "boots=1 ", "--cores", "1", "--memory", "128M")
    assert record["kept"] is False
    assert "LSI Logic parallel are on IDE" in record["notes"][0]
    assert _sessions(boots) == []
    _assert_nothing_left(boots)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_guest_session_and_mount(boots: CommandLine, number: signal.Signals) -> None:
    """An interrupt is how a user ends it; being terminated is what it says."""
    with boots.start("boot", "web@latest") as process:
        _await_running(process)
        process.send_signal(number)
        assert process.wait(60) == (0 if number == signal.SIGINT else 128 + number)
    assert _sessions(boots) == []
    _assert_nothing_left(boots)


def test_on_a_terminal_the_console_is_there(boots: CommandLine) -> None:
    """What is typed goes to the guest, Ctrl-C included; Ctrl-] ends it, and the terminal is as it
    was."""
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    with subprocess.Popen(
        [COMMAND, "boot", "web@latest"],
        env=boots.environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:
        _await_running(process)
        os.write(ours, b"\x03\x03hello\x1d")
        assert process.wait(60) == 0
    assert termios.tcgetattr(theirs) == before
    for descriptor in (ours, theirs):
        os.close(descriptor)
    assert _sessions(boots) == []


def _await_running(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr is not None
    while b"ends it" not in (line := process.stderr.readline()):
        assert line, "it has ended"


def test_what_is_waited_for_and_does_not_come_is_a_failure(boots: CommandLine) -> None:
    """With how far the guest came; the kept session is there to look at."""
    words = ("web@latest", "--until", "never said", "--timeout", "0.5", "--keep")
    record = _boot(boots, *words, code=8)
    assert "no sign of life within 0.5 s" in record["error"]
    assert _sessions(boots) == [record["session"]] == ["web-1"]


def test_a_frozen_session_is_not_booted(boots: CommandLine) -> None:
    """It would be written; nor one of another VM, or one that is not there, or none at all."""
    boots.run("live", "start", "web@latest", "--name", "cold")
    boots.run("live", "freeze", "cold")
    assert "--thaw" in boots.run("boot", "--session", "cold", code=2).error
    assert "not one of old" in boots.run("boot", "old@latest", "--session", "cold", code=2).error
    assert "no session" in boots.run("boot", "--session", "none", code=2).error
    assert "which point" in boots.run("boot", code=2).error
    boots.run("live", "discard", "cold", "--yes")


def test_a_disk_that_is_a_link_is_not_booted(boots: CommandLine, tmp_path: Path) -> None:
    """Whoever writes to a session, over NFS too, does not give its guest a file of this machine."""
    secret, place = tmp_path / "secret", tmp_path / "mount"
    secret.write_bytes(bytes(1 << 20))
    place.mkdir()
    boots.run("live", "start", "web@latest", "--name", "linked")
    boots.run("mount", "--live", boots.variables["BACKPOINT_LIVE"], str(place))
    try:
        disk = place / "live/linked/disk1-flat.vmdk"
        disk.unlink()
        disk.symlink_to(secret)
    finally:
        boots.run("umount", str(place))
    refused = boots.run("boot", "--session", "linked", "--until", "x", "--timeout", "9", code=8)
    assert "disk1-flat.vmdk of the session is no disk" in refused.error
    boots.run("live", "discard", "linked", "--yes")
