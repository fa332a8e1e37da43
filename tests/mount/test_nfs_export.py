"""A repository over NFS: what clients read and write, and who may not."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_fusefs.nfs.export_folder import folder_of
from exported_repository import (
    Exported,
    back_up_disk,
    exported,
    newest_disk,
    succeed,
    tool,
    wait_for,
)
from mounted_repository import MountedRepository
from nfs_client import NfsClient

MIB = 1 << 20
_DISK = os.urandom(3 * MIB + 512)


@pytest.fixture(scope="module")
def export(shared_repository: MountedRepository) -> Iterator[Exported]:
    """One that all tests share that leave it as it is, or add to it."""
    back_up_disk(shared_repository, "web", _DISK)
    with exported(shared_repository) as running:
        yield running


@pytest.mark.parametrize("version", [3, 4])
def test_clients_read_what_the_mount_shows(export: Exported, version: int) -> None:
    """Names and bytes, over both versions of NFS."""
    assert export.names("", version) == sorted(os.listdir(export.mount))
    assert succeed("nfs-cat", export.url(newest_disk(export), version)) == _DISK


@pytest.mark.parametrize("version", [3, 4])
def test_files_of_a_session_are_written_by_clients(export: Exported, version: int) -> None:
    """Made, written, renamed, cut short and removed over NFS, and seen so in the mount."""
    name = f"written-{version}"
    export.live("start", "web", "--name", name)
    folder, content = export.mount / "live" / name, os.urandom(200_000)
    wait_for(folder.is_dir, "no session")
    with NfsClient(export.url(f"live/{name}", version)) as client:
        with client.opened("/new", os.O_RDWR | os.O_CREAT) as file:
            file.write(100_000, content[100_000:])
            file.write(0, content[:100_000])
            file.sync()
            assert file.read(99_950, 100) == content[99_950:100_050]
        assert (folder / "new").read_bytes() == content
        client.mkdir("/sub")
        client.rename("/new", "/sub/moved")
        with client.opened("/sub/moved") as file:
            file.resize(1000)
        assert (folder / "sub/moved").read_bytes() == content[:1000]
        client.unlink("/sub/moved")
        client.rmdir("/sub")
    assert sorted(os.listdir(folder)) == ["disk0-flat.vmdk", "disk0.vmdk"]


@pytest.mark.parametrize("version", [3, 4])
def test_a_sessions_disk_is_written_by_clients(export: Exported, version: int) -> None:
    """Over the point's bytes, which stay below and in the point itself."""
    name = f"disk-{version}"
    export.live("start", "web", "--name", name)
    disk = export.mount / "live" / name / "disk0-flat.vmdk"
    wait_for(disk.exists, "no session")
    with (
        NfsClient(export.url(f"live/{name}", version)) as client,
        client.opened("/disk0-flat.vmdk") as file,
    ):
        file.write(MIB + 5, b"written by a client")
        file.sync()
        assert file.read(0, 100) == _DISK[:100]
    expected = _DISK[: MIB + 5] + b"written by a client" + _DISK[MIB + 24 :]
    assert disk.read_bytes() == expected
    assert (export.mount / newest_disk(export)).read_bytes() == _DISK


def test_a_point_cannot_be_written(export: Exported) -> None:
    """Not even where sessions can."""
    done = tool("nfs-cp", "/etc/passwd", export.url(f"{Path(newest_disk(export)).parent}/new", 3))
    assert done.returncode != 0
    words = ["qemu-io", "-f", "raw", "-c", "write 0 4k", export.qemu_url(newest_disk(export))]
    assert tool(*words).returncode != 0
    assert hashlib.sha256((export.mount / newest_disk(export)).read_bytes()).digest() == (
        hashlib.sha256(_DISK).digest()
    )


@pytest.mark.parametrize("version", [3, 4])
def test_new_points_and_sessions_appear_within_seconds(export: Exported, version: int) -> None:
    """Also where a client looked before and found nothing."""
    vm, session = f"new-{version}", f"fresh-{version}"
    assert vm not in export.names("vms", version)
    assert session not in export.names("live", version)
    assert tool("nfs-ls", export.url(f"live/{session}", version)).returncode != 0
    back_up_disk(export.made, vm, b"new" * 5000)
    export.live("start", "web", "--name", session)
    wait_for(lambda: vm in export.names("vms", version), "no point")
    wait_for(lambda: session in export.names("live", version), "no session")
    assert succeed("nfs-cat", export.url(newest_disk(export, vm), version))[:15000] == b"new" * 5000


def test_a_file_that_grows_in_the_mount_grows_for_clients(export: Exported) -> None:
    """What a client knew of its size is not believed for long."""
    export.live("start", "web", "--name", "grows")
    log = export.mount / "live/grows/vmware.log"
    wait_for(log.parent.is_dir, "no session")
    for content in (b"one\n", b"one\ntwo\n"):
        log.write_bytes(content)
        wait_for(
            lambda: succeed("nfs-cat", export.url("live/grows/vmware.log", 3)) == content,  # noqa: B023
            "an old size",
        )


def test_who_is_running_is_told(export: Exported) -> None:
    """The status says what the export said, and programs find the mount by it."""
    status = export.status()
    assert status == export.record
    assert status["versions"] == [3, 4]
    assert status["pid"] == export.process.pid
    assert Path(status["mount"]).is_mount()
    again = export.made.backpoint("export", "--nfs", "--port", str(status["nfs_port"]))
    assert again.returncode == 2
    assert "--status" in again.stderr


def test_what_is_below_run_is_private(export: Exported) -> None:
    """Folders for root alone, files too, and no secret in them or in an argument."""
    root = folder_of(export.made.repository.config.repository_id).root
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    for name in ("ganesha.conf", "export.json", "anchor.img"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o600
    for pid in [export.process.pid, *export.children().values()]:
        assert b"correct horse" not in Path(f"/proc/{pid}/cmdline").read_bytes()
