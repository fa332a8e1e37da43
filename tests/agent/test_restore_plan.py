"""What a restored VM will be, and where: pure plans; where one would have to guess, an error."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyVmomi import vim

from backpoint_agent.errors import TaskFailed
from backpoint_agent.restoring.advanced_settings import keep_settings
from backpoint_agent.restoring.description import (
    Controller,
    DescribedDisk,
    MachineDescription,
    NetworkCard,
    Slot,
    decode_description,
    encode_description,
)
from backpoint_agent.restoring.destination import (
    Destination,
    Origin,
    PlaceChoices,
    plan_destination,
)
from backpoint_agent.restoring.hardware import describe_hardware
from backpoint_agent.restoring.machine_plan import (
    MachineChoices,
    MachinePlan,
    Network,
    NetworkRule,
    plan_machine,
)
from backpoint_agent.restoring.machine_spec import machine_spec
from backpoint_agent.restoring.places import Datastore, Host, Place, Pool, PossiblePlaces
from backpoint_repo.errors import ObjectDamaged, UnknownFormat, UsageError

GIB = 1 << 30
DESCRIPTION = MachineDescription(
    name="web",
    uuid="4211-origin",
    cpus=2,
    memory_mb=2048,
    controllers=(Controller(key=1000, kind="ParaVirtualSCSIController", bus=0),),
    disks=(
        DescribedDisk(
            key=2000, place="scsi0:0", label="Hard disk 1", size=GIB, file="[fast] web/web.vmdk",
            slot=Slot(controller=1000, unit=0),
        ),
        DescribedDisk(
            key=2001, place="scsi0:1", label="Hard disk 2", size=GIB, file="[slow] web/data.vmdk",
            slot=Slot(controller=1000, unit=1),
        ),
    ),
    cards=(
        NetworkCard(key=4000, kind="VirtualVmxnet3", label="Network adapter 1",
                    network="VM Network", mac="00:50:56:01:02:03", mac_type="manual"),
        NetworkCard(key=4001, kind="VirtualVmxnet3", label="Network adapter 2",
                    portgroup="dvportgroup-1", switch="50 2a", mac="00:50:56:81:02:03"),
    ),
    left_out=("VirtualTPM (Virtual TPM)",),
)  # fmt: skip
SIZES = {"disk-2000": GIB, "disk-2001": GIB}
NETWORKS = (
    Network("VM Network", "network-1"),
    Network("Lab", "network-2"),
    Network("Production", "dvportgroup-1", portgroup="dvportgroup-1", switch="50 2a"),
)
COPY = MachineChoices("web-copy", origin_exists=True)
LOST = MachineChoices("web", origin_exists=False)


def plan(choices: MachineChoices, networks: tuple[Network, ...] = NETWORKS) -> MachinePlan:
    return plan_machine(DESCRIPTION, SIZES, networks, choices)


def cards(made: MachinePlan) -> list[tuple[str, bool, str]]:
    return [(card.network.name, card.connected, card.mac) for card in made.cards]


def test_a_copy_disturbs_nobody() -> None:
    """New addresses, nothing connected; the user hears of the fixed address and of what is lost."""
    made = plan(COPY)
    assert cards(made) == [("VM Network", False, ""), ("Production", False, "")]
    assert made.uuid == ""
    assert "Network adapter 1 had the fixed address 00:50:56:01:02:03; it gets a new one" in (
        made.notes
    )
    assert "not restored: VirtualTPM (Virtual TPM)" in made.notes


def test_a_lost_vm_is_what_it_was() -> None:
    """Its networks and its addresses."""
    made = plan(replace(LOST, keep_uuid=True))
    assert cards(made) == [
        ("VM Network", True, "00:50:56:01:02:03"),
        ("Production", True, "00:50:56:81:02:03"),
    ]
    assert made.uuid == "4211-origin"


@pytest.mark.parametrize("old", ["dvportgroup-1", "Production"])
def test_a_mapped_card_is_connected_and_the_others_follow_the_rule(old: str) -> None:
    """A portgroup is known by its key and by its present name."""
    made = plan(replace(COPY, networks=NetworkRule({old: "Lab"})))
    assert cards(made) == [("VM Network", False, ""), ("Lab", True, "")]
    made = plan(replace(COPY, networks=NetworkRule({old: "Lab"}, "keep")))
    assert cards(made) == [("VM Network", True, ""), ("Lab", True, "")]


def test_a_network_that_is_gone_is_asked_for() -> None:
    """The error says how to answer; disconnected, the card is put anywhere."""
    with pytest.raises(UsageError, match="say --network VM Network=NEW or --network disconnected"):
        plan(LOST, NETWORKS[1:])
    made = plan(replace(LOST, networks=NetworkRule(rest="disconnected")), NETWORKS[1:])
    assert cards(made)[0] == ("Lab", False, "00:50:56:01:02:03")


def test_two_networks_of_one_name_need_an_id() -> None:
    """Which is meant cannot be told from the name."""
    twice = (*NETWORKS, Network("Lab", "network-9"))
    rule = NetworkRule({"VM Network": "Lab"})
    with pytest.raises(UsageError, match="name one by its id: network-2, network-9"):
        plan(replace(COPY, networks=rule), twice)
    by_id = NetworkRule({"VM Network": "network-9"})
    made = plan(replace(COPY, networks=by_id), twice)
    assert made.cards[0].network.moref == "network-9"


def test_disks_that_stay_out_are_named() -> None:
    """Those not asked for, and those that the point does not have."""
    made = plan(replace(COPY, disks=["disk-2001"]))
    assert [disk.key for disk in made.disks] == ["disk-2001"]
    assert "the disk scsi0:0 was not asked for: the VM comes without it" in made.notes
    made = plan_machine(DESCRIPTION, {"disk-2000": GIB}, NETWORKS, COPY)
    assert "the disk scsi0:1 is not in the point: the VM comes without it" in made.notes


# Where


DC = "Europe/DC0"
PLACES = PossiblePlaces(
    folders=(
        Place("group-v1", "vm", f"{DC}/vm", DC),
        Place("group-v2", "web", f"{DC}/vm/web", DC),
    ),
    hosts=(
        Host("host-1", "esx1", f"{DC}/host/C1/esx1", DC, "domain-c1",
             frozenset({"ds-1", "ds-2"}), frozenset({"network-1"}), True),
        Host("host-2", "esx2", f"{DC}/host/C1/esx2", DC, "domain-c1",
             frozenset({"ds-1", "ds-2"}), frozenset({"network-1"}), True),
        Host("host-3", "esx3", f"{DC}/host/esx3/esx3", DC, "domain-s3",
             frozenset({"ds-3"}), frozenset(), True),
    ),
    pools=(
        Pool("resgroup-1", "Resources", f"{DC}/host/C1/Resources", DC, "domain-c1", True),
        Pool("resgroup-2", "gold", f"{DC}/host/C1/Resources/gold", DC, "domain-c1", False),
        Pool("resgroup-3", "Resources", f"{DC}/host/esx3/Resources", DC, "domain-s3", True),
    ),
    datastores=(
        Datastore("ds-1", "fast", f"{DC}/datastore/fast", DC, 10 * GIB, True),
        Datastore("ds-2", "slow", f"{DC}/datastore/slow", DC, 10 * GIB, True),
        Datastore("ds-3", "local", f"{DC}/datastore/local", DC, 10 * GIB, True),
    ),
    networks={"network-1": NETWORKS[0]},
)  # fmt: skip
ORIGIN = Origin(
    f"{DC}/vm/web", f"{DC}/host/C1/Resources/gold", "esx2",
    {"": "[fast] web/web.vmx", "disk-2000": "[fast] web/web.vmdk",
     "disk-2001": "[slow] web/data.vmdk"},
)  # fmt: skip
NOTHING = PlaceChoices()


def where(choices: PlaceChoices = NOTHING, **changes: Any) -> Destination:
    places = replace(PLACES, **changes)
    return plan_destination(places, ORIGIN, choices, SIZES)


def test_without_a_word_it_goes_where_it_was() -> None:
    """Folder, pool, host, and each disk on its own datastore."""
    made = where()
    assert (made.folder.moref, made.pool.moref, made.host.moref) == (
        "group-v2", "resgroup-2", "host-2",
    )  # fmt: skip
    assert made.datastores == {"": "fast", "disk-2000": "fast", "disk-2001": "slow"}
    assert made.networks == (NETWORKS[0],)
    assert made.datacenter == DC


def test_another_host_takes_its_own_pool() -> None:
    """A stand-alone host's, with a datastore that it reaches."""
    made = where(PlaceChoices(host="esx3", datastore="local"))
    assert (made.pool.moref, made.host.moref) == ("resgroup-3", "host-3")
    assert set(made.datastores.values()) == {"local"}


