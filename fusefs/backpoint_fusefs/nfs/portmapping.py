"""How NFSv3 clients find the export's ports: by the machine's rpcbind, by one of ours, or not.

NFS-Ganesha serves NFSv3 only if it can register with an rpcbind when it starts, and then takes the
place of any NFS server that is registered; so it is not let near one that lives.
"""

from __future__ import annotations

import socket
from enum import Enum

from backpoint_fusefs.nfs.portmapper import NFS_PROGRAM, NoPortmapper, Registered, registered
from backpoint_fusefs.nfs.private_rpcbind import rpcbind_installed
from backpoint_repo.errors import UsageError

_CONNECT_S = 2.0


class PortMapping(Enum):
    """MACHINE: an rpcbind runs. PRIVATE: one is started for the export. NONE: only NFSv4."""

    MACHINE = "machine"
    PRIVATE = "private"
    NONE = "none"

    @property
    def nfs3(self) -> bool:
        return self is not PortMapping.NONE

    @property
    def problem(self) -> str:
        """For the user; empty where there is none."""
        if self is PortMapping.NONE:
            return (
                "rpcbind is not installed, so only NFSv4 is served; ESXi with NFSv3 and QEMU's "
                "nfs:// need it: install the package rpcbind"
            )
        return ""


def find_port_mapping() -> PortMapping:
    """As this machine is now. Raises UsageError where another NFS server is registered."""
    try:
        servers = [server for server in registered() if server.program == NFS_PROGRAM]
    except NoPortmapper:
        return PortMapping.PRIVATE if rpcbind_installed() else PortMapping.NONE
    for server in servers:
        if server.transport.startswith("tcp") and _answers(server):
            raise UsageError(
                f"another NFS server of this machine, on port {server.port}, is registered with "
                "rpcbind, and NFS-Ganesha would take its place: end it, or let it serve a mount "
                "(--print-exports)"
            )
    return PortMapping.MACHINE


def _answers(server: Registered) -> bool:
    """Registrations outlive a server that was killed."""
    try:
        # Of all addresses, any does: connecting to 0.0.0.0 is connecting to this machine.
        socket.create_connection((server.host, server.port), _CONNECT_S).close()
    except OSError:
        return False
    return True
