"""A network of booted guests and of nobody else: an Ethernet switch between QEMU's sockets.

Frames go from one guest's datagram socket to another's and nowhere else: no interface of this
machine takes part, so nothing that a guest does can leave. Decides where a frame goes, as any
learning switch does; what full queues cannot take is dropped, as on any Ethernet. Knows no guests.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FRAME_MAX: Final = 64 << 10
_HEADER: Final = 14
_ADDRESS: Final = 6
_LEARNED_MAX: Final = 1024
"""Of each port: a guest that makes up senders must not fill this machine's memory."""
_QUEUE: Final = 1 << 20
"""Bytes of a port's receive buffer: some hundred large frames while the interpreter is busy."""


@dataclass(frozen=True)
class Port:
    """Socket paths of one guest: QEMU binds `guest` and sends to `switch`."""

    guest: Path
    switch: Path


class ClosedSwitch:
    """A context manager; a thread of its own carries frames until it is left."""

    def __init__(self, folder: Path, ports: int) -> None:
        """folder: private, and its path short (a socket's path has 107 bytes). Raises OSError."""
        self.ports = tuple(
            Port(folder / f"guest{number}", folder / f"port{number}") for number in range(ports)
        )
        self._sockets: list[socket.socket] = []
        self._learned: list[dict[bytes, None]] = [{} for _ in self.ports]
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        try:
            for port in self.ports:
                self._sockets.append(_bound(port.switch))
        except OSError:
            self._close()
            raise
        self._thread.start()

    def __enter__(self) -> ClosedSwitch:
        return self

    def __exit__(self, *_: object) -> None:
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            for number, one in enumerate(self._sockets):
                selector.register(one, selectors.EVENT_READ, number)
            while True:
                for key, _ in selector.select():
                    if key.fd == self._wake:
                        return
                    self._carry(key.data)

    def _carry(self, source: int) -> None:
        try:
            frame = self._sockets[source].recv(_FRAME_MAX)
        except OSError:
            return
        if len(frame) < _HEADER:
            return
        self._learn(source, frame[_ADDRESS : 2 * _ADDRESS])
        for target in self._targets(source, frame[:_ADDRESS]):
            # A guest that is not there yet, not there any more, or too slow: frames are lost.
            with contextlib.suppress(OSError):
                self._sockets[target].sendto(frame, str(self.ports[target].guest))

    def _learn(self, source: int, sender: bytes) -> None:
        if _is_group(sender):
            return
        for number, learned in enumerate(self._learned):
            if number != source:
                learned.pop(sender, None)
        own = self._learned[source]
        own.pop(sender, None)
        own[sender] = None
        if len(own) > _LEARNED_MAX:
            del own[next(iter(own))]

    def _targets(self, source: int, receiver: bytes) -> list[int]:
        others = [number for number in range(len(self.ports)) if number != source]
        if receiver in self._learned[source]:
            return []
        known = [number for number in others if receiver in self._learned[number]]
        return others if _is_group(receiver) or not known else known

    def _close(self) -> None:
        for one in self._sockets:
            one.close()
        os.close(self._wake)
        for port in self.ports:
            port.switch.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
        made.bind(str(path))
    except OSError:
        made.close()
        raise
    return made


def _is_group(address: bytes) -> bool:
    """Broadcast or multicast."""
    return bool(address[0] & 1)