def test_a_host_in_maintenance_is_passed_over_or_refused() -> None:
    """Over where the agent chooses, refused where the user does."""
    hosts = (PLACES.hosts[0], replace(PLACES.hosts[1], usable=False), PLACES.hosts[2])
    assert where(hosts=hosts).host.moref == "host-1"
    with pytest.raises(UsageError, match="esx2 is not connected, or in maintenance"):
        where(PlaceChoices(host="esx2"), hosts=hosts)


@pytest.mark.parametrize(
    ("choices", "changes", "said"),
    [
        (PlaceChoices(folder="none"), {}, "there is no folder 'none'; there are: "),
        (PlaceChoices(pool="Resources"), {}, "'Resources' may be any of: "),
        (PlaceChoices(host="esx3"), {}, "the host esx3 does not reach the datastore fast"),
        (PlaceChoices(pool="gold", host="esx3", datastore="local"), {}, "not one of those of the"),
        (PlaceChoices(pool="gold", datastore="local"), {}, "no host of the pool"),
        (NOTHING, {"folders": PLACES.folders[:1]}, f"the folder '{DC}/vm/web' of the original VM"),
        (NOTHING, {"datastores": PLACES.datastores[:1]}, "the datastore 'slow' of the original"),
        (
            NOTHING,
            {"datastores": (replace(PLACES.datastores[0], free=GIB // 2), *PLACES.datastores[1:])},
            "the datastore fast has 512.0 MiB free and the disks need 1.0 GiB",
        ),
    ],
)
def test_what_is_missing_is_said(choices: PlaceChoices, changes: dict[str, Any], said: str) -> None:
    """With what there is, and the option that says it."""
    with pytest.raises(UsageError) as caught:
        where(choices, **changes)
    assert said in str(caught.value)


# machine.json


def test_a_description_comes_back() -> None:
    """Written and read, it is the same."""
    data = encode_description(DESCRIPTION.model_dump(mode="json"))
    assert decode_description(data, "machine.json") == DESCRIPTION


def test_a_newer_description_is_refused() -> None:
    """Its meaning is not guessed; keys that are not known are."""
    record = DESCRIPTION.model_dump(mode="json")
    with pytest.raises(UnknownFormat, match="newer version"):
        decode_description(json.dumps({**record, "version": 2}).encode(), "machine.json")
    more = decode_description(json.dumps({**record, "colour": "red"}).encode(), "machine.json")
    assert more == DESCRIPTION


RECORD: dict[str, Any] = {
    **DESCRIPTION.model_dump(mode="json"),
    "flags": {"vbsEnabled": True, "nestedHVEnabled": False, "swapPlacement": "inherit"},
    "boot": {"firmware": "efi", "secure": True, "order": [{"kind": "disk", "key": 2000}]},
    "drives": [{"key": 16000, "kind": "VirtualCdrom", "slot": {"controller": 1000, "unit": 5}}],
    "video": {"memory_kb": 4096},
    "cpu_share": {"reservation": 0, "limit": -1, "level": "normal", "shares": 1000},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all that stands in a JSON value."""
    if path:
        yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, below in value.items():
            yield from places_in(below, (*path, key))


@settings(max_examples=200)
@given(st.sampled_from(list(places_in(RECORD))), JSON)
def test_a_forged_description_is_damage_or_a_vm(path: tuple[Any, ...], value: Any) -> None:
    """Whatever stands in a place, it ends in our error or in a spec that VMware's types take."""
    record = copy.deepcopy(RECORD)
    at = record
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with contextlib.suppress(ObjectDamaged, UnknownFormat, UsageError):
        description = decode_description(json.dumps(record).encode(), "machine.json")
        made = plan_machine(description, SIZES, NETWORKS, COPY)
        machine_spec(made, "instance", {"": "fast", "disk-2000": "fast", "disk-2001": "fast"})


@given(st.binary())
def test_bytes_that_are_no_description_are_damage(data: bytes) -> None:
    """No exception but ours."""
    with pytest.raises((ObjectDamaged, UnknownFormat)):
        decode_description(data, "machine.json")


def test_a_device_of_an_unknown_kind_is_damage() -> None:
    """No class of pyvmomi is reached by a name out of a file."""
    odd = DESCRIPTION.model_copy(
        update={"controllers": (Controller(key=1000, kind="VirtualDisk", bus=0),)}
    )
    made = plan_machine(odd, SIZES, NETWORKS, COPY)
    with pytest.raises(ObjectDamaged, match="unknown kind, 'VirtualDisk'"):
        machine_spec(made, "instance", {"": "fast", "disk-2000": "fast", "disk-2001": "fast"})


@pytest.mark.parametrize(
    "config",
    [
        None,
        vim.vm.ConfigInfo(name="web"),
        vim.vm.ConfigInfo(name="web", hardware=vim.vm.VirtualHardware(numCPU=0, memoryMB=-1)),
    ],
)
def test_an_answer_that_describes_no_vm_is_said_so(config: Any) -> None:
    """As of a VM whose host is gone; the backup goes on without the description."""
    with pytest.raises(TaskFailed, match="makes no sense"):
        describe_hardware(config)


def test_settings_of_one_instance_stay_behind() -> None:
    """Ids, files, moments, passwords of consoles; what nobody knows is kept."""
    kept, dropped = keep_settings(
        [
            ("disk.EnableUUID", "TRUE"),
            ("svga.vramSize", "8388608"),
            ("guestinfo.metadata", "mine"),
            ("isolation.tools.copy.disable", "TRUE"),
            ("nvram", "web.nvram"),
            ("scsi0:0.ctkEnabled", "TRUE"),
            ("ethernet0.generatedAddressOffset", "0"),
            ("sched.swap.derivedName", "/vmfs/volumes/x/web.vswp"),
            ("RemoteDisplay.vnc.password", "secret"),
            ("guestinfo.vmtools.versionNumber", "12345"),
            ("backpoint.restore", "20261121T170312Z-1-1"),
            ("huge", "x" * (1 << 17)),
        ]
    )
    assert sorted(kept) == [
        "disk.EnableUUID", "guestinfo.metadata", "isolation.tools.copy.disable", "svga.vramSize",
    ]  # fmt: skip
    assert dropped == 1
