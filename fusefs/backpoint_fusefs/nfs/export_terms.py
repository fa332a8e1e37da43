"""On what terms a repository is served over NFS: which address and ports, to whom, writable or not.

Decides that nothing but this machine gets access unless an address and networks are named. IPv4
only: NFS-Ganesha's lists of clients take no IPv6 networks. Knows no server and no mount.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from backpoint_repo.errors import UsageError

NFS_PORT: Final = 2049
MOUNT_PORT: Final = 20048
PATH: Final = "/backpoint"
"""What clients mount, over NFSv3 and NFSv4 alike."""
_HERE: Final = "127.0.0.1"
_THIS_MACHINE: Final = ("127.0.0.0/8",)


@dataclass(frozen=True)
class ExportTerms:
    """address: the one listened on, `0.0.0.0` for all of them. allowed: whose requests are
    answered; others are refused. read_only: points only, nothing can be written."""

    address: IPv4Address
    allowed: tuple[IPv4Network, ...]
    read_only: bool = False
    nfs_port: int = NFS_PORT
    mount_port: int = MOUNT_PORT

    @property
    def open_to_all(self) -> bool:
        """Whether everybody who reaches the address has access."""
        return any(network.prefixlen == 0 for network in self.allowed)


def plan_terms(
    listen: str | None,
    allow: Sequence[str],
    *,
    read_only: bool = False,
    nfs_port: int = NFS_PORT,
    mount_port: int = MOUNT_PORT,
) -> ExportTerms:
    """As the user wants it. Raises UsageError where that makes no sense or is not said enough."""
    address = _address(listen or _HERE)
    allowed = networks(allow or (_THIS_MACHINE if address.is_loopback else ()))
    if not allowed:
        raise UsageError(
            f"{address} is reached by others: say who may with --allow, such as --allow 10.0.0.7 "
            "or --allow 10.0.0.0/24"
        )
    if listen is None and not all(network.is_loopback for network in allowed):
        raise UsageError(
            "--allow names other machines, which cannot reach 127.0.0.1: say with --listen which "
            "address of this machine they come to"
        )
    for option, port in (("--port", nfs_port), ("--mount-port", mount_port)):
        if not 1 <= port <= 65535:
            raise UsageError(f"{option} must be from 1 to 65535")
    if nfs_port == mount_port:
        raise UsageError("--port and --mount-port must differ")
    return ExportTerms(address, allowed, read_only, nfs_port, mount_port)


def networks(words: Sequence[str]) -> tuple[IPv4Network, ...]:
    """Single addresses and networks. Raises UsageError."""
    found = []
    for word in words:
        try:
            found.append(IPv4Network(word, strict=False))
        except ValueError:
            raise UsageError(
                f"--allow {word}: neither an IPv4 address nor a network like 10.0.0.0/24"
            ) from None
    return tuple(found)


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise UsageError(f"--listen {text}: not an IPv4 address") from None
