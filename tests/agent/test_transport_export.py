"""Disks by an export lease: whole, in order, and the lease is never left behind."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_agent.errors import Stopped, TransportUnusable
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.choose import choose_transport
from backpoint_agent.transport.export import ExportTransport, match_devices, slot_of
from backpoint_agent.vsphere import export_lease
from backpoint_agent.vsphere.export_lease import ExportLease, LeasedDevice, plan_keep_alive
from backpoint_repo.backup_session import DiskJob
from backpoint_repo.errors import SourceError
from backpoint_repo.source.contract import ImageSource
from frozen_vm import DISK_SIZE, FAULT_AT, Trial, frozen, guest_disk, running_trial, store
from small_repository import assert_clean, read_disk
from some_machine import some_disk

DEADLINE_S = 15
"""Less than an exchange with vCenter may take, so that no network limit passes for us."""
BIG = 24 << 20
"""More than the network holds of a stream that nobody reads."""


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    with running_trial(tmp_path) as ready:
        yield ready


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger") as ours:
        yield ours


def lease_calls(trial: Trial) -> list[str]:
    """What was done with leases, in order."""
    methods = {"ExportSnapshot", "HttpNfcLeaseComplete", "HttpNfcLeaseAbort", "GET /nfc"}
    return [call.method for call in trial.simulator.calls() if call.method in methods]


def content(source: ImageSource) -> bytes:
    buffer = bytearray(source.size)
    source.read_into(0, memoryview(buffer))
    return bytes(buffer)


def test_a_full_and_an_incremental(trial: Trial, ledger: Ledger) -> None:
    """Both hold what the disk held at their snapshot, and nothing of the lease is left."""
    trial.carry_full_and_incremental(ExportTransport(trial.vcenter, ledger, Stop()))
    assert ledger.all_open() == []


def test_the_lease_is_completed_with_the_last_byte(trial: Trial, ledger: Ledger) -> None:
    """Two disks, opened together and read one after the other; each is sent once, the second when
    it is wanted; while both are unread the lease is held."""
    other = guest_disk(trial.simulator.log.parent, 3 << 20, seed=2)
    trial.simulator.add_disk(trial.vm, other)
    with frozen(trial.vcenter, trial.vm) as machine:
        trial.simulator.forget_calls()
        with closing(ExportTransport(trial.vcenter, ledger, Stop()).prepare(machine)) as ready:
            first, second = (ready.open(disk) for disk in machine.disks)
            assert lease_calls(trial) == ["ExportSnapshot", "GET /nfc"]
            assert content(first) == trial.content()
            assert [effect.kind for effect in ledger.all_open()] == ["export-lease"]
            assert content(second) == other.read_bytes()
            done = ["ExportSnapshot", "GET /nfc", "GET /nfc", "HttpNfcLeaseComplete"]
            assert lease_calls(trial) == done
            assert ledger.all_open() == []
        assert lease_calls(trial) == done
        assert ready.warnings == []


def test_disks_of_one_size_are_not_confused(trial: Trial, ledger: Ledger) -> None:
    """Only one of two disks is wanted, and it is the second."""
    other = guest_disk(trial.simulator.log.parent, seed=5)
    key = trial.simulator.add_disk(trial.vm, other)
    with frozen(trial.vcenter, trial.vm) as machine:
        wanted = tuple(disk for disk in machine.disks if disk.device_key == key)
        point = store(
            trial.repository,
            ExportTransport(trial.vcenter, ledger, Stop()),
            replace(machine, disks=wanted),
        )
    assert read_disk(trial.repository, point.disks[0]) == other.read_bytes()


@pytest.mark.parametrize("cut", [True, False])
def test_a_read_error_makes_no_point(trial: Trial, ledger: Ledger, cut: bool) -> None:
    """The host cannot read a place: the stream ends there, or does not begin; the lease goes."""
    trial.simulator.write(trial.vm, 0, random.Random(9).randbytes(DISK_SIZE))
    trial.simulator.read_fault("-flat.vmdk", FAULT_AT, cut=cut)
    with (
        frozen(trial.vcenter, trial.vm) as machine,
        pytest.raises(SourceError, match=r"export of \[LocalDS_0\].*(broke off|answers 500)"),
    ):
        store(trial.repository, ExportTransport(trial.vcenter, ledger, Stop()), machine)
    assert lease_calls(trial)[-1] == "HttpNfcLeaseAbort"
    assert ledger.all_open() == []
    assert trial.points() == 0
    assert_clean(trial.repository)


def test_a_changed_list_is_proven_by_finishing_the_stream(trial: Trial, ledger: Ledger) -> None:
    """What was read of a stream that breaks later is not published by who asks for its end."""
    trial.simulator.write(trial.vm, 0, random.Random(9).randbytes(DISK_SIZE))
    transport = ExportTransport(trial.vcenter, ledger, Stop())
    with frozen(trial.vcenter, trial.vm) as machine:
        store(trial.repository, transport, machine)
        trial.simulator.read_fault("-flat.vmdk", DISK_SIZE - 4096, cut=True)
        with (
            closing(transport.prepare(machine)) as ready,
            trial.repository.begin_backup(machine.machine.name) as session,
        ):
            disk = machine.disks[0]
            source = ready.open(disk)
            session.store_disk(DiskJob(disk.key, source, [(0, 4096)]), lambda _: None)
            with pytest.raises(SourceError, match="broke off"):
                source.finish()


def test_a_refused_lease_leaves_nothing(trial: Trial, ledger: Ledger) -> None:
    """A fault and a missing privilege are reasons to try another transport."""
    transport = ExportTransport(trial.vcenter, ledger, Stop())
    with frozen(trial.vcenter, trial.vm) as machine:
        trial.simulator.fault("ExportSnapshot", "NotSupported", message="not on this storage")
        with pytest.raises(TransportUnusable, match=r"export lease of .*not on this"):
            transport.prepare(machine)
        trial.simulator.refuse_privilege("VApp.Export")
        with pytest.raises(TransportUnusable, match=r"export: .*VApp\.Export"):
            choose_transport(["export"], [transport], machine)
    assert ledger.all_open() == []


def test_a_lease_without_the_disk_is_given_back(trial: Trial, ledger: Ledger) -> None:
    """The message says what the lease has instead."""
    transport = ExportTransport(trial.vcenter, ledger, Stop())
    with frozen(trial.vcenter, trial.vm) as machine:
        gone = replace(machine, disks=(replace(machine.disks[0], slot="scsi3:9"),))
        with pytest.raises(TransportUnusable, match=r"0 files for the disk at scsi3:9.*/vm-"):
            transport.prepare(gone)
    assert lease_calls(trial) == ["ExportSnapshot", "HttpNfcLeaseAbort"]
    assert ledger.all_open() == []


def test_a_stream_of_another_size_is_refused_at_once(trial: Trial, ledger: Ledger) -> None:
    """What is sent is not the disk that the snapshot has."""
    with frozen(trial.vcenter, trial.vm) as machine:
        disk = replace(machine.disks[0], size=DISK_SIZE + 512)
        transport = ExportTransport(trial.vcenter, ledger, Stop())
        with closing(transport.prepare(machine)) as ready, pytest.raises(TransportUnusable):
            ready.open(disk)
    assert ledger.all_open() == []


@pytest.mark.parametrize(
    ("timeout_s", "every_s"), [(300, 100), (60, 20), (0, 2), (-1, 2), (300_000_000, 100)]
)
def test_signs_of_life_come_thrice_in_a_timeout(timeout_s: int, every_s: float) -> None:
    """Whatever the lease says: neither a storm nor a silence."""
    assert plan_keep_alive(timeout_s) == every_s


def test_the_lease_is_kept_alive_until_it_is_given_back(
    trial: Trial, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vCenter hears of us again and again; that it once did not is known, and no reason to end."""
    monkeypatch.setattr(export_lease, "plan_keep_alive", lambda _: 0.02)
    with frozen(trial.vcenter, trial.vm) as machine:
        lease = ExportLease(trial.vcenter, ledger, machine.machine, machine.snapshot, Stop())
        wait_until(lambda: signs_of_life(trial) > 2)
        assert lease.trouble is None
        trial.simulator.fault("HttpNfcLeaseProgress", "InvalidState", count=-1)
        wait_until(lambda: lease.trouble is not None)
        trial.simulator.clear()
        wait_until(lambda: lease.trouble is None)
        lease.complete()
        lease.abort()
    assert lease.warnings == []
    assert ledger.all_open() == []


