"""An rpcbind of our own, for machines where none runs: NFSv3 clients ask it for the server's ports.

It gets its sockets from us, as from systemd, so that it listens on the export's address alone: by
itself it takes TCP port 111 of every address. Only TCP is offered; over UDP an rpcbind makes a
small forged question a large answer to somebody else.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address
from typing import Final, NoReturn

from backpoint_fusefs.death_signal import die_with
from backpoint_fusefs.nfs.child import Child
from backpoint_fusefs.nfs.portmapper import SOCKET, portmapper_runs
from backpoint_repo.errors import UsageError

PORT: Final = 111
_FIRST_FD: Final = 3
"""Where a service finds the sockets it is given (sd_listen_fds(3))."""
_ASIDE: Final = 100
_TRANSPORTS: Final = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
_BACKLOG: Final = 64
_START_S: Final = 5.0
_POLL_S: Final = 0.02


def rpcbind_installed() -> bool:
    return shutil.which("rpcbind") is not None


class PrivateRpcbind(Child):
    """Answers when it is made. Raises UsageError where its port is taken or it does not start."""

    def __init__(self, address: IPv4Address, log: int) -> None:
        with ExitStack() as stack:
            sockets = _sockets(address, stack)

            def hand_over() -> None:
                # Twice, because a descriptor may have a number that another one shall get.
                for at, sock in enumerate(sockets):
                    os.dup2(sock.fileno(), _ASIDE + at, inheritable=False)
                for at in range(len(sockets)):
                    os.dup2(_ASIDE + at, _FIRST_FD + at, inheritable=True)
                # It hears strangers, and a passphrase may be among the others.
                for name in os.environ.keys() - {"PATH"}:
                    del os.environ[name]
                os.environ["LISTEN_FDS"] = str(len(sockets))
                os.environ["LISTEN_PID"] = str(os.getpid())

            try:
                super().__init__(["rpcbind", "-f"], log, package="rpcbind", set_up=hand_over)
            except UsageError:
                SOCKET.unlink()
                raise
        self._guard = _start_guard(self.pidfd)
        deadline = time.monotonic() + _START_S
        while not portmapper_runs():
            if self.ended_within(_POLL_S) or time.monotonic() > deadline:
                self.end()
                raise UsageError("rpcbind does not start; what it said is in the export's log")

    def end(self) -> None:
        super().end()
        guard, self._guard = self._guard, 0
        if guard:
            os.kill(guard, signal.SIGKILL)
            os.waitpid(guard, 0)
        with suppress(FileNotFoundError):
            SOCKET.unlink()


def _start_guard(pidfd: int) -> int:
    """A process that kills rpcbind when we die, and its pid.

    The kernel forgets that a child wants to die with us when it becomes another user, as rpcbind
    does.
    """
    parent = os.getpid()
    # Blocked before it is forked, so that it cannot come too soon.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        guard = os.fork()
        if guard == 0:
            _guard(parent, pidfd)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return guard


def _guard(parent: int, pidfd: int) -> NoReturn:
    try:
        os.setsid()  # an interrupt at the terminal is not for us
        # Above all the mount's connection (held_connection.py), which must not be held here, too.
        os.closerange(_FIRST_FD, pidfd)
        os.closerange(pidfd + 1, os.sysconf("SC_OPEN_MAX"))
        die_with(parent, signal.SIGTERM)
        signal.sigwait({signal.SIGTERM})
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        # _exit: nothing of the parent's (its clean-up, its buffers) may run a second time.
        os._exit(0)


def _sockets(address: IPv4Address, stack: ExitStack) -> list[socket.socket]:
    """One for each transport it would otherwise open by itself, on all addresses."""
    wanted: list[tuple[socket.AddressFamily, int, str]] = [
        (socket.AF_INET, socket.SOCK_STREAM, str(address)),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
    ]
    if _has_ipv6():
        wanted += [(socket.AF_INET6, kind, "::1") for kind in _TRANSPORTS]
    found = [stack.enter_context(_bound(*one)) for one in wanted]
    SOCKET.unlink(missing_ok=True)  # nobody answers at it
    local = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    local.bind(str(SOCKET))
    local.listen(_BACKLOG)
    return [*found, local]


def _bound(family: socket.AddressFamily, transport: int, place: str) -> socket.socket:
    sock = socket.socket(family, transport)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((place, PORT))
        if transport == socket.SOCK_STREAM:
            sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise UsageError(f"rpcbind's port {PORT} on {place} cannot be had: {error.strerror}") from (
            error
        )
    return sock


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True
