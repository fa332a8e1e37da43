"""Exports that cannot be, and what the user is told; lines for the kernel's server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from backpoint_fusefs.nfs.portmapper import portmapper_runs
from backpoint_repo.store.local import LocalStore
from exported_repository import (
    back_up_disk,
    environment,
    exported,
    exports_alone,
    free_port,
    newest_disk,
    succeed,
)
from mounted_repository import MountedRepository
from small_repository import new_repository

_COMMAND = "from backpoint_repo.cli import main; raise SystemExit(main())"
_DISK = os.urandom(1 << 20)


def _refused(made: MountedRepository, *words: str, user: int = 0, path: str = "") -> str:
    """What is said by an export that must not begin."""
    variables = environment(made) | ({"PATH": path} if path else {})
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, "export", "--nfs", *words],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        user=user,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def _tools(folder: Path, *names: str) -> str:
    """A PATH with these programs only."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found is not None, name
        (folder / name).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize("option", ["--port", "--mount-port"])
def test_a_port_in_use_is_named_with_the_remedy(
    checked_repository: MountedRepository, option: str
) -> None:
    """Before anything is started, and which of the two it is."""
    with exports_alone(), socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"--port": free_port(), "--mount-port": free_port()} | {option: port}
        words = [str(word) for pair in ports.items() for word in pair]
        said = _refused(checked_repository, *words)
    assert f"port {port} of 127.0.0.1 is in use" in said
    assert option in said


def test_an_address_of_another_machine_is_told(checked_repository: MountedRepository) -> None:
    """192.0.2.0/24 belongs to nobody."""
    words = ("--listen", "192.0.2.1", "--allow", "192.0.2.7", "--port", str(free_port()))
    assert "no address 192.0.2.1" in _refused(checked_repository, *words)


def test_without_ganesha_the_packages_are_named(
    checked_repository: MountedRepository, tmp_path: Path
) -> None:
    """And the way without it."""
    said = _refused(checked_repository, path=_tools(tmp_path / "tools", "losetup"))
    assert "nfs-ganesha-vfs" in said
    assert "--print-exports" in said


def test_only_root_can_export(checked_repository: MountedRepository) -> None:
    """Said before anybody is asked for a passphrase."""
    assert "root" in _refused(checked_repository, user=65534)


def test_others_need_to_be_named(checked_repository: MountedRepository) -> None:
    """An address that others reach opens nothing by itself."""
    assert "--allow" in _refused(checked_repository, "--listen", "0.0.0.0")


def test_a_second_nfs_server_is_not_pushed_aside(
    checked_repository: MountedRepository, tmp_path: Path
) -> None:
    """NFS-Ganesha would take its registration: the other one's clients would find ours."""
    back_up_disk(checked_repository, "web", _DISK)
    root = tmp_path / "second"
    new_repository(LocalStore(root))
    second = MountedRepository(
        checked_repository.repository, root, checked_repository.place, checked_repository.state
    )
    with exported(checked_repository) as export:
        words = ("--port", str(free_port()), "--mount-port", str(free_port()))
        assert "another NFS server" in _refused(second, "--read-only", *words)
        assert succeed("nfs-cat", export.url(newest_disk(export), 3)) == _DISK


def test_without_rpcbind_version_4_is_served(
    checked_repository: MountedRepository, tmp_path: Path
) -> None:
    """And the user is told what is missing."""
    back_up_disk(checked_repository, "web", _DISK)
    path = _tools(tmp_path / "tools", "ganesha.nfsd", "losetup", "mke2fs", "fusermount3")
    runs = portmapper_runs()
    with exported(checked_repository, "--read-only", path=path) as export:
        assert export.record["versions"] == ([3, 4] if runs else [4])
        assert runs or "install the package rpcbind" in export.words
        assert succeed("nfs-cat", export.url(newest_disk(export), 4)) == _DISK


def test_an_interrupt_ends_it_as_sigterm_does(checked_repository: MountedRepository) -> None:
    """Ctrl-C is the ordinary end of a command in the foreground."""
    with exported(checked_repository, "--read-only") as export:
        export.process.send_signal(signal.SIGINT)
        assert export.process.wait(60) == 0
        assert "Traceback" not in export.words


def test_lines_for_the_kernels_server_need_no_server(
    checked_repository: MountedRepository, tmp_path: Path
) -> None:
    """No Ganesha, no root, no passphrase: one line with all options, the rest are comments."""
    words = ["export", "--print-exports", "--at", "/mnt/back ups", "--allow", "127.0.0.5"]
    variables = environment(checked_repository) | {"PATH": str(tmp_path)}
    del variables["BACKPOINT_PASSPHRASE"]
    run = [sys.executable, "-c", _COMMAND]
    plain = subprocess.run([*run, *words], env=variables, capture_output=True, text=True)
    assert plain.returncode == 0, plain.stderr
    (line,) = [text for text in plain.stdout.splitlines() if not text.startswith("#")]
    assert line.startswith("/mnt/back\\040ups 127.0.0.5/32(rw,sync,no_root_squash,")
    told = subprocess.run([*run, *words, "--json"], env=variables, capture_output=True, text=True)
    assert json.loads(told.stdout)["line"] == line
    words = ["export", "--print-exports"]
    assert (
        "--at"
        in subprocess.run([*run, *words], env=variables, capture_output=True, text=True).stderr
    )


def test_no_export_is_told_by_the_exit_code(checked_repository: MountedRepository) -> None:
    """Nothing on standard output then, with --json too."""
    done = checked_repository.backpoint("export", "--status", "--json", passphrase=None)
    assert done.returncode == 1
    assert done.stdout == ""
