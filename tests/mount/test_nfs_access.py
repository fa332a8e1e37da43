"""Who has access to an export, and to what."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import nfs_calls
from exported_repository import PATH, back_up_disk, exported, newest_disk, succeed, tool
from mounted_repository import MountedRepository

_DISK = os.urandom(1 << 20)


def test_only_who_is_allowed_has_access(unchecked_repository: MountedRepository) -> None:
    """Everybody else is refused, also with a handle that somebody else got."""
    back_up_disk(unchecked_repository, "web", _DISK)
    friend, stranger = "127.0.0.9", "127.0.0.8"
    with exported(unchecked_repository, "--allow", friend, "--read-only") as export:
        host, ports = export.host, (export.record["mount_port"], export.record["nfs_port"])
        status, handle = nfs_calls.mount(host, ports[0], PATH, friend)
        assert status == nfs_calls.OK
        assert len(handle) <= 56  # as much as ESXi takes
        assert nfs_calls.attributes_status(host, ports[1], handle, friend) == nfs_calls.OK
        assert nfs_calls.mount(host, ports[0], PATH, stranger)[0] != nfs_calls.OK
        with contextlib.suppress(nfs_calls.Denied):
            status = nfs_calls.attributes_status(host, ports[1], handle, stranger)
            assert status != nfs_calls.OK
        for version in (3, 4):
            # libnfs comes from 127.0.0.1.
            refused = tool("nfs-ls", export.url("", version))
            assert refused.returncode != 0
            assert b"vms" not in refused.stdout


def test_a_user_of_an_allowed_machine_is_not_its_root(
    unchecked_repository: MountedRepository,
) -> None:
    """Who says that he is root, and comes from a port that anybody can have, is refused."""
    back_up_disk(unchecked_repository, "web", _DISK)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with exported(unchecked_repository) as export:
        host, here = export.host, "127.0.0.1"
        status, handle = nfs_calls.mount(host, export.record["mount_port"], PATH, here)
        assert status == nfs_calls.OK
        port = export.record["nfs_port"]
        assert nfs_calls.attributes_status(host, port, handle, here) == nfs_calls.OK
        with contextlib.suppress(nfs_calls.Denied):
            status = nfs_calls.attributes_status(host, port, handle, here, nfs_calls.ANY_PORT)
            assert status != nfs_calls.OK
        for version in (3, 4):
            url = export.url("", version) + "&uid=0&gid=0"
            assert b"vms" in succeed("nfs-ls", url)
            refused = tool(*nobody, "nfs-ls", url)
            assert refused.returncode != 0
            assert b"vms" not in refused.stdout


def test_servers_are_given_no_secret(unchecked_repository: MountedRepository) -> None:
    """They hear strangers; the passphrase is in the environment of who started them."""
    back_up_disk(unchecked_repository, "web", _DISK)
    with exported(unchecked_repository, "--read-only") as export:
        children = export.children()
        assert "ganesha.nfsd" in children
        for name in children.keys() & {"ganesha.nfsd", "rpcbind"}:
            environment = Path(f"/proc/{children[name]}/environ").read_bytes()
            assert b"BACKPOINT" not in environment, name


def test_read_only_exports_points_and_nothing_else(unchecked_repository: MountedRepository) -> None:
    """No folder of sessions, and no write gets through."""
    back_up_disk(unchecked_repository, "web", _DISK)
    with exported(unchecked_repository, "--read-only") as export:
        assert "live" not in export.names("", 4)
        assert succeed("nfs-cat", export.url(newest_disk(export), 4)) == _DISK
        assert tool("nfs-cp", "/etc/passwd", export.url("new", 3)).returncode != 0
        assert export.status()["sessions"] is None
        assert export.status()["read_only"] is True
