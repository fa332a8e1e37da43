"""The arithmetic of `tools/scale`: what it computes of a small repository is what one has."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.scale.cli import main
from tools.scale.footprint import synthetic_table
from tools.scale.measured import Measured, measure
from tools.scale.prices import Prices
from tools.scale.requests import listed, requests_of_a_day
from tools.scale.workload import ENTRY, LEAF_BYTES, Workload, contents, leases_of_a_day, pages

fleets = st.builds(
    Workload,
    logical=st.integers(1 << 30, 1 << 52),
    vms=st.integers(1, 20_000),
    kept=st.integers(1, 400),
    changed=st.floats(0, 0.2),
    unique=st.floats(0.01, 1),
    append_only=st.booleans(),
)


@given(fleets, st.integers(1, 300))
def test_dividing_a_fleet_makes_each_part_smaller_and_the_whole_no_smaller(
    fleet: Workload, parts: int
) -> None:
    whole = contents(fleet)
    one = contents(replace(fleet, repositories=parts).of_one())
    assert all(listed(one)[folder] <= number for folder, number in listed(whole).items())
    assert one.chunks * parts >= whole.chunks * 0.99
    assert one.points * parts >= whole.points


@given(fleets)
def test_what_is_kept_longer_is_more(fleet: Workload) -> None:
    longer = contents(replace(fleet, kept=fleet.kept + 30))
    held = contents(fleet)
    assert longer.points == held.points + 30 * fleet.vms
    assert longer.stored > held.stored
    assert (longer.packs_day, longer.node_packs_day) == (held.packs_day, held.node_packs_day)


@given(st.integers(0, 10**9))
def test_pages_hold_a_thousand_keys_and_one_is_asked_for_in_any_case(keys: int) -> None:
    assert (pages(keys) - 1) * 1000 <= max(keys - 1, 0) < pages(keys) * 1000


def test_a_known_fleet() -> None:
    """By hand: 1024 leaves of 32 MiB, 64 KiB chunks; half unique; one day kept."""
    fleet = Workload(logical=1024 * LEAF_BYTES, vms=2, kept=1, changed=0.0, append_only=False)
    held = contents(fleet)
    assert held.chunks == 1024 * 512 // 2
    assert held.nodes == 1024
    assert held.index == (held.chunks + held.nodes) * ENTRY
    assert held.points == 2
    assert leases_of_a_day(fleet) == 2 * (2 + 10)


def test_an_entry_of_a_real_segment_has_the_size_that_is_counted_with() -> None:
    """Packs' names come on top: 17 bytes for 512 chunks."""
    assert 0 <= len(synthetic_table(1 << 12).encode()) / (1 << 12) - ENTRY < 0.1


def test_requests_are_those_of_a_real_backup_and_grow_by_pages_only() -> None:
    counted = measure()
    assert counted.backup["put", "points"] == 1
    assert counted.backup["list", "points"] >= 1
    assert counted.collect["delete", "packs"] > 0
    fleet = Workload(logical=1 << 40, vms=10, kept=2)
    held = contents(fleet)
    day = requests_of_a_day(fleet, held, counted)["backup"]
    lists = {folder: n for (verb, folder), n in counted.backup.items() if verb == "list"}
    keys = listed(held)
    assert day["list"] == 10 * sum(n * pages(keys.get(folder, 0)) for folder, n in lists.items())


def test_prices() -> None:
    prices = Prices(put_1000=5.0, get_1000=1.0, gb_month=0.5)
    asked = {"put": 1000, "list": 2000, "get": 3000, "head": 1000, "delete": 10**9}
    assert prices.of(asked) == 5 + 10 + 3 + 1
    assert prices.of_storage(2 * 10**9) == 1.0
    nothing = Measured(Counter(), Counter(), Counter())
    fleet = Workload(vms=1, append_only=False)
    assert requests_of_a_day(fleet, contents(fleet), nothing)["prune"]["list"] == 0


def test_the_program_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--entries", "4096", "--vms", "100"]) == 0
    out = capsys.readouterr().out
    assert "| backup |" in out
    assert out.count("\n| ") > 15
