"""The first transport of a job's order that really reads the disks is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from backpoint_agent.errors import CannotConnect, Stopped, TransportUnusable
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.transport.choose import choose_transport
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.transport.datastore import DatastoreTransport
from backpoint_repo.vmdk_descriptor import describe_flat_disk
from some_machine import some_disk, some_machine
from synthetic_disk import SyntheticDisk


class Source(SyntheticDisk):
    """Knows whether it is open."""

    open = True

    def close(self) -> None:
        self.open = False


@dataclass
class Way:
    """A transport with as many disks as it is asked for, and one fault."""

    name: str
    unprepared: Exception | None = None
    fails_at: int | None = None
    grown: int = 0
    reads_ranges: bool = True
    note: str = ""
    warnings: Sequence[str] = ()
    closed: int = 0
    sources: list[Source] = field(default_factory=list)

    def prepare(self, frozen: FrozenMachine) -> Way:
        if self.unprepared:
            raise self.unprepared
        return self

    def open(self, disk: VirtualDisk) -> Source:
        source = Source(disk.size + self.grown, name=disk.file)
        # The second disk is the one that has the fault.
        source.fails_at = self.fails_at if self.sources else None
        self.sources.append(source)
        return source

    def close(self) -> None:
        self.closed += 1


def a_vm(disks: int = 2) -> FrozenMachine:
    return FrozenMachine(
        some_machine(), "snapshot-1", tuple(some_disk(number) for number in range(disks))
    )


def test_the_first_that_works_is_taken_with_all_disks_open() -> None:
    """Later ones are not even prepared; the sources are found by the disks' keys."""
    first, second = Way("vddk"), Way("https", unprepared=AssertionError("asked for nothing"))
    chosen = choose_transport(("vddk", "https"), [second, first], a_vm())
    assert chosen.transport is first
    assert chosen.passed_over == ()
    assert list(chosen.sources) == ["disk-2000", "disk-2001"]
    assert all(source.open for source in first.sources)
    chosen.close()
    assert first.closed == 1
    assert not any(source.open for source in first.sources)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Way("vddk", unprepared=TransportUnusable("no VDDK here")), "no VDDK here"),
        (Way("vddk", unprepared=CannotConnect("vCenter is away")), "vCenter is away"),
        (Way("vddk", fails_at=0), "web_1.vmdk"),
        (Way("vddk", grown=512), "1049088 bytes"),
    ],
)
def test_what_does_not_work_is_closed_and_its_reason_kept(broken: Way, reason: str) -> None:
    """Not prepared, a disk that cannot be read, a disk of another size: the next one is tried."""
    good = Way("https")
    chosen = choose_transport(("vddk", "https"), [broken, good], a_vm())
    assert chosen.transport is good
    (why,) = chosen.passed_over
    assert why.startswith("vddk: ")
    assert reason in why
    assert not any(source.open for source in broken.sources)
    assert broken.closed == (0 if broken.unprepared else 1)


def test_a_stream_is_not_probed_for_its_bytes_come_once() -> None:
    """Where only whole disks can be had, opening with the right size is all that is asked."""
    stream = Way("export", reads_ranges=False)
    choose_transport(("export",), [stream], a_vm())
    assert [source.bytes_read for source in stream.sources] == [0, 0]


def test_without_any_that_works_each_reason_is_told() -> None:
    """One error names the VM, every transport of the order, and why not."""
    ways = [
        Way("vddk", unprepared=TransportUnusable("no VDDK here")),
        Way("https", fails_at=0),
    ]
    with pytest.raises(TransportUnusable) as caught:
        choose_transport(("vddk", "datastore", "https"), ways, a_vm())
    message = str(caught.value)
    assert "disks of web: vddk: no VDDK here; datastore: not configured; https: " in message


def test_a_stop_is_not_taken_for_a_transport_that_does_not_work() -> None:
    """It passes through, and what was open is closed."""
    stopped = Way("vddk", unprepared=Stopped("stopped: somebody asked"))
    with pytest.raises(Stopped):
        choose_transport(("vddk", "https"), [stopped, Way("https")], a_vm())


def test_a_delta_on_a_users_snapshot_is_left_to_another_transport(tmp_path: Path) -> None:
    """The mounted datastore refuses it although a file of that name is there."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "web_0.vmdk").write_bytes(describe_flat_disk("f", 1 << 20, b""))
    (tmp_path / "web" / "f").write_bytes(bytes(1 << 20))
    machine = replace(a_vm(1), disks=(some_disk(disk_uuid=""),))
    datastore = DatastoreTransport({"ds1": tmp_path})
    assert choose_transport(("datastore",), [datastore], machine).transport.name == "datastore"
    delta = replace(machine, disks=(some_disk(has_parent=True),))
    chosen = choose_transport(("datastore", "export"), [datastore, Way("export")], delta)
    assert chosen.transport.name == "export"
    assert "earlier snapshot" in chosen.passed_over[0]
