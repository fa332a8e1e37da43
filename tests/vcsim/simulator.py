"""A running vCenter simulator and everything that a test can do to it.

The test plays the guest (writes its disks), the storage (lies about changes, fails reads), the
network (drops, garbles, hangs) and vCenter's administrator; VMs are named by their moref, disks by
their device key, 0 being the VM's first disk. What a rule has caught `count` times it forgets;
`count=-1` is for ever.
"""

from __future__ import annotations

import base64
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
from vcsim.process import Process, SimulatorError

LISTEN_TIMEOUT_S = 20
FOREVER = -1
WRITE_SIZE = 1 << 20


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


class Simulator:
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

    def control(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask the simulator for something that has no method here; SimulatorError if refused."""
        return self._process.ask({"op": op, **fields})

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

    # Disks, as the guest and the administrator see them

    def attach(self, vm: str, image: Path, key: int = 0) -> Path:
        """Make the disk's content a sparse copy of `image`, its capacity with it; `live_disk`."""
        return Path(self.control("attach", vm=vm, image=str(image), key=key)["path"])

    def live_disk(self, vm: str, key: int = 0) -> Path:
        """The file that the guest writes now; a snapshot or its removal makes it another."""
        return Path(self.control("live", vm=vm, key=key)["path"])

    def write(self, vm: str, offset: int, data: bytes, key: int = 0) -> None:
        """Write as the guest would; each MiB is either before or after any snapshot."""
        for at in range(0, len(data), WRITE_SIZE):
            part = base64.b64encode(data[at : at + WRITE_SIZE]).decode()
            self.control("write", vm=vm, key=key, offset=offset + at, data=part)

    def add_disk(
        self,
        vm: str,
        content: int | Path,
        *,
        mode: str = "persistent",
        kind: str = "flat",
        sharing: str = "",
        encrypted: bool = False,
    ) -> int:
        """Add a disk of `content` bytes, or a copy of the image `content`; its key.

        `mode` is a VirtualDiskMode; `kind` flat, rdm-physical or rdm-virtual; `sharing` "",
        multiwriter (the disk) or bus (a new controller with a physically shared bus).
        """
        size, image = (content, "") if isinstance(content, int) else (0, str(content))
        fields = {"mode": mode, "kind": kind, "sharing": sharing, "encrypted": encrypted}
        return int(self.control("add_disk", vm=vm, size=size, image=image, **fields)["key"])

    def remove_disk(self, vm: str, key: int) -> None:
        """Take the disk out of the VM and delete its files."""
        self.control("remove_disk", vm=vm, key=key)

    def swap_disks(self, vm: str, key: int, other: int) -> None:
        """Let two disks exchange their device keys."""
        self.control("swap_disks", vm=vm, key=key, other=other)

    def extend(self, vm: str, size: int, key: int = 0) -> None:
        """Make the disk `size` bytes; the new end is a hole."""
        self.control("extend", vm=vm, size=size, key=key)

    def orphan_delta(self, vm: str) -> None:
        """Let the VM run on a delta disk without any snapshot, needing consolidation."""
        self.control("orphan_delta", vm=vm)

    def leave_delta(self, vm: str, count: int = 1) -> None:
        """Let the next removals of a snapshot leave its delta disk, needing consolidation."""
        self.control("leave_delta", vm=vm, count=count)

    def connection_state(self, vm: str, state: str) -> None:
        """`connected`, or what keeps the VM from being backed up, such as `inaccessible`."""
        self.control("connection", vm=vm, state=state)

    def proxy(self, vm: str) -> None:
        """Disks attached to this VM from now on appear in `hotadd_folder`."""
        self.control("proxy", vm=vm)

    # Changed block tracking

    def reset_cbt(self, vm: str) -> None:
        """Lose the tracking data: earlier changeIds are unknown from now on."""
        self.control("reset_cbt", vm=vm)

    def crash(self, vm: str) -> None:
        """Power off hard, as by a host's crash: tracking is lost."""
        self.control("crash", vm=vm)

    def lie(
        self, vm: str, offset: int, length: int, key: int = 0, *, allocated: bool = False
    ) -> None:
        """Never report changes of these bytes made before the next snapshot.

        With `allocated`, answers to the changeId `*` do not report them either.
        """
        self.control("lie", vm=vm, offset=offset, length=length, key=key, allocated=allocated)

    def area_cap(self, areas: int) -> None:
        """At most so many areas in one answer (2000 unless told)."""
        self.control("area_cap", areas=areas)

    def granularity(self, size: int, *, unaligned: bool = False) -> None:
        """Report in units of `size` bytes (64 KiB unless told), a multiple of 512.

        `unaligned` areas begin and end at any multiple of 512.
        """
        self.control("granularity", size=size, unaligned=unaligned)

    def false_positives(self, every: int) -> None:
        """Report also every n-th unchanged unit; 0 is none."""
        self.control("false_positives", every=every)

    def wrong_areas(self, kind: str, *, count: int = 1, after: int = 0) -> None:
        """Garble QueryChangedDiskAreas, after `after` right answers.

        `kind`: discontinuous (another startOffset than asked), zero (length 0), negative (length
        < 0), short (the answer ends early and the next has length 0), endless (512 bytes an
        answer; give count=-1), beyond (an area behind the disk's end), outside (an area behind the
        answer's end), overlap (areas out of order that overlap).
        """
        self.control("wrong_areas", kind=kind, count=count, after=after)

    # Faults of vCenter

    def fault(
        self,
        method: str,
        fault: str,
        *,
        vm: str = "",
        message: str = "",
        count: int = 1,
        after: int = 0,
        soap: bool = False,
        **fields: Any,
    ) -> None:
        """Let `method` fail with the fault type `fault`, its properties being `fields`.

        A task fails as a task unless `soap`; other methods always fail in the call.
        """
        rule = {"vm": vm, "message": message, "count": count, "after": after, "soap": soap}
        self.control("fault", method=method, fault=fault, fields=fields, **rule)

    def refuse_privilege(self, privilege: str, *, refused: bool = True) -> None:
        """Answer what needs `privilege` with NoPermission, or grant it again."""
        self.control("refuse_privilege", privilege=privilege, refused=refused)

    def slow_tasks(
        self, method: str, seconds: float, *, vm: str = "", count: int = FOREVER
    ) -> None:
        """Let tasks run for so long before they take effect; they can be cancelled."""
        self.control("slow_tasks", method=method, seconds=seconds, vm=vm, count=count)

    def hang_tasks(self, method: str, *, vm: str = "", count: int = FOREVER) -> None:
        """Let tasks run until they are cancelled or `release_tasks`."""
        self.control("slow_tasks", method=method, seconds=-1, vm=vm, count=count)

    def release_tasks(self) -> None:
        """Let every waiting task take effect now, and no further one wait."""
        self.control("release_tasks")

    def question(
        self, vm: str, text: str, choices: Sequence[str], *, on_task: str = "", default: int = 0
    ) -> None:
        """Let the VM ask, now or while the task `on_task` runs; choices have the keys "0", "1"."""
        fields = {"text": text, "choices": list(choices), "method": on_task, "default": default}
        self.control("question", vm=vm, **fields)

    def answers(self, vm: str) -> list[str]:
        """The keys of the choices that this VM's questions got."""
        return list(self.control("answers", vm=vm)["answers"])

    def expire_sessions(self) -> None:
        """Forget every session, as when they were idle for too long."""
        self.control("expire_sessions")

    def stun(self, vm: str, microseconds: int) -> None:
        """What `vmware.log` says for how long each snapshot operation stops the VM."""
        self.control("stun", vm=vm, microseconds=microseconds)

    def guest(
        self,
        vm: str,
        *,
        tools: bool = True,
        user: str = "backup",
        password: str = "Guest-secret-1",
    ) -> None:
        """Whether the guest's tools run, and who may run programs there."""
        self.control("guest", vm=vm, tools=tools, user=user, password=password)

    def guest_program(self, vm: str, path: str, *, exit_code: int = 0, seconds: float = 0) -> None:
        """What running `path` in the guest gives, and for how long it runs (-1: until ended)."""
        self.control("guest_program", vm=vm, path=path, exit_code=exit_code, seconds=seconds)

    # Faults of network and storage

    def drop_connections(self, count: int, method: str = "", *, after_effect: bool = False) -> None:
        """Cut connections instead of answering, before or after the call took effect."""
        mode = "lose" if after_effect else "drop"
        self.control("answer", mode=mode, method=method, count=count)

    def garbage(self, count: int, method: str = "") -> None:
        """Answer 200 with something that is no SOAP; nothing takes effect."""
        self.control("answer", mode="garbage", method=method, count=count)

    def http_status(self, status: int, count: int, method: str = "") -> None:
        """Answer with this status; nothing takes effect."""
        self.control("answer", mode="status", status=status, method=method, count=count)

    def slow_calls(self, seconds: float, count: int, method: str = "") -> None:
        """Let calls wait before they take effect."""
        self.control("answer", mode="slow", seconds=seconds, method=method, count=count)

    def read_fault(
        self, pattern: str, offset: int, *, cut: bool = False, count: int = FOREVER
    ) -> None:
        """Fail reads, by /folder and NFC, of the byte `offset` of files whose path has `pattern`.

        The answer is 500, or the connection ends there with `cut` (or if the answer began).
        """
        self.control("read_fault", path=pattern, offset=offset, cut=cut, count=count)

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
