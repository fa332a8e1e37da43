"""A VM keeps its name in the repository when it is renamed or moved, and shares it with none."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.machine import Identity, Machine
from backpoint_agent.machine_names import (
    LOOK_BACK,
    NAME_LIMIT,
    MachineNames,
    Named,
    capture_identity,
)
from backpoint_repo.format import FOLDERS, Kind
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import as_agent, new_repository, reopened
from some_machine import some_machine

OTHER_VCENTER = "99999999-2222-3333-4444-555555555555"
_EMPTY = new_repository(MemoryStore())


def _publish(repository: Repository, name: str, capture: dict[str, Any]) -> Point:
    with repository.begin_backup(name) as session:
        return session.publish(time=None, label="", capture=capture)


def _back_up(repository: Repository, machine: Machine) -> str:
    """As a run does it, one process a VM."""
    name = MachineNames(reopened(repository)).name_of(machine).name
    _publish(repository, name, capture_identity(machine))
    return name


def _break(repository: Repository, point: Point) -> None:
    key = f"{FOLDERS[Kind.POINT]}/{point.point_id.hex()}"
    store = repository.sealed.store
    size = len(store.get(key))
    store.delete(key)
    store.put(key, [bytes(size)])


def _name(repository: Repository, machine: Machine) -> Named:
    return MachineNames(reopened(repository)).name_of(machine)


def test_a_new_vm_gets_its_own_name() -> None:
    """Nothing is known yet, and nothing is worth a warning."""
    assert _name(new_repository(MemoryStore()), some_machine("web")) == Named("web")


def test_a_renamed_vm_keeps_its_history_and_says_so_once() -> None:
    """The first run after the renaming warns; its point records the new name."""
    repository = new_repository(MemoryStore())
    assert _back_up(repository, some_machine("old")) == "old"
    renamed = some_machine("new", moref="vm-900")
    named = _name(repository, renamed)
    assert named.name == "old"
    assert named.warning == "was renamed from old to new; its points stay under old"
    assert _back_up(repository, renamed) == "old"
    assert _name(repository, renamed) == Named("old")


def test_the_freed_name_of_a_renamed_vm_goes_to_nobody_else() -> None:
    """A new VM with the old name of another must not go on with that one's points."""
    repository = new_repository(MemoryStore())
    _back_up(repository, some_machine("web", 1))
    _back_up(repository, some_machine("www", 1))
    named = _name(repository, some_machine("web", 2))
    assert named.name == f"web ({some_machine(number=2).identity.instance[:8]})"
    assert named.warning is not None
    assert "another machine has points under web" in named.warning


def test_two_vms_with_one_name_stay_apart_in_each_order() -> None:
    """Also before either has a point, and the other way round in the next process."""
    repository = new_repository(MemoryStore())
    one, two = some_machine("web", 1), some_machine("web", 2)
    names = MachineNames(repository)
    first, second = names.name_of(one).name, names.name_of(two).name
    assert first == "web" != second
    for machine, name in ((one, first), (two, second)):
        _publish(repository, name, capture_identity(machine))
        names.published(machine, name)
    later = MachineNames(reopened(repository))
    assert later.name_of(two).name == second
    assert later.name_of(one).name == first


def test_points_that_the_agent_did_not_make_keep_their_name_to_themselves() -> None:
    """`backpoint backup web ...` by hand is another history than the VM "web"."""
    repository = new_repository(MemoryStore())
    _publish(repository, "web", {})
    assert _name(repository, some_machine("web")).name.startswith("web (")


def test_a_point_by_hand_among_the_agents_takes_no_name_away() -> None:
    """The newest of the agent's own points counts."""
    repository = new_repository(MemoryStore())
    machine = some_machine("web")
    _back_up(repository, machine)
    for _ in range(LOOK_BACK - 1):
        _publish(repository, "web", {"kind": "other"})
    assert _name(repository, machine) == Named("web")


def test_a_replaced_vcenter_keeps_the_history_where_both_uuids_are_the_same() -> None:
    """And says why it does."""
    repository = new_repository(MemoryStore())
    machine = some_machine("web")
    _back_up(repository, machine)
    moved = dataclasses.replace(
        machine, identity=Identity(OTHER_VCENTER, machine.identity.instance), moref="vm-5"
    )
    named = _name(repository, moved)
    assert named.name == "web"
    assert named.warning is not None
    assert "another vCenter" in named.warning
    assert _back_up(repository, moved) == "web"
    assert _name(repository, moved) == Named("web")


def test_another_vcenter_with_another_bios_uuid_is_another_machine() -> None:
    """instanceUuids are unique in one vCenter only."""
    repository = new_repository(MemoryStore())
    machine = some_machine("web")
    _back_up(repository, machine)
    other = dataclasses.replace(
        machine, identity=Identity(OTHER_VCENTER, machine.identity.instance), uuid="other"
    )
    assert _name(repository, other).name != "web"
    nameless = dataclasses.replace(other, uuid="")
    assert _name(repository, nameless).name != "web"


