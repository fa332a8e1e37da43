"""Where one more disk fits on the proxy VM, and which of the kernel's names is a disk's."""

from __future__ import annotations

from typing import Any

import pytest

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.transport.proxy_disks import (
    ProxyDevices,
    ScsiController,
    Slot,
    find_device,
    hex_of,
    plan_slot,
)


def controller(key: int, bus: int = 0, used: set[int] | None = None, **changes: Any) -> Any:
    facts = {"paravirtual": True, "shared": False, "own_unit": 7, **changes}
    return ScsiController(key, bus, used=frozenset(used or ()), **facts)


@pytest.mark.parametrize(
    ("controllers", "slot"),
    [
        ([controller(1000)], Slot(1000, 0)),
        ([controller(1000, used={0, 1, 2})], Slot(1000, 3)),
        ([controller(1000, used=set(range(7)))], Slot(1000, 8)),
        ([controller(1000, used=set(range(16)) - {7}), controller(1001, 1)], Slot(1001, 0)),
        ([controller(1000, paravirtual=False), controller(1001, 1)], Slot(1001, 0)),
        ([controller(1000, paravirtual=False)], Slot(1000, 0)),
        ([controller(1001, 1), controller(1000, 0)], Slot(1000, 0)),
        ([controller(1000, shared=True), controller(1001, 1, {0})], Slot(1001, 1)),
        ([controller(1000, used={7}, own_unit=9)], Slot(1000, 0)),
    ],
)
def test_a_free_unit_of_the_best_controller(controllers: list[Any], slot: Slot) -> None:
    """Paravirtual ones first, by bus; never the controller's own unit, never a shared bus."""
    assert plan_slot("proxy", ProxyDevices(tuple(controllers), ())) == slot


@pytest.mark.parametrize(
    ("controllers", "said"),
    [
        ([], "has no SCSI controller"),
        ([controller(1000, used=set(range(16)) - {7})], "no free unit"),
        ([controller(1000, shared=True)], "no free unit"),
    ],
)
def test_no_place_says_what_to_add(controllers: list[Any], said: str) -> None:
    """IDE alone is not enough."""
    with pytest.raises(TransportUnusable, match=said):
        plan_slot("proxy", ProxyDevices(tuple(controllers), ()))


def test_a_disk_is_found_by_its_whole_uuid_only() -> None:
    """Not by a part, not a partition, not another kind of name."""
    digits = hex_of("6000C29d-3f5d-dcad-9e25-3e89482c3fde")
    assert digits == "6000c29d3f5ddcad9e253e89482c3fde"
    assert hex_of("60 00 C2 9d 3f 5d dc ad-9e 25 3e 89 48 2c 3f de") == digits
    for name in (f"wwn-0x{digits}", f"scsi-3{digits}", f"scsi-SVMware_Virtual_disk_{digits}"):
        assert find_device(["ata-x", f"{name}-part1", name], digits) == name
        assert find_device([f"{name}-part1", name[:-1], f"x{name}", "dm-uuid-1"], digits) is None
    assert find_device([f"wwn-0x{digits}", f"scsi-3{digits}"], digits) == f"scsi-3{digits}"


@pytest.mark.parametrize("uuid", ["", "6000C29d", "../../../etc/passwd", "g" * 32, "0" * 33])
def test_what_is_no_uuid_finds_nothing(uuid: str) -> None:
    """A disk without one is refused before anything is attached."""
    assert hex_of(uuid) is None
