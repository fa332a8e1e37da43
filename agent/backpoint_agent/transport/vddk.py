"""Disks through the operator's VDDK: for each one nbdkit with its vddk plugin, on a private socket.

Decides the command line, how the password gets there (a file that only we can read and that is gone
as soon as it was read), and that a disk has one connection: several make VDDK two to seven times
slower. Refuses to know NBD and how a child is watched. VDDK is not ours to give away: without it,
or without nbdkit's plugin for it, this transport says so and another one is used.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.secret_reading import read_secret
from backpoint_agent.settings.model import VCenterSettings, VddkSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.transport.kept_child import kept_by_a_thread
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import KeyFault, SourceError
from backpoint_repo.source.contract import Extent
from backpoint_repo.source.nbd_child import NbdChild
from backpoint_repo.source.nbd_client import NbdConnection
from backpoint_repo.source.nbd_image import NbdImage

REQUEST_LIMIT: Final = 2 << 20
"""Larger ones make a host's NFC server run out of its 48 MB of buffers."""

_ANSWER_LIMIT_S: Final = 300.0
"""Of one request; the retry filter takes about one minute before it gives up."""

_COMMAND: Final = (
    "nbdkit", "--foreground", "--exit-with-parent", "--readonly", "--unix", "{socket}",
    "--pidfile", "{pidfile}",
    # The last filter is nearest to the plugin: what is retried is a request to VDDK.
    "--filter=cacheextents", "--filter=blocksize", "--filter=retry",
    "vddk", "libdir={libdir}", "server={server}", "user={user}", "password=+{password_file}",
    "thumbprint={thumbprint}", "vm=moref={moref}", "snapshot={snapshot}",
    "transports={transports}", "minblock=512", "maxdata=2M", "file={file}",
)  # fmt: skip
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")
_REMEDY: Final = (
    "install nbdkit with its vddk plugin (Debian: nbdkit, nbdkit-plugin-vddk) and VMware's VDDK, "
    "and name VDDK's folder in transports.vddk.libdir"
)


class VddkTransport:
    """`Transport` by nbdkit and VDDK."""

    name = "vddk"

    def __init__(
        self, settings: VddkSettings, account: VCenterSettings, vcenter: VCenter, stop: Stop
    ) -> None:
        """account: whose user and password VDDK logs in with; `vcenter` is where it does."""
        self._settings = settings
        self._account = account
        self._vcenter = vcenter
        self._stop = stop

    def prepare(self, frozen: FrozenMachine) -> OpenVddk:
        """Starts nothing yet. Raises TransportUnusable where nbdkit or VDDK is not installed."""
        words = plan_words(self._settings, self._vcenter.address)
        if shutil.which(words[0]) is None:
            raise TransportUnusable(f"there is no program {words[0]!r} here: {_REMEDY}")
        uses_libdir = any("{libdir}" in word for word in words)
        if uses_libdir and not self._settings.libdir.is_dir():
            raise TransportUnusable(f"there is no folder {self._settings.libdir}: {_REMEDY}")
        what = f"the password of vCenter {self._vcenter.name}"
        try:
            password = read_secret(self._account.password, what)
        except KeyFault as error:
            raise TransportUnusable(str(error)) from error
        values = {
            "libdir": str(self._settings.libdir),
            "server": self._vcenter.address.rpartition(":")[0].strip("[]"),
            "user": self._account.user,
            "thumbprint": self._vcenter.thumbprint("sha1"),
            "moref": frozen.machine.moref,
            "snapshot": frozen.snapshot,
            "transports": self._settings.transports,
            "compression": self._settings.compression,
        }
        note = f"{self._settings.transports} through {self._vcenter.name}"
        return OpenVddk(words, values, password, note, self._stop)


