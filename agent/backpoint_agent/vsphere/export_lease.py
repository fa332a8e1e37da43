"""An HttpNfcLease on a snapshot: asked for, kept alive while its disks are sent, given back.

Decides how long vCenter may take to prepare it and how often it is told that we are still there.
While it is held, vCenter refuses to power on or move the VM, so it is given back as soon as the
last disk was read. Knows no VMDK, and not what the addresses in it are used for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from backpoint_agent.errors import (
    Busy,
    ObjectGone,
    PermissionMissing,
    Stopped,
    TaskFailed,
    TransportUnusable,
    VSphereError,
    WaitTooLong,
)
from backpoint_agent.ledger import Effect, Ledger
from backpoint_agent.machine import Machine
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.faults import one_line
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import BackpointError

READY_LIMIT_S: Final = 300.0
_LOOK_S: Final = 0.5
_SHORTEST_TIMEOUT_S: Final = 6
_LONGEST_TIMEOUT_S: Final = 300
"""What vCenter uses; hosts have been seen to say 300,000,000."""
_DEVICES_MAX: Final = 1024
_TEXT_MAX: Final = 2048


@dataclass(frozen=True)
class LeasedDevice:
    """One file of the lease. key: "/vm-70/ParaVirtualSCSIController0:1", the disk's place; target:
    "disk-0.vmdk"; thumbprint: of the certificate of the address's host, None for the vCenter."""

    key: str
    target: str
    url: str
    thumbprint: str | None
    is_disk: bool


class ExportLease:
    """One lease, from asking to giving back. Thread-safe once made."""

    def __init__(
        self,
        vcenter: VCenter,
        ledger: Ledger,
        machine: Machine,
        snapshot: str,
        stop: Stop,
        *,
        limit_s: float = READY_LIMIT_S,
    ) -> None:
        """Ask, and wait until it is ready; then it is kept alive by a thread.

        snapshot: moref. Raises TransportUnusable where vCenter does not give it, VSphereError,
        Stopped; then nothing is left of it but what the ledger knows.
        """
        self._vcenter = vcenter
        self._ledger = ledger
        self._name = machine.name
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.warnings: list[str] = []
        """What went wrong with giving it back, and what it means."""
        self.trouble: str | None = None
        """Why it may have been lost, once telling vCenter that we are there failed."""
        self._effect: Effect = ledger.intend(
            "export-lease", vcenter.uuid, machine.moref, machine.name, {}
        )
        self._lease = self._ask(snapshot)
        try:
            self._effect = ledger.learned(self._effect, {"moref": str(self._lease._moId)})
            info = self._wait_until_ready(stop, limit_s)
            self.devices = _devices(info)
        except BaseException:
            self.abort()
            raise
        every_s = plan_keep_alive(int(info.leaseTimeout or 0))
        threading.Thread(
            target=self._keep_alive, args=(every_s,), name="export-lease", daemon=True
        ).start()

    def complete(self) -> None:
        """Everything was read. Raises nothing; harmless when it has ended."""
        self._end("completing", lambda: self._lease.HttpNfcLeaseComplete(), "completed")

    def abort(self) -> None:
        """Not everything was read. Raises nothing; harmless when it has ended."""
        self._end("aborting", lambda: self._lease.HttpNfcLeaseAbort(), "aborted")

    def _ask(self, snapshot: str) -> Any:
        asked = self._vcenter.object("VirtualMachineSnapshot", snapshot)
        try:
            return self._vcenter.call(
                f"asking for an export lease of {self._name}", asked.ExportSnapshot, repeat=False
            )
        except (TaskFailed, PermissionMissing, Busy, ObjectGone) as error:
            # A fault is an answer: there is no lease.
            self._ledger.undone(self._effect, "was refused")
            raise TransportUnusable(str(error)) from error

    def _wait_until_ready(self, stop: Stop, limit_s: float) -> Any:
        what = f"the export lease of {self._name}"
        give_up_at = time.monotonic() + limit_s
        while True:
            state = str(self._vcenter.call(f"waiting for {what}", lambda: self._lease.state))
            if state == "ready":
                return self._vcenter.call(f"reading {what}", lambda: self._lease.info)
            if state != "initializing":
                raise TransportUnusable(f"{self._vcenter.name}: {what} failed: {self._error()}")
            if time.monotonic() > give_up_at:
                raise WaitTooLong(
                    f"{self._vcenter.name}: {what} was not ready within {limit_s:g} s"
                )
            stop.wait(_LOOK_S)

    def _error(self) -> str:
        try:
            fault = self._vcenter.call("reading the lease's error", lambda: self._lease.error)
        except VSphereError as error:
            return f"vCenter does not say why ({error})"
        words = getattr(fault, "msg", None) or getattr(fault, "localizedMessage", None)
        return one_line(str(words or "vCenter does not say why"))

    def _keep_alive(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            try:
                # The share is shown in vCenter only; how much is left, nobody knows.
                self._vcenter.call(
                    f"keeping the export lease of {self._name}",
                    lambda: self._lease.HttpNfcLeaseProgress(percent=50),
                )
            except (VSphereError, Stopped) as error:
                # Not given up: if it was the connection only, the next one may be in time.
                self.trouble = str(error)
            else:
                self.trouble = None

    def _end(self, doing: str, ask: Callable[[], Any], done: str) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self._ended.set()
        try:
            try:
                self._vcenter.call(f"{doing} the export lease of {self._name}", ask, repeat=False)
            except ObjectGone:
                done = "was not there"
            self._ledger.undone(self._effect, done)
        except BackpointError as error:
            self.warnings.append(
                f"{error}; while the lease lasts, {self._name} can be neither powered on nor moved"
            )


def plan_keep_alive(timeout_s: int) -> float:
    """Seconds between two signs of life, of which two may be lost; timeout_s: as the lease says."""
    return min(max(timeout_s, _SHORTEST_TIMEOUT_S), _LONGEST_TIMEOUT_S) / 3


def _devices(info: Any) -> tuple[LeasedDevice, ...]:
    devices = list(info.deviceUrl or ())
    if len(devices) > _DEVICES_MAX:
        raise TransportUnusable(f"the export lease has {len(devices)} files")
    return tuple(
        LeasedDevice(
            key=_text(device.key),
            target=_text(device.targetId),
            url=_text(device.url),
            thumbprint=_text(device.sslThumbprint) or None,
            is_disk=bool(device.disk),
        )
        for device in devices
    )


def _text(value: Any) -> str:
    return str(value or "")[:_TEXT_MAX]
