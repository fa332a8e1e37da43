"""The sweep of a vCenter's inventory: all VMs with their places, tags and attributes, in a number
of exchanges that does not go with the VMs."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pyVim.task
from pyVmomi import vim

from backpoint_agent.errors import CannotConnect, VSphereError
from backpoint_agent.machine import Machine
from backpoint_agent.selection import select
from backpoint_agent.settings.model import Job, SecretSettings, Selection
from backpoint_agent.vsphere.inventory import Inventory, read_inventory
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.vcenter import VCenter
from paging_proxy import PagingProxy
from rogue_server import rogue_server
from vcenter_login import logged_in, vcenter_settings
from vcsim import Simulator, running_simulator

wait_for_task: Any = pyVim.task.WaitForTask
VMS = 200
FOLDERS = ("web", "db", "a%2fb")


class Tagging:
    """The administrator's side of the tagging service."""

    def __init__(self, simulator: Simulator) -> None:
        self._url = f"{simulator.url}/rest/com/vmware/cis"
        self._context = ssl.create_default_context(cafile=str(simulator.ca_file))
        pair = f"{simulator.user}:{simulator.password}".encode()
        self._headers = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        session = self._post("/session", {})
        self._headers = {"vmware-api-session-id": session}

    def category(self, name: str) -> str:
        spec = {"name": name, "description": "", "cardinality": "MULTIPLE", "associable_types": []}
        return str(self._post("/tagging/category", {"create_spec": spec}))

    def tag(self, category: str, name: str, *morefs: str, kind: str = "VirtualMachine") -> str:
        spec = {"name": name, "description": "", "category_id": category}
        tag = str(self._post("/tagging/tag", {"create_spec": spec}))
        for moref in morefs:
            path = f"/tagging/tag-association/id:{tag}?~action=attach"
            self._post(path, {"object_id": {"id": moref, "type": kind}})
        return tag

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode(), self._headers, method="POST"
        )
        with urllib.request.urlopen(request, context=self._context, timeout=20) as answer:
            data = answer.read()
        return json.loads(data).get("value") if data else None


@dataclass(frozen=True)
class Many:
    """A vCenter of 200 VMs. folder: for a client's files."""

    simulator: Simulator
    vcenter: VCenter
    folder: Path

    def sweep(self, tags: bool = True) -> Inventory:
        login = vcenter_settings(self.simulator, self.folder) if tags else None
        return read_inventory(self.vcenter, login)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    """200 VMs over 4 hosts, 3 datastores and 3 folders: by moref modulo 4, the rest in none."""
    folder = tmp_path_factory.mktemp("many")
    with (
        running_simulator(folder / "vcsim", vms=VMS, hosts=4, datastores=3) as simulator,
        logged_in(simulator, folder) as vcenter,
    ):
        _arrange(simulator, vcenter)
        yield Many(simulator, vcenter, folder)


def _arrange(simulator: Simulator, vcenter: VCenter) -> None:
    root = vcenter.object("VirtualMachine", simulator.vms()[0]).parent
    production = root.CreateFolder("production")
    folders = [production.CreateFolder(name) for name in FOLDERS]
    for at, target in enumerate(folders):
        morefs = [moref for moref in simulator.vms() if _group(moref) == at]
        vms = [vcenter.object("VirtualMachine", moref) for moref in morefs]
        wait_for_task(target.MoveIntoFolder_Task(vms))


def _group(moref: str) -> int:
    return int(moref.removeprefix("vm-")) % 4


def _where(machine: Machine) -> str:
    group = _group(machine.moref)
    return "DC0/vm" if group == 3 else f"DC0/vm/production/{FOLDERS[group]}"