class OpenVddk:
    """`OpenTransport`: one VM's disks, a process for each that is open."""

    name = "vddk"
    reads_ranges = True
    warnings: Final[Sequence[str]] = ()

    def __init__(
        self,
        words: Sequence[str],
        values: Mapping[str, str],
        password: str,
        note: str,
        stop: Stop,
    ) -> None:
        self._words = words
        self._values = values
        self._password = password
        self._stop = stop
        self._opened = ExitStack()
        self.note = note

    def open(self, disk: VirtualDisk) -> VddkImage:
        """Start nbdkit and wait until it has the disk. Raises TransportUnusable, Stopped."""
        self._stop.check()
        try:
            image = VddkImage(disk, self._words, self._values, self._password, self._stop)
        except SourceError as error:
            self._stop.check()
            raise TransportUnusable(str(error)) from error
        self._opened.callback(image.close)
        if image.size != disk.size:
            raise TransportUnusable(
                f"VDDK gives {disk.file} as {image.size} bytes, and {disk.label} has {disk.size}"
            )
        return image

    def close(self) -> None:
        """End the processes of all disks."""
        self._opened.close()


class VddkImage:
    """`ImageSource` of one disk, and the process that serves it."""

    def __init__(
        self,
        disk: VirtualDisk,
        words: Sequence[str],
        values: Mapping[str, str],
        password: str,
        stop: Stop,
    ) -> None:
        """Raises SourceError with the process's words where it does not serve the disk."""
        self._name = disk.file
        self._stop = stop
        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="backpoint-")))
            secret = folder / "password"
            _write_private(secret, password)
            address = str(folder / "socket")
            command = plan_command(
                words,
                {
                    **values,
                    "file": disk.file,
                    "socket": address,
                    "pidfile": str(folder / "pid"),
                    "password_file": str(secret),
                },
            )
            self._child = NbdChild(
                self._name,
                address,
                command,
                program=os.path.basename(command[0]),
                secret=password,
                start=kept_by_a_thread(stop),
            )
            opened.callback(self._child.close)
            first = [self._child.first_connection(self._connect)]
            secret.unlink()
            self._image = NbdImage(
                self._name, lambda: first.pop() if first else self._connect(), connections=1
            )
            opened.callback(self._image.close)
            self._opened = opened.pop_all()

    @property
    def name(self) -> str:
        """The disk's file, "[datastore] folder/name.vmdk"."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes, as VDDK says."""
        return self._image.size

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What VDDK calls not allocated are holes. Raises SourceError, Stopped."""
        try:
            yield from self._image.extents(offset, length)
        except SourceError as error:
            raise self._explained(error) from error

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, in requests of up to REQUEST_LIMIT. Raises SourceError, Stopped."""
        target = buffer.cast("B")
        for start in range(0, len(target), REQUEST_LIMIT):
            self._stop.check()
            try:
                self._image.read_into(offset + start, target[start : start + REQUEST_LIMIT])
            except SourceError as error:
                raise self._explained(error) from error

    def close(self) -> None:
        """Close the connection, end the process, remove its folder. Idempotent."""
        self._opened.close()

    def _explained(self, error: SourceError) -> SourceError:
        """With what the process said, dead or alive. Raises Stopped where that is why."""
        self._stop.check()
        return self._child.explained(error)

    def _connect(self) -> NbdConnection:
        return NbdConnection(self._child.address, self._name, _ANSWER_LIMIT_S)


def plan_words(settings: VddkSettings, address: str) -> tuple[str, ...]:
    """The command with its placeholders; address: host:port of the vCenter."""
    if settings.command is not None:
        return settings.command
    more: tuple[str, ...] = ()
    port = address.rpartition(":")[2]
    if port != "443":
        more += (f"port={port}",)
    if settings.compression != "none":
        # Only where it is wanted: plugins before 1.24 do not know the key.
        more += ("compression={compression}",)
    return (*_COMMAND, *more)


def plan_command(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Each placeholder filled in once: braces in a value stay what they are."""
    return [_PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in words]


def _write_private(path: Path, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(secret + "\n")
