"""What may be undone of VMs that run from the backup, and which export hosts can use: never more
than is proved."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.effect import Effect, left_over
from backpoint_agent.errors import TaskFailed
from backpoint_agent.live.boot_plan import session_name
from backpoint_agent.live.export_place import plan_export
from backpoint_agent.live.judgement import LiveSight, judge_datastore, judge_live
from backpoint_agent.live.live_facts import DatastoreFacts, LiveFacts, State, live_facts
from backpoint_agent.live.nas_datastore import NasDatastore, Remote, check_usable, plan_name
from backpoint_agent.live.repository_access import repository_access
from backpoint_agent.settings.model import RepositorySettings, SecretSettings
from backpoint_repo.errors import UsageError
from some_machine import VCENTER, some_disk, some_machine

DATASTORE = "backpoint-live"
VMX = f"[{DATASTORE}] live/s/web.vmx"
RENAMED = "[renamed] live/s/web.vmx"
FACTS = LiveFacts(
    session="s",
    repository="/srv/repo",
    home="/srv/live",
    name="web-live",
    folder="DC0/vm",
    datacenter="datacenter-2",
    datastore=DATASTORE,
    address="10.0.0.5",
    path="/backpoint",
    vmx=VMX,
    moref="vm-1",
)
MACHINES = st.builds(
    lambda vmx, disk, datastores: some_machine(
        vmx=vmx, disks=(some_disk(file=disk),), datastores=datastores
    ),
    st.sampled_from([VMX, RENAMED, f"[{DATASTORE}] live/other/web.vmx", "[prod] web/web.vmx"]),
    st.sampled_from([f"[{DATASTORE}] live/s/disk0.vmdk", "[prod] web/web.vmdk"]),
    st.sampled_from([(DATASTORE,), ("prod",), ("prod", DATASTORE), ("renamed",), ()]),
)
SIGHTS = st.builds(
    LiveSight,
    st.none() | MACHINES,
    st.booleans(),
    st.sampled_from([frozenset(), frozenset({DATASTORE}), frozenset({"renamed"})]),
    st.sampled_from([(), ("VirtualMachine.relocate",)]),
    st.booleans(),
)


@given(SIGHTS, st.sampled_from(get_args(State)))
def test_a_vm_goes_only_where_all_proves_that_it_is_ours(sight: LiveSight, state: State) -> None:
    """Whatever is seen: what is unregistered lies where we put it, on our export, with our mark,
    and nobody wants it; while any VM has files there, its session is not thrown away."""
    judged = judge_live(dataclasses.replace(FACTS, state=state), sight)
    machine = sight.machine
    if judged.act != "end-live":
        assert judged.vm == ""
        return
    assert not sight.tasks
    if judged.vm:
        assert machine is not None
        assert machine.moref == judged.vm
        assert machine.vmx in {f"[{name}] live/s/web.vmx" for name in sight.names}
        assert sight.marked
        assert state in ("starting", "ending")
    elif machine is not None:
        assert state != "running"
        files = [machine.vmx, *(disk.file for disk in machine.disks)]
        for name in (DATASTORE, *sight.names):
            assert not any(name in text for text in (*files, *machine.datastores))
    else:
        assert state == "ending" or (state == "starting" and not sight.fresh)


def test_what_it_means_is_said() -> None:
    """With the command that goes on."""
    running = dataclasses.replace(FACTS, state="running")
    here = some_machine(vmx=VMX, datastores=(DATASTORE,))
    assert "`backpoint live end s`" in judge_live(running, LiveSight(here)).why
    assert "`backpoint live end s` forgets" in judge_live(running, LiveSight(None)).why
    away = some_machine(vmx="[prod] web/web.vmx")
    assert "has left the backup" in judge_live(running, LiveSight(away)).why
    moving = dataclasses.replace(FACTS, state="migrating", target="prod")
    assert "`backpoint live migrate s`" in judge_live(moving, LiveSight(here)).why


def nas(**changes: Any) -> NasDatastore:
    """Ours, mounted on host-1, empty."""
    values: dict[str, Any] = {
        "moref": "datastore-9",
        "name": DATASTORE,
        "remote": Remote("10.0.0.5", "/backpoint"),
        "hosts": frozenset({"host-1"}),
        "read_only": frozenset(),
        "vms": frozenset(),
        "accessible": True,
    }
    return NasDatastore(**(values | changes))


def test_a_datastore_goes_when_it_is_ours_and_empty() -> None:
    """Not while a VM has files there, and not under a name that somebody gave it."""
    facts = DatastoreFacts(DATASTORE, "10.0.0.5", "/backpoint", "host-1")
    assert judge_datastore(facts, nas(), fresh=False).act == "unmount"
    assert judge_datastore(facts, nas(vms=frozenset({"vm-1"})), fresh=False).act == "tell"
    assert judge_datastore(facts, nas(name="renamed"), fresh=False).act == "keep"
    assert judge_datastore(facts, None, fresh=True).act == "keep"
    assert judge_datastore(facts, None, fresh=False).act == "close"


def test_one_export_has_one_name() -> None:
    """That of the other hosts; a name that another export has is refused, and so is a mount that
    cannot be written."""
    ours = Remote("10.0.0.5", "/backpoint")
    assert plan_name([], ours, DATASTORE) == DATASTORE
    assert plan_name([nas(name="recovery")], ours, DATASTORE) == "recovery"
    with pytest.raises(UsageError, match=r"is 10\.0\.0\.9:/x"):
        plan_name([nas(remote=Remote("10.0.0.9", "/x"))], ours, DATASTORE)
    with pytest.raises(TaskFailed, match="read-only"):
        check_usable(nas(read_only=frozenset({"host-1"})), "host-1", "esx1")
    with pytest.raises(TaskFailed, match="is the export running"):
        check_usable(nas(accessible=False), "host-1", "esx1")


EXPORT: dict[str, Any] = {
    "type": "export",
    "address": "10.0.0.5",
    "nfs_port": 2049,
    "path": "/backpoint",
    "mount": "/run/backpoint/export-1/mount",
    "sessions": "/var/lib/backpoint/live/1",
    "read_only": False,
    "versions": [3, 4],
}


def test_a_running_export_is_taken_as_it_says() -> None:
    """Address, path, the mount here, and its sessions' home."""
    place = plan_export(EXPORT, "")
    assert place.remote == Remote("10.0.0.5", "/backpoint")
    assert place.session("s") == Path("/run/backpoint/export-1/mount/live/s")
    assert place.home == "/var/lib/backpoint/live/1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"address": "127.0.0.1"}, "this machine alone"),
        ({"address": "0.0.0.0"}, "at which address"),
        ({"address": "x y"}, "no address"),
        ({"read_only": True}, "read-only"),
        ({"sessions": None}, "read-only"),
        ({"nfs_port": 12049}, "port 2049"),
        ({"versions": [4]}, "NFSv3"),
        ({"path": ""}, "does not say what is exported"),
    ],
)
def test_an_export_that_hosts_cannot_use_is_refused(changes: dict[str, Any], said: str) -> None:
    """Before anything is done, with what it lacks."""
    with pytest.raises(UsageError, match=said):
        plan_export(EXPORT | changes, "")
    with pytest.raises(UsageError, match="not in /elsewhere"):
        plan_export(EXPORT, "/elsewhere")