def test_200_vms_are_read_with_their_places(many: Many) -> None:
    """Each with its folder, host, cluster, pool, datastore and disk."""
    inventory = many.sweep()
    assert inventory.no_tags is None
    assert {machine.moref for machine in inventory.machines} == set(many.simulator.vms())
    assert len(inventory.machines) == VMS
    for machine in inventory.machines:
        assert machine.folder == _where(machine)
        assert machine.datacenter == "DC0"
        assert machine.cluster == "DC0/host/DC0_C0"
        assert machine.pool == "DC0/host/DC0_C0/Resources"
        assert machine.datastores == (machine.disks[0].datastore,)
        assert machine.hindrances == ()
    assert len({machine.host for machine in inventory.machines}) == 4
    assert len({machine.identity for machine in inventory.machines}) == VMS
    sample = inventory.machines[::40]
    assert [read_machine(many.vcenter, machine.moref).folder for machine in sample] == [
        machine.folder for machine in sample
    ]


def test_paths_find_what_they_name(many: Many) -> None:
    """vCenter's own search index takes them as they are, escapes included."""
    index = many.vcenter.content.searchIndex
    machine = next(m for m in many.sweep().machines if m.folder.endswith("a%2fb"))
    assert index.FindByInventoryPath(machine.folder).name == "a%2fb"
    for path in (machine.pool, machine.cluster, machine.datacenter):
        assert index.FindByInventoryPath(path) is not None


def test_exchanges_do_not_grow_with_vms(many: Many, simulator: Simulator, tmp_path: Path) -> None:
    """200 VMs cost as many requests as 2, tags included."""
    counts = []
    with logged_in(simulator, tmp_path) as few:
        small = Many(simulator, few, tmp_path)
        for place in (small, many):
            place.simulator.forget_calls()
            place.sweep()
            counts.append(Counter(call.method for call in place.simulator.calls()))
    assert counts[0] == counts[1]
    assert counts[1].total() < 20


def test_tags_are_read_by_tag_not_by_vm(many: Many) -> None:
    """Only tags that are on VMs are looked at; those on other things, or on nothing, are not."""
    tagging = Tagging(many.simulator)
    tier, owner = tagging.category("Tier"), tagging.category("Owner")
    vms = many.simulator.vms()
    tagging.tag(tier, "gold", *vms[:3])
    tagging.tag(owner, "a/b", vms[0])
    tagging.tag(owner, "nobody")
    tagging.tag(owner, "host", "host-1", kind="HostSystem")
    many.simulator.forget_calls()
    machines = {machine.moref: machine for machine in many.sweep().machines}
    assert machines[vms[0]].tags == ("Owner/a/b", "Tier/gold")
    assert machines[vms[2]].tags == ("Tier/gold",)
    assert sum(bool(machine.tags) for machine in machines.values()) == 3
    job = Job(name="j", select=Selection(tags=("gold",)))
    assert {m.moref for m in select(machines.values(), job).chosen} == set(vms[:3])


def test_tags_of_newer_vcenters_are_read_at_their_address(many: Many, tmp_path: Path) -> None:
    """`/api` answers without a wrapping, and is asked first."""
    tagging = Tagging(many.simulator)
    vm = many.simulator.vms()[-1]
    tagging.tag(tagging.category("Newer"), "x", vm)
    with rogue_server(tmp_path / "proxy", PagingProxy(many.simulator)) as proxy:
        trust: dict[str, Any] = {"address": proxy.address, "ca_file": proxy.certificate.file}
        login = vcenter_settings(many.simulator, tmp_path, **trust)
        with logged_in(many.simulator, tmp_path, **trust) as vcenter:
            inventory = read_inventory(vcenter, login)
    assert inventory.no_tags is None
    assert next(m for m in inventory.machines if m.moref == vm).tags == ("Newer/x",)
    asked = [request.split(b" ")[1] for request in proxy.requests]
    assert b"/api/session" in asked
    assert not any(path.startswith(b"/rest") for path in asked)


