"""A running vCenter simulator and everything that a test can do to it.

The test plays the guest and the administrator (`disks`), the tracking of changes (`tracking`), and
whatever can fail (`faults`). VMs are named by their moref.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyVim.connect import Disconnect, SmartConnect

from vcsim.certificate import Certificate
from vcsim.disks import Disks
from vcsim.faults import Faults
from vcsim.process import Process, SimulatorError
from vcsim.tracking import Tracking

LISTEN_TIMEOUT_S = 20


@dataclass(frozen=True)
class Call:
    """One request that reached the simulator, or one program run in a guest.

    `method` is the SOAP method, `GET /folder`, `PUT /folder`, `GET /nfc`, `POST /rest`, or
    `guest program`; `target` the object's moref or the path; `vm` the VM it concerns, if known;
    `detail` the snapshot's name, the Range asked for, or the program with its arguments.
    """

    number: int
    method: str
    target: str
    vm: str
    detail: str


class Simulator(Disks, Tracking, Faults):
    """One vCenter of one datacenter `DC0` with one cluster `DC0_C0`; use `running_simulator`.

    VMs are `DC0_C0_RP0_VM0`, ... spread over the hosts and the datastores `LocalDS_0`, ... in turn;
    they are powered on, their tools run, and each has one empty disk of 1 MiB, key 2000-odd.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        folder: Path,
        *,
        vms: int = 2,
        hosts: int = 2,
        datastores: int = 1,
        user: str = "administrator@vsphere.local",
        password: str = "Vc-secret-1",
        certificate_names: Sequence[str] = ("localhost", "127.0.0.1"),
        certificate_expired: bool = False,
        hotadd_folder: Path | None = None,
        instance_uuid: str = "",
    ) -> None:
        """Start it with its files in `folder`.

        `hotadd_folder` is where disks attached to a `proxy` VM appear as `wwn-0x<uuid>`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        certificate = Certificate.make(folder, names=certificate_names, expired=certificate_expired)
        self.user, self.password = user, password
        self.ca_file = certificate.file
        self.thumbprint_sha1, self.thumbprint_sha256 = certificate.sha1, certificate.sha256
        arguments = [f"-user={user}", f"-vms={vms}", f"-hosts={hosts}", f"-datastores={datastores}"]
        arguments += [f"-instance-uuid={instance_uuid}"] if instance_uuid else []
        arguments += [f"-cert={certificate.file}", f"-key={certificate.key_file}"]
        if hotadd_folder:
            hotadd_folder.mkdir(parents=True, exist_ok=True)
            arguments.append(f"-hotadd-dir={hotadd_folder}")
        self._process = Process(arguments, folder, password)
        self.log = self._process.log
        self.port = int(self._process.ready["address"].rsplit(":", 1)[1])

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    def close(self) -> None:
        """End it; SimulatorError with the stack if it panicked at any time."""
        self._process.end()
        if panic := self._process.panics():
            raise SimulatorError(f"the simulator panicked: {panic}")

    # vCenter's inventory

    def vms(self) -> list[str]:
        """The morefs of all VMs, oldest first."""
        return list(self.control("vms")["vms"])

    def datastores(self) -> dict[str, Path]:
        """The folder that holds each datastore's files."""
        return {name: Path(path) for name, path in self.control("datastores")["paths"].items()}

    def file(self, datastore_path: str) -> Path:
        """The file that `[datastore] folder/name` names; it need not exist."""
        return Path(self.control("file", path=datastore_path)["path"])

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """Log in with pyvmomi, verifying the certificate; the service instance."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        login = {"user": self.user, "pwd": self.password}
        instance = SmartConnect(  # type: ignore[no-untyped-call]
            host=self.host, port=self.port, sslContext=context, **login
        )
        try:
            yield instance
        finally:
            Disconnect(instance)  # type: ignore[no-untyped-call]

    # Up, down and hanging

    def clear(self) -> None:
        """Forget all rules: faults, privileges, delays, lies, wrong answers, read faults."""
        self.control("clear")

    def stop(self) -> None:
        """Close the port: connections are cut and refused; the inventory stays."""
        self.control("stop")

    def start(self) -> None:
        """Listen on the same port again."""
        self.control("start")
        deadline = time.monotonic() + LISTEN_TIMEOUT_S
        while True:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise

    def restart(self) -> None:
        """Stop, lose all sessions, start."""
        self.stop()
        self.expire_sessions()
        self.start()

    def hang(self) -> None:
        """Stop answering while connections stay open; nothing but `go_on` works meanwhile."""
        self._process.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End `hang`."""
        self._process.signal(signal.SIGCONT)

    # What happened

    def calls(self) -> list[Call]:
        """All that reached the simulator, in order, since the start or `forget_calls`."""
        return [Call(**call) for call in self.control("calls")["calls"]]

    def forget_calls(self) -> None:
        self.control("forget_calls")


@contextlib.contextmanager
def running_simulator(folder: Path, **options: Any) -> Iterator[Simulator]:
    """A simulator with its files in `folder`; the arguments are `Simulator`'s."""
    simulator = Simulator(folder, **options)
    try:
        yield simulator
    except BaseException:
        with contextlib.suppress(SimulatorError):
            simulator.close()
        raise
    simulator.close()
