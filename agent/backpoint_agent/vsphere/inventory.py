"""All VMs of a vCenter in one sweep: how many exchanges it takes does not depend on how many VMs
there are, but for one more every hundred.

Decides in which order what is asked, and that tags may fail by themselves. What a VM's properties
become is in `machine_reading.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backpoint_agent.errors import VSphereError
from backpoint_agent.machine import Machine
from backpoint_agent.settings.model import VCenterSettings
from backpoint_agent.vsphere.machine_reading import (
    ATTRIBUTES,
    MACHINE,
    Surroundings,
    attribute_names,
    attributes_start,
    machine_of,
)
from backpoint_agent.vsphere.places import WANTED as PLACES
from backpoint_agent.vsphere.places import Places
from backpoint_agent.vsphere.property_sweep import PAGE, sweep_below, sweep_from
from backpoint_agent.vsphere.tags import Tags, read_tags
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import KeyFault

NO_LOGIN = "they were not asked for"


@dataclass(frozen=True)
class Inventory:
    """vcenter: as the configuration calls it. machines: in the order vCenter gave them. no_tags:
    why their tags are unknown, None where they are known."""

    vcenter: str
    machines: tuple[Machine, ...]
    no_tags: str | None


def read_inventory(
    vcenter: VCenter, login: VCenterSettings | None = None, *, page: int = PAGE
) -> Inventory:
    """login: for the tagging service, without it no tags are read. page: VMs in an answer.

    That the tagging service fails is no failure of this: the machines say so. A VM that cannot be
    backed up is among the machines, and says why. Raises as `VCenter.call`.
    """
    tags, no_tags = _tags(vcenter, login)
    # One exchange for all: a session that is lost on the way takes view and pages with it.
    machines = vcenter.call(
        "reading the inventory", lambda: tuple(_sweep(vcenter, tags, no_tags, page))
    )
    return Inventory(vcenter.name, machines, no_tags)


def _tags(vcenter: VCenter, login: VCenterSettings | None) -> tuple[Tags, str | None]:
    if login is None:
        return {}, NO_LOGIN
    try:
        return read_tags(vcenter, login), None
    except (VSphereError, KeyFault) as error:
        return {}, str(error)


def _sweep(vcenter: VCenter, tags: Tags, no_tags: str | None, page: int) -> Iterator[Machine]:
    content = vcenter.content
    places = Places(sweep_below(content, PLACES))
    around = Surroundings(vcenter.uuid, places, _attributes(content))
    for swept in sweep_below(content, {"VirtualMachine": MACHINE}, page):
        yield machine_of(swept, around, tags.get(swept.moref, ()), no_tags)


def _attributes(content: Any) -> dict[int, str]:
    start = attributes_start(content)
    return attribute_names(list(sweep_from(content, start, ATTRIBUTES))) if start else {}
