"""Mounts that begin, grow, are restarted, are killed and end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_repo.credential import AgentCredential, write_credential
from backpoint_repo.errors import ObjectMissing
from backpoint_repo.format import Kind
from mounted_repository import MakePoint, MountedRepository

MIB = 1 << 20
_HANDLE_MAX = 128
_libc = ctypes.CDLL(None, use_errno=True)


class _FileHandle(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint),
        ("kind", ctypes.c_int),
        ("data", ctypes.c_ubyte * _HANDLE_MAX),
    )


def _handle_of(path: Path) -> _FileHandle:
    handle, mount_id = _FileHandle(_HANDLE_MAX), ctypes.c_int()
    arguments = (-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0)
    assert _libc.name_to_handle_at(*arguments) == 0, os.strerror(ctypes.get_errno())
    return handle


def _open_by_handle(place: Path, handle: _FileHandle) -> int:
    root = os.open(place, os.O_RDONLY)
    try:
        fd = int(_libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY))
        if fd < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        return fd
    finally:
        os.close(root)


def _inodes(place: Path) -> dict[str, int]:
    found = {}
    for folder, folders, files in os.walk(place):
        for name in folders + files:
            path = os.path.join(folder, name)
            found[path] = os.lstat(path).st_ino
    return found


def test_a_new_point_appears_at_once_and_a_removed_one_goes(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    back_up_bytes("web", b"one" * 10_000)
    checked_repository.mount()
    own = checked_repository.place / "vms/web"
    first = os.readlink(own / "latest")
    back_up_bytes("web", b"two" * 10_000)
    back_up_bytes("db", b"three" * 10_000)
    _wait_for(lambda: len(os.listdir(own)) == 3)
    assert os.listdir(own.parent) == ["db", "web"]
    assert os.readlink(own / "latest") != first
    assert (own / "latest/disk0-flat.vmdk").read_bytes() == b"two" * 10_000
    repository = checked_repository.fresh()
    oldest = next(point for point in repository.catalog.refresh() if point.vm == "web")
    repository.sealed.delete(Kind.POINT, oldest.point_id.hex())
    _wait_for(lambda: len(os.listdir(own)) == 2)
    _wait_for(lambda: not (own / first).exists())


def test_numbers_and_handles_outlive_the_mount_and_the_kernels_memory(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    back_up_bytes("a/b", os.urandom(MIB))
    checked_repository.mount()
    before = _inodes(checked_repository.place)
    assert len(set(before.values())) == len(before)
    flat = checked_repository.newest("a%2Fb").resolve() / "disk0-flat.vmdk"
    content, paths = flat.read_bytes(), [flat, flat.parent, checked_repository.place / "vms"]
    handles = [_handle_of(path) for path in paths]
    Path("/proc/sys/vm/drop_caches").write_text("3")
    _assert_open(checked_repository.place, handles, content)
    checked_repository.umount()
    back_up_bytes("another", b"x")
    checked_repository.mount()
    # The first thing this mount hears of these numbers are the handles.
    _assert_open(checked_repository.place, handles, content)
    assert before.items() <= _inodes(checked_repository.place).items()


def _assert_open(place: Path, handles: list[_FileHandle], content: bytes) -> None:
    for at, handle in enumerate(handles):
        fd = _open_by_handle(place, handle)
        try:
            if at == 0:
                assert os.pread(fd, len(content), 0) == content
            else:
                assert os.listdir(fd)
        finally:
            os.close(fd)


def test_an_unknown_number_is_stale(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    back_up_bytes("web", b"x")
    checked_repository.mount()
    handle = _handle_of(checked_repository.newest("web") / "disk0-flat.vmdk")
    for at in range(8):
        handle.data[at] ^= 0x5A
    with pytest.raises(OSError, match="open_by_handle_at") as raised:
        _open_by_handle(checked_repository.place, handle)
    assert raised.value.errno == 116  # ESTALE


def test_a_killed_mount_is_told_and_cleared(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    back_up_bytes("web", b"x")
    checked_repository.mount()
    pidfd = os.pidfd_open(checked_repository.pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    _wait_for(lambda: _is_dead(checked_repository.place))
    os.close(pidfd)
    again = checked_repository.backpoint("mount", checked_repository.place)
    assert again.returncode == 2
    assert "backpoint umount" in again.stderr
    checked_repository.umount()
    assert not checked_repository.mounted
    checked_repository.mount()
    assert checked_repository.newest("web").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_mount_and_gives_the_lease_back(
    checked_repository: MountedRepository, back_up_bytes: MakePoint, number: signal.Signals
) -> None:
    back_up_bytes("web", b"x")
    checked_repository.mount()
    sealed = checked_repository.fresh().sealed
    _wait_for(lambda: bool(list(sealed.names(Kind.LEASE))))
    pidfd = os.pidfd_open(checked_repository.pid)
    signal.pidfd_send_signal(pidfd, number)
    _wait_for(lambda: not checked_repository.mounted)
    _wait_for(lambda: not list(sealed.names(Kind.LEASE)))
    os.close(pidfd)


def test_an_open_file_pins_its_point(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    back_up_bytes("web", b"x" * 100_000)
    point = checked_repository.fresh().catalog.refresh()[0]
    checked_repository.mount()
    sealed = checked_repository.fresh().sealed

    def pins() -> list[bytes] | None:
        try:
            found = [sealed.get_record(Kind.LEASE, name) for name in sealed.names(Kind.LEASE)]
        except ObjectMissing:
            return None  # replaced by the next one between listing and reading
        return [pin for record in found for pin in record.items("pins", bytes)]

    with (checked_repository.newest("web") / "disk0-flat.vmdk").open("rb"):
        _wait_for(lambda: pins() == [point.point_id])
    _wait_for(lambda: pins() == [])


def test_umount_while_reading_says_busy_and_lazily_works(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    content = os.urandom(2 * MIB)
    back_up_bytes("web", content)
    checked_repository.mount()
    with (checked_repository.newest("web") / "disk0-flat.vmdk").open("rb", buffering=0) as file:
        assert file.read(4096) == content[:4096]
        refused = checked_repository.backpoint("umount", checked_repository.place)
        assert refused.returncode == 2
        assert "in use" in refused.stderr
        assert file.read(4096) == content[4096:8192]
        subprocess.run(["fusermount3", "-u", "-z", checked_repository.place], check=True)
        assert not checked_repository.mounted
        assert os.pread(file.fileno(), MIB, MIB) == content[MIB:]


def test_places_that_cannot_be_mounted_on(
    checked_repository: MountedRepository, back_up_bytes: MakePoint, tmp_path: Path
) -> None:
    back_up_bytes("web", b"x")
    full = tmp_path / "full"
    (full / "inside").mkdir(parents=True)
    for place, why in (
        (full, "not empty"),
        (tmp_path / "nowhere", "No such file"),
        (tmp_path / "source.raw", "Not a directory"),
        (Path("/proc"), "mount point already"),
    ):
        done = checked_repository.backpoint("mount", place)
        assert done.returncode == 2
        assert why in done.stderr
    done = checked_repository.backpoint("umount", full)
    assert done.returncode == 2
    assert "nothing is mounted" in done.stderr
    done = checked_repository.backpoint("mount", "--memory", "1M", checked_repository.place)
    assert done.returncode == 2


def test_the_agent_credential_is_refused_with_a_reason(
    checked_repository: MountedRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = checked_repository.repository
    credential = AgentCredential.of(repository.config, repository.sealed.keyring.secret)
    write_credential(credential, tmp_path / "agent")
    monkeypatch.setenv("BACKPOINT_CREDENTIAL", str(tmp_path / "agent"))
    done = checked_repository.backpoint("mount", checked_repository.place, passphrase=None)
    assert done.returncode == 5
    assert "owner" in done.stderr
    assert not checked_repository.mounted


def _wait_for(is_so: Callable[[], bool]) -> None:
    """Ask again until it is so; ten seconds."""
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end, "waited ten seconds"


def _is_dead(place: Path) -> bool:
    try:
        os.stat(place)
    except OSError:
        return True
    return False


def test_only_who_mounts_can_read_unless_others_are_allowed(
    checked_repository: MountedRepository, open_place: Path
) -> None:
    mount = replace(checked_repository, place=open_place)
    somebody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command = [*somebody, "cat", str(open_place / "README.txt")]
    mount.mount()
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    mount.umount()
    mount.mount("--allow-others")
    found = subprocess.run(command, capture_output=True, check=True).stdout
    assert found == (open_place / "README.txt").read_bytes()
    mount.umount()
