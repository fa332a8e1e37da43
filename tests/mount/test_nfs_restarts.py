"""What dies of an export is started again, and clients that have files open go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_fusefs.nfs.errors import ExportFailed
from backpoint_fusefs.nfs.export_folder import folder_of, taken
from backpoint_fusefs.nfs.export_terms import plan_terms
from backpoint_fusefs.nfs.restart_policy import RestartPolicy
from backpoint_fusefs.nfs.supervisor import Export, ExportPlan
from exported_repository import (
    Exported,
    back_up_disk,
    exported,
    exports_alone,
    free_port,
    newest_disk,
    runs,
    succeed,
    wait_for,
)
from mounted_repository import MountedRepository
from nfs_client import NfsClient

MIB = 1 << 20
_DISK = os.urandom(4 * MIB)


@pytest.fixture
def export(checked_repository: MountedRepository) -> Iterator[Exported]:
    """With a session `s`; the repository is whole in the end."""
    back_up_disk(checked_repository, "web", _DISK)
    with exported(checked_repository) as running:
        running.live("start", "web", "--name", "s")
        wait_for(lambda: "s" in os.listdir(running.mount / "live"), "no session")
        yield running


@contextlib.contextmanager
def _at_work(*words: str) -> Iterator[None]:
    """A client that works until it is told to end, or something fails for it."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe) as client:
        try:
            yield
        finally:
            still_at_work = client.poll() is None
            client.kill()
            _, said = client.communicate(timeout=30)
        assert still_at_work, said


def _connections(port: int) -> int:
    """Of clients on this machine, established."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(
        line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines
    )


def test_a_client_goes_on_over_the_death_of_each_part(export: Exported) -> None:
    """Many requests under way, reads and writes: not one fails, and no handle is stale."""
    disk = export.qemu_url("live/s/disk0-flat.vmdk")
    # Far more requests than it can do in the time.
    bench = ["qemu-img", "bench", "-f", "raw", "-t", "none", "-d", "8", "-c", "100000000"]
    with (
        _at_work(*bench, "-s", "4096", disk),
        _at_work(*bench, "-s", "4096", "-w", "--flush-interval=64", "--pattern=7", disk),
    ):
        wait_for(lambda: _connections(export.record["nfs_port"]) >= 2, "no clients")
        for part in ("ganesha.nfsd", "mount", "rpcbind"):
            if part in export.children():
                export.kill(part)
        with (
            NfsClient(export.url("live/s", 3)) as client,
            client.opened("/disk0-flat.vmdk") as file,
        ):
            assert len(file.read(0, 4096)) == 4096
    assert export.status()["restarts"] >= 2


def test_what_a_client_has_open_stays_open(export: Exported) -> None:
    """One file handle, from before the deaths until after them."""
    with (
        NfsClient(export.url("", 3)) as client,
        client.opened(f"/{newest_disk(export)}", 0) as file,
    ):
        assert file.read(0, 1000) == _DISK[:1000]
        export.kill("ganesha.nfsd")
        assert file.read(MIB, 1000) == _DISK[MIB : MIB + 1000]
        export.kill("mount")
        assert file.read(2 * MIB, 1000) == _DISK[2 * MIB : 2 * MIB + 1000]


def test_a_mount_that_somebody_takes_away_comes_back(export: Exported) -> None:
    """Unmounted by another hand, or ended in order: it is served again all the same."""
    with (
        NfsClient(export.url("", 3)) as client,
        client.opened(f"/{newest_disk(export)}", 0) as file,
    ):
        for at, words in enumerate((["umount", "--lazy", str(export.mount)], ["kill"])):
            served = export.words.count("served again")
            pid = str(export.children()["mount"])
            succeed(*words, *([pid] if words == ["kill"] else []))
            wait_for(lambda: export.words.count("served again") > served, "not served")  # noqa: B023
            assert export.mount.is_mount()
            assert file.read(at * MIB, 1000) == _DISK[at * MIB : at * MIB + 1000]


@pytest.mark.parametrize("version", [3, 4])
def test_what_a_client_committed_outlives_the_mount(export: Exported, version: int) -> None:
    """COMMIT had answered, then the mount is killed: disk and small file have their bytes."""
    content = os.urandom(10_000)
    with NfsClient(export.url("live/s", version)) as client:
        for name, flags in (("/disk0-flat.vmdk", 0), ("/vmware.log", os.O_CREAT)):
            with client.opened(name, os.O_RDWR | flags) as file:
                file.write(3000, content)
                file.sync()
    export.kill("mount")
    expected = _DISK[:3000] + content + _DISK[13_000:]
    assert succeed("nfs-cat", export.url("live/s/disk0-flat.vmdk", version)) == expected
    assert succeed("nfs-cat", export.url("live/s/vmware.log", version)) == bytes(3000) + content


def test_what_qemu_wrote_through_outlives_the_mount(export: Exported) -> None:
    """As the export tells users to run it: QEMU's client does not write again what it had not
    committed to a server that died, so a write that it calls done must be committed."""
    disk = export.qemu_url("live/s/disk0-flat.vmdk")
    words = ["qemu-io", "-f", "raw", "-t", "writethrough", disk]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write("write -P 7 4096 65536\n")
        client.stdin.flush()
        assert "wrote 65536" in client.stdout.readline()
        export.kill("mount")
        stored = succeed("nfs-cat", export.url("live/s/disk0-flat.vmdk", 3))
        client.kill()
    assert stored == _DISK[:4096] + bytes([7]) * 65536 + _DISK[69632:]


def test_a_killed_export_takes_all_with_it(checked_repository: MountedRepository) -> None:
    """SIGKILL of the command: its servers and its mount end by themselves, the next one starts."""
    back_up_disk(checked_repository, "web", _DISK)
    root = folder_of(checked_repository.repository.config.repository_id).root
    with exported(checked_repository, expected=-signal.SIGKILL) as export:
        assert export.children()
        export.process.kill()
        wait_for(lambda: not any(map(runs, export.pids)), "a process is left")
        wait_for(lambda: str(root) not in Path("/proc/self/mountinfo").read_text(), "a mount")
        none = checked_repository.backpoint("export", "--status", passphrase=None)
        assert none.returncode == 1
    with exported(checked_repository) as export:
        assert succeed("nfs-cat", export.url(newest_disk(export), 4)) == _DISK


def test_a_part_that_does_not_come_back_ends_the_export(
    checked_repository: MountedRepository, tmp_path: Path
) -> None:
    """After some tries the export says where to look, and nothing of it stays."""
    back_up_disk(checked_repository, "web", _DISK)
    repository = checked_repository.fresh()
    folder = folder_of(repository.config.repository_id, tmp_path / "run")
    terms = plan_terms(None, [], read_only=True, nfs_port=free_port(), mount_port=free_port())
    log = tmp_path / "export.log"
    plan = ExportPlan(repository, terms, folder, None, 16 * MIB, log, tmp_path / "nfs.log")
    told: list[str] = []
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with exports_alone(), taken(folder):
        with Export(plan, told.append, output, RestartPolicy(tries=3)) as export:
            export.start()
            assert (folder.mount / "vms").is_dir()
            folder.config.write_text("EXPORT { Export_Id = none; }")
            (ganesha,) = [
                pid for pid in map(int, (folder.root / "ganesha.pid").read_text().split())
            ]
            os.kill(ganesha, signal.SIGKILL)
            with pytest.raises(ExportFailed, match="keeps failing"):
                export.keep()
        assert any("NFS-Ganesha" in message for message in told)
        assert not folder.mount.is_mount()
    os.close(output)
    assert not folder.root.exists()
