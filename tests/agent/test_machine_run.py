"""The run of one VM against a vCenter: what it stores, what it records, and that nothing stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo.point_note import AFTERMATH, read_note
from machine_runs import Bench, running_bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with running_bench(tmp_path) as ready:
        yield ready


def test_full_and_incremental(bench: Bench) -> None:
    """Each point holds what the guest had at its snapshot; the second reads what changed."""
    before = bench.content()
    first = bench.run()
    bench.assert_holds(first, before)
    assert [disk.how for disk in first.disks] == ["full"]
    bench.simulator.write(bench.vm, 3 << 20, b"new" * 1000)
    now = bench.content()
    second = bench.run()
    bench.assert_holds(second, now)
    assert [disk.how for disk in second.disks] == ["changed"]
    assert second.read < first.read
    assert second.warnings == ()
    assert second.alarms == ()
    bench.assert_nothing_left()


def test_what_a_point_records(bench: Bench) -> None:
    """Consistency, transport, change tracking, stun and the VM's files are in the point."""
    bench.simulator.stun(bench.vm, 250_000)
    outcome = bench.run()
    point = bench.point(outcome)
    assert point.capture["transport"] == "https"
    assert point.capture["snapshot"]["stun_s"] == pytest.approx(0.25)
    assert outcome.stun_remove_s == pytest.approx(0.25)
    note = read_note(bench.repository.sealed, point.point_id, AFTERMATH)
    assert note is not None
    assert note.facts["snapshot_remove_stun_s"] == pytest.approx(0.25)
    assert note.facts["alarms"] == []
    assert point.consistency == outcome.consistency == "filesystem"
    names = {file.name for file in point.files}
    assert "machine.json" in names
    assert any(name.endswith(".vmx") for name in names)
    assert any(name.endswith(".nvram") for name in names)
    bench.assert_nothing_left()


def test_a_lie_of_change_tracking_is_found(bench: Bench) -> None:
    """A change that was not reported makes the run compare everything, and resets tracking."""
    audited = bench.job(change_tracking={"audit": {"probability": 0.999, "runs": 1}})
    assert bench.run(audited).good
    bench.simulator.lie(bench.vm, 2 << 20, 65536)
    bench.simulator.write(bench.vm, 2 << 20, b"lost" * 1000)
    now = bench.content()
    outcome = bench.run(audited)
    bench.assert_holds(outcome, now)
    assert [disk.how for disk in outcome.disks] == ["compare"]
    assert any("lied" in alarm for alarm in outcome.alarms)
    assert any("lied" in warning for warning in bench.point(outcome).warnings)
    after = bench.run(audited)
    assert [disk.how for disk in after.disks] == ["compare"]
    assert "reset" in after.disks[0].why
    bench.assert_nothing_left()