def test_a_failing_tagging_service_is_told_and_no_more(many: Many, tmp_path: Path) -> None:
    """The VMs are there; a job that goes by tags is refused with the service's own failure."""
    missing = SecretSettings(file=tmp_path / "none")
    login = vcenter_settings(many.simulator, tmp_path, password=missing)
    inventory = read_inventory(many.vcenter, login)
    assert len(inventory.machines) == VMS
    assert inventory.no_tags is not None
    assert str(tmp_path / "none") in inventory.no_tags
    with pytest.raises(VSphereError, match="selects by tags"):
        select(inventory.machines, Job(name="j", select=Selection(tags=("x",))))
    assert select(inventory.machines, Job(name="j", select=Selection(everything=True))).chosen


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_tagging_service_that_is_not_there_is_told(
    simulator: Simulator, tmp_path: Path, status: int
) -> None:
    """Whatever it answers with, the sweep goes on."""
    with logged_in(simulator, tmp_path) as vcenter:
        simulator.http_status(status, -1, "POST /rest")
        inventory = read_inventory(vcenter, vcenter_settings(simulator, tmp_path))
    assert len(inventory.machines) == 2
    assert str(status) in str(inventory.no_tags)
    assert {machine.no_tags for machine in inventory.machines} == {inventory.no_tags}


def test_custom_attributes_are_read_by_name(simulator: Simulator, tmp_path: Path) -> None:
    """Of the VMs that have a value."""
    with logged_in(simulator, tmp_path) as vcenter:
        fields = vcenter.content.customFieldsManager
        key = fields.AddFieldDefinition("Backup", vim.VirtualMachine).key
        vm, other = simulator.vms()
        fields.SetField(vcenter.object("VirtualMachine", vm), key, "daily")
        machines = {machine.moref: machine for machine in read_inventory(vcenter).machines}
        assert machines[vm].attributes == {"Backup": "daily"}
        assert machines[other].attributes == {}
        assert read_machine(vcenter, vm).attributes == {"Backup": "daily"}


def test_vms_in_a_vapp_have_its_pool(simulator: Simulator, tmp_path: Path) -> None:
    """The vApp is one; the simulator gives such VMs a folder besides, which vCenter does not."""
    with logged_in(simulator, tmp_path) as vcenter:
        vm = vcenter.object("VirtualMachine", simulator.vms()[0])
        pool, folder = vm.resourcePool, vm.parent
        spec = vim.ResourceConfigSpec(
            cpuAllocation=pool.config.cpuAllocation, memoryAllocation=pool.config.memoryAllocation
        )
        vapp = pool.CreateVApp("shop", spec, vim.vApp.VAppConfigSpec(), folder)
        config = vim.vm.ConfigSpec(
            name="inside",
            guestId="otherGuest",
            numCPUs=1,
            memoryMB=32,
            files=vim.vm.FileInfo(vmPathName="[LocalDS_0]"),
        )
        wait_for_task(vapp.CreateChildVM_Task(config, None))
        swept = next(m for m in read_inventory(vcenter).machines if m.name == "inside")
        assert swept.pool == "DC0/host/DC0_C0/Resources/shop"
        assert swept.folder == "DC0/vm"
        assert read_machine(vcenter, swept.moref).pool == swept.pool


def test_pages_are_put_together(simulator: Simulator, tmp_path: Path) -> None:
    """Each VM once, whatever the pages; a session that ends in between costs a new beginning."""
    proxy = PagingProxy(simulator)
    with rogue_server(tmp_path / "proxy", proxy) as server:
        trust: dict[str, Any] = {"address": server.address, "ca_file": server.certificate.file}
        with logged_in(simulator, tmp_path, **trust) as vcenter:
            whole = read_inventory(vcenter)
            proxy.pages.clear()
            assert read_inventory(vcenter, page=1) == whole
            assert proxy.pages[-2:] == [1, 1]
            proxy.forget = 1
            proxy.pages.clear()
            assert read_inventory(vcenter, page=1) == whole
            assert proxy.pages[-2:] == [1, 1]
            assert proxy.pages.count(1) > 3


def test_a_session_that_ended_is_renewed(simulator: Simulator, tmp_path: Path) -> None:
    """A sweep after a quiet night."""
    with logged_in(simulator, tmp_path) as vcenter:
        simulator.expire_sessions()
        assert len(read_inventory(vcenter).machines) == 2


def test_a_vcenter_that_is_down_is_an_error(simulator: Simulator, tmp_path: Path) -> None:
    """No VMs is another thing than no answer."""
    with logged_in(simulator, tmp_path, request_limit_s=1) as vcenter:
        simulator.stop()
        with pytest.raises(CannotConnect, match="reading the inventory"):
            read_inventory(vcenter)
