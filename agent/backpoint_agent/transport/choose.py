"""Which transport carries a VM's disks: the first of the job's order that really reads them.

Decides what "works" means: prepared, every disk open, of the size the snapshot says, and a block of
each read. What was tried in vain is closed before the next is tried, and its reason is kept for the
point's record. Refuses to know how any of them does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from backpoint_agent.errors import TransportUnusable, VSphereError
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.settings.model import Settings, TransportName
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.contract import FrozenMachine, OpenTransport, Transport
from backpoint_agent.transport.datastore import DatastoreTransport
from backpoint_agent.transport.export import ExportTransport
from backpoint_agent.transport.hotadd import HotAddTransport
from backpoint_agent.transport.https import HttpsTransport
from backpoint_agent.transport.vddk import VddkTransport
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import SourceError
from backpoint_repo.source.contract import ImageSource

_BLOCK: Final = 4096


@dataclass(frozen=True)
class Chosen:
    """sources: of each disk by its key, open. passed_over: "vddk: why not", in the job's order."""

    transport: OpenTransport
    sources: dict[str, ImageSource]
    passed_over: tuple[str, ...]

    def close(self) -> None:
        """Close the sources, then the transport. Idempotent, raises nothing."""
        for source in self.sources.values():
            source.close()
        self.transport.close()


def transports_of(
    settings: Settings, vcenter: VCenter, ledger: Ledger, stop: Stop
) -> list[Transport]:
    """Those that the configuration makes possible on this vCenter, in no order."""
    configured = settings.transports
    transports: list[Transport] = [
        HttpsTransport(configured.https_connections, vcenter, stop),
        ExportTransport(vcenter, ledger, stop),
    ]
    if configured.vddk is not None:
        account = settings.vcenters[vcenter.name]
        transports.append(VddkTransport(configured.vddk, account, vcenter, stop))
    if configured.datastores:
        transports.append(DatastoreTransport(configured.datastores))
    if configured.hotadd is not None:
        transports.append(HotAddTransport(configured.hotadd, vcenter, ledger, stop))
    return transports


def choose_transport(
    order: Sequence[TransportName], transports: Sequence[Transport], frozen: FrozenMachine
) -> Chosen:
    """The first that works.

    Raises TransportUnusable with the reason of each where none does, Stopped.
    """
    by_name = {transport.name: transport for transport in transports}
    passed_over: list[str] = []
    for name in order:
        if name not in by_name:
            passed_over.append(f"{name}: not configured")
            continue
        try:
            return _opened(by_name[name], frozen, tuple(passed_over))
        except (SourceError, VSphereError) as error:
            passed_over.append(f"{name}: {error}")
    reasons = "; ".join(passed_over)
    raise TransportUnusable(f"no transport reads the disks of {frozen.machine.name}: {reasons}")


def _opened(transport: Transport, frozen: FrozenMachine, passed_over: tuple[str, ...]) -> Chosen:
    with ExitStack() as opened:
        ready = transport.prepare(frozen)
        opened.callback(ready.close)
        sources: dict[str, ImageSource] = {}
        for disk in frozen.disks:
            source = ready.open(disk)
            opened.callback(source.close)
            _probe(source, disk, reads_ranges=ready.reads_ranges)
            sources[disk.key] = source
        opened.pop_all()
        return Chosen(ready, sources, passed_over)


def _probe(source: ImageSource, disk: VirtualDisk, *, reads_ranges: bool) -> None:
    """A stream's bytes come once, so there the size is all that can be asked."""
    if source.size != disk.size:
        raise TransportUnusable(
            f"{source.name} has {source.size} bytes, and {disk.label} has {disk.size}"
        )
    if reads_ranges and disk.size:
        source.read_into(0, memoryview(bytearray(min(_BLOCK, disk.size))))
