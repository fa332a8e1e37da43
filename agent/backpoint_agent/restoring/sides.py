"""Which ways a restore tries to write disks, and in which order.

Decides by the configuration and by what each way can do; whether one reaches the disks is found out
when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.machine import Machine
from backpoint_agent.restoring.datastore_side import DatastoreSide
from backpoint_agent.restoring.https_side import HttpsSide
from backpoint_agent.restoring.vddk_side import VddkSide
from backpoint_agent.restoring.write_side import WriteSide
from backpoint_agent.settings.model import Settings
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import UsageError

Way = Literal["vddk", "datastore", "https", "import"]


def plan_ways(
    settings: Settings, wanted: Way | None, datastores: Iterable[str], *, new: bool
) -> list[Way]:
    """In the order to try. datastores: names of those that the disks are on.

    Raises UsageError where the way that the user wants is not configured, or makes new VMs only.
    """
    configured = settings.transports
    missing = sorted(set(datastores) - set(configured.datastores))
    able: dict[Way, str | None] = {
        "vddk": None if configured.vddk else "transports.vddk is not in the configuration",
        "datastore": f"transports.datastores has no folder for {', '.join(missing)}"
        if missing
        else None,
        "https": None,
        "import": None if new else "import makes new VMs only",
    }
    if wanted is not None:
        if reason := able[wanted]:
            raise UsageError(f"the disks cannot be written by {wanted}: {reason}")
        return [wanted]
    # Import before https: it sends no zeros and is at home on every kind of datastore.
    order: tuple[Way, ...] = ("vddk", "datastore", "import", "https")
    return [way for way in order if able[way] is None]


def open_side(
    way: Way, settings: Settings, vcenter: VCenter, machine: Machine, stop: Stop
) -> WriteSide:
    """Raises TransportUnusable, KeyFault."""
    configured = settings.transports
    if way == "datastore":
        return DatastoreSide(configured.datastores)
    if way == "vddk" and configured.vddk is not None:
        account = settings.vcenters[vcenter.name]
        return VddkSide(configured.vddk, account, vcenter, machine, stop)
    if way == "https":
        return HttpsSide(configured.https_connections, vcenter, machine, stop)
    raise TransportUnusable(f"{way} does not write the disks of a VM that exists")