def test_a_replica_in_a_second_vcenter_gets_no_share_of_the_history() -> None:
    """Both vCenters are there: the same uuids twice are two machines, whoever asks first."""
    repository = new_repository(MemoryStore())
    machine = some_machine("web")
    replica = dataclasses.replace(
        machine, identity=Identity(OTHER_VCENTER, machine.identity.instance)
    )
    _back_up(repository, machine)
    for pair in ((machine, replica), (replica, machine)):
        names = MachineNames(reopened(repository))
        assert len({names.name_of(each).name for each in pair}) == 2


def test_a_damaged_newest_point_is_passed_over() -> None:
    """Who owns the name is also in the older points."""
    repository = new_repository(MemoryStore())
    machine = some_machine("old")
    _back_up(repository, machine)
    _break(repository, _publish(repository, "old", capture_identity(machine)))
    assert _name(repository, some_machine("new")).name == "old"


def test_points_of_which_none_can_be_read_still_hold_their_name() -> None:
    """Nobody knows whose they are; so they are not this VM's."""
    repository = new_repository(MemoryStore())
    machine = some_machine("web")
    point = _publish(repository, "web", capture_identity(machine))
    names = MachineNames(repository)
    repository.catalog.refresh()
    _break(repository, point)
    assert names.name_of(machine).name.startswith("web (")


def test_hostile_captures_are_nobodys() -> None:
    """Whatever stands where texts should: no error, no owner."""
    repository = new_repository(MemoryStore())
    for number, instance in enumerate((7, ["x"], {"a": 1}, None, "")):
        capture = {"kind": "vsphere", "vcenter": 1, "instance": instance, "name": [2], "uuid": {}}
        _publish(repository, f"vm{number}", capture)
    assert _name(repository, some_machine("vm0")).name.startswith("vm0 (")


def test_names_are_known_to_the_agents_credential() -> None:
    """The credential that can read no disk data can read whose points there are."""
    repository = new_repository(MemoryStore())
    _back_up(repository, some_machine("old"))
    assert MachineNames(as_agent(repository)).name_of(some_machine("new")).name == "old"


def test_the_repository_is_read_once() -> None:
    """200 VMs of one job cost one look at each name."""
    repository = new_repository(MemoryStore())
    for number in range(5):
        _back_up(repository, some_machine(f"vm{number}", number))
    names = MachineNames(repository)
    names.name_of(some_machine("vm0", 0))
    for name in list(repository.sealed.names(Kind.POINT)):
        repository.sealed.delete(Kind.POINT, name)
    assert names.name_of(some_machine("renamed", 3)).name == "vm3"


def test_many_threads_get_different_names() -> None:
    """200 VMs with one name, asked at once."""
    names = MachineNames(new_repository(MemoryStore()))
    found: list[str] = []
    machines = [some_machine("web", number) for number in range(200)]

    def ask(part: list[Machine]) -> None:
        found.extend(names.name_of(machine).name for machine in part)

    threads = [threading.Thread(target=ask, args=(machines[at::8],)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(found)) == len(found) == 200


@given(
    st.lists(
        st.tuples(
            st.one_of(st.text(max_size=300), st.sampled_from(["web", "web (00000000)", "é" * 200])),
            st.sampled_from(["0" * 32, "0" * 31 + "1", "0" * 8 + "f" * 24, "x", ""]),
            st.sampled_from(["A", "B"]),
        ),
        max_size=12,
    )
)
def test_names_are_short_text_and_one_to_one(machines: list[tuple[str, str, str]]) -> None:
    """Whatever VMs are called, and however alike their uuids are."""
    names = MachineNames(_EMPTY)
    given_to: dict[str, Identity] = {}
    for name, instance, vcenter in machines:
        machine = some_machine(name, identity=Identity(vcenter, instance))
        got = names.name_of(machine).name
        assert 0 < len(got.encode()) <= NAME_LIMIT
        assert given_to.setdefault(got, machine.identity) == machine.identity


def test_a_replica_in_another_vcenter_has_no_points_of_its_own() -> None:
    """It would go on with the other one's, were it backed up; until then its jobs' rules have no
    say over them."""
    repository = new_repository(MemoryStore())
    machine = some_machine("web")
    replica = dataclasses.replace(
        machine, identity=dataclasses.replace(machine.identity, vcenter=OTHER_VCENTER)
    )
    names = MachineNames(repository)
    assert names.own_name(machine) is None
    _back_up(repository, machine)
    renamed = dataclasses.replace(machine, name="web-new")
    names = MachineNames(reopened(repository))
    assert names.own_name(replica) is None
    assert names.own_name(machine) == names.own_name(renamed) == "web"
    assert names.name_of(replica).name == "web"
