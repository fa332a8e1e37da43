"""Disks written through the operator's VDDK: for each one nbdkit, writable, with one connection.

Decides how the transport's command line becomes one that writes. How nbdkit is given its password
and watched is the transport's business (`transport.vddk`), which also reads what was written.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_agent.restoring.write_side import Advance, fill_target
from backpoint_agent.secret_reading import read_secret
from backpoint_agent.settings.model import VCenterSettings, VddkSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.transport.kept_child import kept_by_a_thread
from backpoint_agent.transport.vddk import (
    REQUEST_LIMIT,
    VddkTransport,
    plan_command,
    plan_words,
)
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import SourceError, TargetError
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.source.contract import ImageSource
from backpoint_repo.source.nbd_child import NbdChild
from backpoint_repo.target.contract import Content, ImageTarget
from backpoint_repo.target.nbd_writer import NbdWriter

_ANSWER_LIMIT_S: Final = 300.0
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_ZEROS: Final = memoryview(bytes(REQUEST_LIMIT))
_ONLY_TO_READ: Final = ("-r", "--readonly", "--filter=cacheextents")


class VddkSide:
    """`WriteSide` by nbdkit and VDDK."""

    name = "vddk"
    writes_ranges = True

    def __init__(
        self,
        settings: VddkSettings,
        account: VCenterSettings,
        vcenter: VCenter,
        machine: Machine,
        stop: Stop,
    ) -> None:
        """Raises TransportUnusable where nbdkit or VDDK is not installed, KeyFault."""
        reading = _live(plan_words(settings, vcenter.address))
        transport = VddkTransport(
            settings.model_copy(update={"command": reading}), account, vcenter, stop
        )
        self._reading = transport.prepare(FrozenMachine(machine, "", machine.disks))
        self._words = plan_writing(reading)
        self._password = read_secret(account.password, f"the password of vCenter {vcenter.name}")
        self._values = {
            "libdir": str(settings.libdir),
            "server": vcenter.address.rpartition(":")[0].strip("[]"),
            "user": account.user,
            "thumbprint": vcenter.thumbprint("sha1"),
            "moref": machine.moref,
            "transports": settings.transports,
            "compression": settings.compression,
        }
        self._stop = stop

    def fill(self, disk: VirtualDisk, reader: ImageReader, advance: Advance) -> None:
        """Only what is not zero is sent: the disk stays thin."""
        fill_target(self._target(disk, empty=True), reader, advance)

    def target(self, disk: VirtualDisk) -> ImageTarget:
        """nbdkit with this disk, writable."""
        return self._target(disk, empty=False)

    def source(self, disk: VirtualDisk) -> ImageSource:
        """nbdkit with this disk, to read; on its own, as VDDK opens a disk once to write."""
        return self._reading.open(disk)

    def close(self) -> None:
        """End the processes that read."""
        self._reading.close()

    def _target(self, disk: VirtualDisk, *, empty: bool) -> VddkTarget:
        try:
            return VddkTarget(
                disk, self._words, self._values, self._password, self._stop, empty=empty
            )
        except SourceError as error:
            self._stop.check()
            raise TransportUnusable(str(error)) from error


class VddkTarget:
    """`ImageTarget` of one disk, and the process that serves it. empty: it holds only zeros."""

    def __init__(
        self,
        disk: VirtualDisk,
        words: Sequence[str],
        values: Mapping[str, str],
        password: str,
        stop: Stop,
        *,
        empty: bool,
    ) -> None:
        """Raises SourceError with the process's words where it does not serve the disk."""
        self._name = disk.file
        self._empty = empty
        self._lock = threading.Lock()
        self._stop = stop
        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="backpoint-")))
            secret = folder / "password"
            with open(os.open(secret, _NEW, 0o600), "w", encoding="utf-8") as file:
                file.write(password + "\n")
            places = {
                "file": disk.file,
                "socket": str(folder / "socket"),
                "pidfile": str(folder / "pid"),
                "password_file": str(secret),
            }
            command = plan_command(words, {**values, **places})
            self._child = self._start(command, places["socket"], password)
            opened.callback(self._child.close)
            self._writer = self._child.first_connection(
                lambda: NbdWriter(self._child.address, self._name, _ANSWER_LIMIT_S)
            )
            opened.callback(self._writer.close)
            secret.unlink()
            if self._writer.size != disk.size:
                raise SourceError(
                    f"VDDK gives {disk.file} as {self._writer.size} bytes, and {disk.label} has "
                    f"{disk.size}"
                )
            self._opened = opened.pop_all()

    def _start(self, command: Sequence[str], address: str, password: str) -> NbdChild:
        return NbdChild(
            self._name,
            address,
            command,
            program=os.path.basename(command[0]),
            secret=password,
            start=kept_by_a_thread(self._stop),
        )

    def write_at(self, offset: int, data: Content) -> None:
        """Raises TargetError, Stopped."""
        rest = memoryview(data)
        while rest:
            part = rest[:REQUEST_LIMIT]
            self._stop.check()
            try:
                with self._lock:
                    self._writer.write_at(offset, part)
            except SourceError as error:
                raise self._failed(error) from error
            offset, rest = offset + len(part), rest[len(part) :]

    def zero_at(self, offset: int, length: int) -> None:
        """Raises TargetError, Stopped."""
        end = offset if self._empty else offset + length
        while offset < end:
            part = _ZEROS[: end - offset]
            self.write_at(offset, part)
            offset += len(part)

    def finish(self) -> None:
        """Raises TargetError."""
        try:
            self._writer.flush()
        except SourceError as error:
            raise self._failed(error) from error
        self._opened.close()

    def abandon(self) -> None:
        """End the process; what was written stays."""
        self._opened.close()

    def _failed(self, error: SourceError) -> TargetError:
        self._stop.check()
        return TargetError(str(self._child.explained(error)))


def plan_writing(words: Sequence[str]) -> tuple[str, ...]:
    """The transport's command, writable and of the VM's own disk instead of a snapshot's."""
    return tuple(word for word in _live(words) if word not in _ONLY_TO_READ)


def _live(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if "{snapshot}" not in word)
