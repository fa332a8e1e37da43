"""Disks read in ranges through vCenter's datastore file access."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_agent.errors import Stopped, TransportUnusable, VSphereError
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.choose import choose_transport
from backpoint_agent.transport.https import HttpsTransport
from backpoint_agent.vsphere import datastore_files
from backpoint_agent.vsphere.datastore_files import REQUEST_LIMIT
from backpoint_repo.errors import SourceError
from backpoint_repo.source.contract import Extent
from frozen_vm import DISK_SIZE, FAULT_AT, Trial, frozen, logged_in, running_trial, store
from small_repository import assert_clean


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    monkeypatch.setattr(datastore_files, "_FIRST_PAUSE_S", 0.01)
    with running_trial(tmp_path) as ready:
        yield ready


def https(trial: Trial, connections: int = 3, stop: Stop | None = None) -> HttpsTransport:
    return HttpsTransport(connections, trial.vcenter, stop or Stop())


def test_a_full_and_an_incremental(trial: Trial) -> None:
    """Both hold what the disk held at their snapshot, byte for byte."""
    trial.carry_full_and_incremental(https(trial))


def test_requests_are_small_and_cover_a_read_exactly(trial: Trial) -> None:
    """A read of the whole disk asks for each byte once, 2 MiB at a time."""
    with frozen(trial.vcenter, trial.vm) as machine:
        ready = https(trial).prepare(machine)
        source = ready.open(machine.disks[0])
        trial.simulator.forget_calls()
        buffer = bytearray(DISK_SIZE - 5000)
        source.read_into(4096, memoryview(buffer))
        expected = trial.content()[4096 : 4096 + len(buffer)]
        assert list(source.extents(0, DISK_SIZE)) == [Extent(0, DISK_SIZE, hole=False)]
        ready.close()
    assert bytes(buffer) == expected
    ranges = sorted(
        tuple(int(number) for number in call.detail.removeprefix("bytes=").split("-"))
        for call in trial.simulator.calls()
        if call.method == "GET /folder"
    )
    assert [first for first, _ in ranges] == [4096, *(last + 1 for _, last in ranges[:-1])]
    assert ranges[-1][1] == 4096 + len(buffer) - 1
    assert all(last - first < REQUEST_LIMIT for first, last in ranges)


def test_a_read_error_makes_no_point(trial: Trial) -> None:
    """A place that the host cannot read ends the backup; the error names the disk and where."""
    trial.simulator.read_fault("-flat.vmdk", FAULT_AT)
    with (
        frozen(trial.vcenter, trial.vm) as machine,
        pytest.raises(SourceError, match=r"Hard disk 1.*-flat.vmdk at offset \d+.* 500") as caught,
    ):
        store(trial.repository, https(trial), machine)
    offset = int(str(caught.value).partition("at offset ")[2].partition(":")[0])
    assert offset <= FAULT_AT < offset + REQUEST_LIMIT
    assert trial.points() == 0
    assert_clean(trial.repository)


def test_a_read_that_fails_once_is_made_again(trial: Trial) -> None:
    """A cut connection and a busy server cost a pause, not the backup."""
    trial.simulator.read_fault("-flat.vmdk", FAULT_AT, cut=True, count=1)
    with frozen(trial.vcenter, trial.vm) as machine:
        point = store(trial.repository, https(trial), machine)
        assert point.disks[0].size == DISK_SIZE
    trial.simulator.clear()
    trial.simulator.http_status(503, 1, "GET /folder")
    trial.carry_full_and_incremental(https(trial))


def test_a_session_that_ran_out_while_reading_is_renewed(trial: Trial) -> None:
    """An expired session between two reads is nobody's business."""
    with frozen(trial.vcenter, trial.vm) as machine:
        expected = trial.content()
        ready = https(trial).prepare(machine)
        source = ready.open(machine.disks[0])
        trial.simulator.expire_sessions()
        buffer = bytearray(DISK_SIZE)
        source.read_into(0, memoryview(buffer))
        ready.close()
    assert bytes(buffer) == expected


def test_a_snapshot_of_the_user_is_refused_without_asking_anybody(trial: Trial) -> None:
    """Its disks are deltas: no bytes of a flat file stand for them."""
    with frozen(trial.vcenter, trial.vm), frozen(trial.vcenter, trial.vm) as machine:
        assert machine.disks[0].has_parent
        trial.simulator.forget_calls()
        with pytest.raises(TransportUnusable, match="earlier snapshot"):
            https(trial).prepare(machine)
        assert not trial.simulator.calls()


def test_a_flat_file_of_another_size_is_refused(trial: Trial) -> None:
    """What vCenter serves is not the disk that was frozen."""
    with frozen(trial.vcenter, trial.vm) as machine:
        disk = replace(machine.disks[0], size=DISK_SIZE + 512)
        with pytest.raises(TransportUnusable, match=f"of {DISK_SIZE} bytes instead"):
            https(trial).prepare(machine).open(disk)


def test_a_missing_privilege_is_named_and_the_next_way_is_taken(trial: Trial) -> None:
    """403 of the file access is the account's lack of Datastore.Browse."""
    trial.simulator.http_status(403, -1, "HEAD /folder")
    with (
        frozen(trial.vcenter, trial.vm) as machine,
        pytest.raises(TransportUnusable, match=r"https: .*Datastore\.Browse"),
    ):
        choose_transport(("https",), [https(trial)], machine)


def test_a_stop_is_heard_while_the_server_does_not_answer(trial: Trial, tmp_path: Path) -> None:
    """The reader is let go although its requests are still under way."""
    stop = Stop()
    account = trial.account.model_copy(update={"request_limit_s": 15})
    with logged_in(account) as vcenter, frozen(vcenter, trial.vm) as machine:
        ready = HttpsTransport(2, vcenter, stop).prepare(machine)
        source = ready.open(machine.disks[0])
        trial.simulator.slow_calls(5, -1, "GET /folder")
        trial.simulator.forget_calls()
        threading.Timer(0.2, stop.request, ("somebody asked",)).start()
        with pytest.raises(Stopped):
            source.read_into(0, memoryview(bytearray(DISK_SIZE)))
        answered = [call for call in trial.simulator.calls() if call.method == "GET /folder"]
        assert len(answered) <= 2
        ready.close()
        trial.simulator.clear()


def test_reads_after_the_end_are_errors(trial: Trial) -> None:
    """A closed source, or one whose transport is closed, reads nothing."""
    with frozen(trial.vcenter, trial.vm) as machine:
        ready = https(trial).prepare(machine)
        source, other = ready.open(machine.disks[0]), ready.open(machine.disks[0])
        source.close()
        with pytest.raises(SourceError, match="closed"):
            source.read_into(0, memoryview(bytearray(4096)))
        ready.close()
        ready.close()
        with pytest.raises(SourceError, match="closed"):
            other.read_into(0, memoryview(bytearray(4096)))


def test_vcenter_gone_in_the_middle_is_a_source_error(trial: Trial) -> None:
    """Told with the disk's name; the vCenter's trouble stays in the chain for whoever retries."""
    with frozen(trial.vcenter, trial.vm) as machine:
        ready = https(trial).prepare(machine)
        source = ready.open(machine.disks[0])
        trial.simulator.stop()
        with pytest.raises(SourceError, match="Hard disk 1") as caught:
            source.read_into(0, memoryview(bytearray(4096)))
        assert isinstance(caught.value.__cause__, VSphereError)
        trial.simulator.start()
        ready.close()