def signs_of_life(trial: Trial) -> int:
    return sum(call.method == "HttpNfcLeaseProgress" for call in trial.simulator.calls())


def wait_until(condition: Callable[[], bool]) -> None:
    """Fail after a while."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        Stop().wait(0.01)


def test_a_lease_that_cannot_be_given_back_stays_in_the_ledger(
    trial: Trial, ledger: Ledger
) -> None:
    """Closing raises nothing; the warning says what it means, and the reaper knows the lease."""
    transport = ExportTransport(trial.vcenter, ledger, Stop())
    with frozen(trial.vcenter, trial.vm) as machine:
        ready = transport.prepare(machine)
        trial.simulator.fault("HttpNfcLeaseAbort", "RuntimeFault", message="no", count=-1)
        ready.close()
        ready.close()
        (effect,) = ledger.all_open()
        assert effect.vm == trial.vm
        assert effect.facts["moref"].startswith("session")
        assert len(ready.warnings) == 1
        assert "neither powered on nor moved" in ready.warnings[0]


def test_a_stop_ends_reading_and_gives_the_lease_back(trial: Trial, ledger: Ledger) -> None:
    """Clearing up is done after a stop all the same."""
    stop = Stop()
    transport = ExportTransport(trial.vcenter, ledger, stop)
    with frozen(trial.vcenter, trial.vm) as machine:
        ready = transport.prepare(machine)
        source = ready.open(machine.disks[0])
        stop.request("test")
        with pytest.raises(Stopped):
            content(source)
        ready.close()
    assert lease_calls(trial)[-1] == "HttpNfcLeaseAbort"
    assert ledger.all_open() == []


def test_a_silent_server_does_not_hold_up_a_stop(trial: Trial, ledger: Ledger) -> None:
    """vCenter hangs in the middle of the stream; the reader hears of the stop all the same."""
    stop = Stop()
    trial.simulator.extend(trial.vm, BIG)
    trial.simulator.write(trial.vm, 0, random.Random(9).randbytes(BIG))
    with frozen(trial.vcenter, trial.vm) as machine, ThreadPoolExecutor(1) as pool:
        ready = ExportTransport(trial.vcenter, ledger, stop).prepare(machine)
        source = ready.open(machine.disks[0])
        trial.simulator.hang()
        try:
            reading = pool.submit(content, source)
            assert not wait([reading], 0.1).done
            stop.request("test")
            assert isinstance(reading.exception(DEADLINE_S), Stopped)
        finally:
            trial.simulator.go_on()
        ready.close()
    assert ledger.all_open() == []


def device(key: str) -> LeasedDevice:
    return LeasedDevice(key, "disk-0.vmdk", "https://*/nfc/1/disk-0.vmdk", None, True)


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("/vm-70/ParaVirtualSCSIController0:1", "scsi0:1"),
        ("/vm-70/VirtualLsiLogicController1:15", "scsi1:15"),
        ("/55/VirtualLsiLogicSASController3:0", "scsi3:0"),
        ("/vm-1/VirtualBusLogicController0:0", "scsi0:0"),
        ("/vm-1/VirtualAHCIController0:29", "sata0:29"),
        ("/vm-1/VirtualNVMEController0:0", "nvme0:0"),
        ("/vm-1/VirtualIDEController1:0", "ide1:0"),
        ("/vm-1/nvram", None),
        ("/vm-1/VirtualUSBController0:0", None),
        ("", None),
    ],
)
def test_a_files_key_is_a_place_in_the_vm(key: str, slot: str | None) -> None:
    """As vCenter writes them, for all kinds of controllers."""
    assert slot_of(key) == slot


def test_files_are_matched_by_place_and_never_by_order() -> None:
    """nvram is no disk; a disk without a file, or with two, is none that can be read."""
    disks: list[VirtualDisk] = [some_disk(1), some_disk(0)]
    zero, one = (device(f"/vm-1/ParaVirtualSCSIController0:{unit}") for unit in (0, 1))
    found = match_devices(disks, [device("/vm-1/nvram"), zero, one])
    assert found == {disks[0].key: one, disks[1].key: zero}
    with pytest.raises(TransportUnusable, match="0 files for the disk at scsi0:1"):
        match_devices(disks, [zero])
    with pytest.raises(TransportUnusable, match="2 files for the disk at scsi0:0"):
        match_devices(disks, [zero, one, zero])
