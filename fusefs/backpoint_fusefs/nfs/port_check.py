"""Whether ports can be listened on, before a server is started that would only say so in a log."""

from __future__ import annotations

import errno
import socket

from backpoint_fusefs.nfs.export_terms import ExportTerms
from backpoint_repo.errors import UsageError


def check_ports(terms: ExportTerms, *, nfs3: bool) -> None:
    """Raises UsageError, which names the port and the remedy."""
    wanted = [("--port", terms.nfs_port)] + ([("--mount-port", terms.mount_port)] if nfs3 else [])
    for option, port in wanted:
        _check(terms, option, port)


def _check(terms: ExportTerms, option: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        # As servers do: connections that are closing down are no hindrance.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((str(terms.address), port))
            sock.listen(1)
        except OSError as error:
            raise UsageError(_why(error, terms, option, port)) from error


def _why(error: OSError, terms: ExportTerms, option: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {terms.address} is in use (`ss -tlnp sport = :{port}` says by whom; "
            f"the kernel's own NFS server takes 2049): end that, or choose another with {option}"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {terms.address}: --listen takes one of its own"
    if error.errno == errno.EACCES:
        return f"port {port} may only be opened by root"
    return f"port {port} of {terms.address} cannot be opened: {error.strerror}"