@given(st.text(max_size=200))
def test_a_session_is_called_what_nobody_else_calls_one(vm: str) -> None:
    """Whatever the VM is called, the name is one that sessions may have, and new each time."""
    name = session_name(vm)
    assert len(name) <= 80
    assert name[0].isalnum() or name[0] == "_"
    assert all(char.isalnum() or char in "._+-" for char in name)
    assert name.isascii()
    assert name != session_name(vm)


def test_what_is_wanted_is_no_leftover() -> None:
    """A running VM, and its datastore; a datastore that no running VM is on is one."""

    def effect(kind: Any, number: str, **facts: str) -> Effect:
        return Effect(number, kind, VCENTER, "", "web", facts, 0.0)

    runs = effect("live-machine", "1", state="running", datastore="a")
    moves = effect("live-machine", "2", state="migrating", datastore="a")
    half = effect("live-machine", "3", state="starting", datastore="b")
    used = effect("live-datastore", "4", datastore="a")
    unused = effect("live-datastore", "5", datastore="b")
    assert left_over([runs, moves, half, used, unused]) == [half, unused]


@given(st.dictionaries(st.sampled_from([*FACTS.facts(), "more"]), st.text(max_size=9)))
def test_any_facts_of_a_ledger_are_read(facts: dict[str, str]) -> None:
    """What is missing is empty, and an unknown state is one in which nothing is undone."""
    read = live_facts(facts)
    assert read.state in get_args(State)
    assert facts.get("state", "starting") in (read.state, facts.get("state"))
    if "state" in facts and facts["state"] not in get_args(State):
        assert read.state == "running"
    assert live_facts(FACTS.facts()) == FACTS


def test_the_passphrase_of_the_configuration_reaches_children_by_its_place() -> None:
    """Never as a word; a user's own goes first; an agent's credential beside it is left out."""

    def settings(**secret: Any) -> RepositorySettings:
        return RepositorySettings(path="/srv/repo", passphrase=SecretSettings(**secret))

    access = repository_access(None, settings(file=Path("/etc/p")), {"BACKPOINT_CREDENTIAL": "c"})
    assert access.path == "/srv/repo"
    assert access.environment == {"BACKPOINT_PASSPHRASE_FILE": "/etc/p"}
    assert "/etc/p" not in repr(access)
    access = repository_access("/r", settings(command="pass show"), {"A": "b"})
    assert (access.path, dict(access.environment)) == (
        "/r",
        {"A": "b", "BACKPOINT_PASSPHRASE_COMMAND": "pass show"},
    )
    given = {"BACKPOINT_PASSPHRASE": "mine", "BACKPOINT_REPO": "/other"}
    access = repository_access(None, settings(environment="P"), given)
    assert (access.path, access.environment) == ("/other", given)
    access = repository_access("/r", settings(environment="P"), {"P": "secret"})
    assert access.environment["BACKPOINT_PASSPHRASE"] == "secret"
