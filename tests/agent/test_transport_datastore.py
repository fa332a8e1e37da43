"""Disks on a datastore that is mounted here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.transport.datastore import DatastoreTransport
from backpoint_repo.errors import SourceError, SourceShrank
from backpoint_repo.vmdk_descriptor import describe_flat_disk
from frozen_vm import DISK_SIZE, FAULT_AT, Trial, failing_at, frozen, running_trial, store
from small_repository import assert_clean
from some_machine import some_disk, some_machine

SIZE = 1 << 20


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    with running_trial(tmp_path) as ready:
        yield ready


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """A datastore with one flat disk, `some_disk()`."""
    folder = tmp_path / "mount"
    (folder / "web").mkdir(parents=True)
    (folder / "web" / "web_0.vmdk").write_bytes(describe_flat_disk("web_0-flat.vmdk", SIZE, b""))
    (folder / "web" / "web_0-flat.vmdk").write_bytes(os.urandom(SIZE))
    return folder


def opened(mount: Path, disk: VirtualDisk | None = None) -> bytes:
    """All bytes of the disk, through the transport."""
    disk = disk or some_disk(disk_uuid="")
    machine = FrozenMachine(some_machine(), "snapshot-1", (disk,))
    transport = DatastoreTransport({"ds1": mount}).prepare(machine)
    source = transport.open(disk)
    try:
        data = bytearray(source.size)
        source.read_into(0, memoryview(data))
        return bytes(data)
    finally:
        source.close()
        transport.close()


def test_a_full_and_an_incremental(trial: Trial) -> None:
    """Both hold what the disk held at their snapshot, byte for byte."""
    trial.carry_full_and_incremental(DatastoreTransport(trial.simulator.datastores()))


def test_holes_are_told(trial: Trial) -> None:
    """A full reads the data of a sparse disk and passes over its holes."""
    transport = DatastoreTransport(trial.simulator.datastores())
    with frozen(trial.vcenter, trial.vm) as machine:
        point = store(trial.repository, transport, machine)
    assert 0 < point.traffic.read < DISK_SIZE // 2


def test_a_read_error_makes_no_point(trial: Trial) -> None:
    """A sector that fails ends the backup; the error names the disk and the place."""
    transport = DatastoreTransport(trial.simulator.datastores())
    with frozen(trial.vcenter, trial.vm) as machine:
        flat = trial.simulator.live_disk(trial.vm).parent / flat_name(machine.disks[0])
        with failing_at(flat, FAULT_AT), pytest.raises(SourceError) as caught:
            store(trial.repository, transport, machine)
    message = str(caught.value)
    assert machine.disks[0].file in message
    assert f"offset {FAULT_AT}" in message
    assert "Input/output error" in message
    assert trial.points() == 0
    assert_clean(trial.repository)


def flat_name(disk: VirtualDisk) -> str:
    """Of the file that holds the disk's bytes."""
    return disk.file.rpartition("/")[2].replace(".vmdk", "-flat.vmdk")


def test_a_disk_elsewhere_is_refused_before_anything_is_opened(mount: Path) -> None:
    """The message says what to mount and where to say so."""
    disk = some_disk(file="[ds2] web/web_0.vmdk")
    with pytest.raises(
        TransportUnusable, match=r"'ds2' .* not mounted here.*transports.datastores"
    ):
        opened(mount, disk)


def test_a_snapshot_of_the_user_is_refused(mount: Path) -> None:
    """The message names the disk and what to do."""
    with pytest.raises(TransportUnusable, match=r"Hard disk 1 .* earlier snapshot"):
        opened(mount, some_disk(has_parent=True))


HEAD = '# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType="vmfs"\n'
HOSTILE = {
    "a sparse delta": 'RW 2048 VMFSSPARSE "web_0-flat.vmdk"\n',
    "a se-sparse delta": 'RW 2048 SESPARSE "web_0-flat.vmdk"\n',
    "two extents": 'RW 1024 VMFS "web_0-flat.vmdk"\nRW 1024 VMFS "web_0-flat.vmdk"\n',
    "no extent": "",
    "another size": 'RW 2040 VMFS "web_0-flat.vmdk"\n',
    "a shifted disk": 'RW 2040 VMFS "web_0-flat.vmdk" 8\n',
    "a parent": 'parentFileNameHint="other.vmdk"\nRW 2048 VMFS "web_0-flat.vmdk"\n',
    "another folder": 'RW 2048 VMFS "/etc/passwd"\n',
    "the folder above": 'RW 2048 VMFS "../web/web_0-flat.vmdk"\n',
    "dots": 'RW 2048 VMFS ".."\n',
    "an unknown line": 'RW 2048 VMFS "web_0-flat.vmdk"\nRDONLY 5 ZERO\n',
    "no text": "\udcff\udcfe" * 100,
    "a name that is no text": 'RW 2048 VMFS "\udcff.vmdk"\n',
    "a name with an escape": 'RW 2048 VMFS "\x1b[2J.vmdk"\n',
    "a raw mapping": 'RW 2048 VMFSRDM "web_0-flat.vmdk"\n',
}


@pytest.mark.parametrize("extents", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_descriptor_of_anything_but_one_flat_file_is_refused(mount: Path, extents: str) -> None:
    """Whatever it says, no other file is opened and no bytes are made up."""
    descriptor = mount / "web" / "web_0.vmdk"
    descriptor.write_bytes((HEAD + extents).encode(errors="surrogateescape"))
    with pytest.raises(TransportUnusable, match=r"Hard disk 1 .*\[ds1\] web/web_0.vmdk"):
        opened(mount)


def test_a_folder_that_is_another_datastore_is_found_out(mount: Path) -> None:
    """A file of the right name and size is not enough: the disk's uuid stands in its descriptor."""
    descriptor = mount / "web" / "web_0.vmdk"
    text = descriptor.read_text()
    own = text.partition('ddb.uuid = "')[2].partition('"')[0]
    hexadecimal = own.replace(" ", "").replace("-", "")
    as_vcenter_says = f"{hexadecimal[:8]}-{hexadecimal[8:20]}-{hexadecimal[20:]}".upper()
    opened(mount, some_disk(disk_uuid=as_vcenter_says))
    other = as_vcenter_says[:-1] + ("0" if as_vcenter_says[-1] != "0" else "1")
    with pytest.raises(TransportUnusable, match="is of another disk, whose uuid"):
        opened(mount, some_disk(disk_uuid=other))


def test_a_descriptor_of_gigabytes_is_not_read(mount: Path) -> None:
    """A disk's own bytes under the descriptor's name cost no memory."""
    with (mount / "web" / "web_0.vmdk").open("r+b") as descriptor:
        descriptor.truncate(1 << 40)
    with pytest.raises(TransportUnusable, match="is no descriptor"):
        opened(mount)


def test_a_flat_file_of_another_size_is_refused(mount: Path) -> None:
    """One sector less than the disk has is no disk."""
    os.truncate(mount / "web" / "web_0-flat.vmdk", SIZE - 512)
    with pytest.raises(TransportUnusable, match=f"has {SIZE - 512} bytes and Hard disk 1 has"):
        opened(mount)


def swaps() -> Iterator[tuple[str, str]]:
    yield "the flat file", "web/web_0-flat.vmdk"
    yield "the descriptor", "web/web_0.vmdk"
    yield "the folder", "web"


@pytest.mark.parametrize(
    "place", [place for _, place in swaps()], ids=[what for what, _ in swaps()]
)
def test_nothing_is_read_through_a_symbolic_link(mount: Path, place: str) -> None:
    """Not even to the same bytes: a link could be turned to any file of this machine."""
    (mount / place).rename(mount.parent / "moved")
    (mount / place).symlink_to(mount.parent / "moved")
    with pytest.raises(TransportUnusable, match=r"\[ds1\] web/web_0"):
        opened(mount)


@pytest.mark.parametrize(
    "file", ["[ds1] ../secret.vmdk", "[ds1] web/../web/web_0.vmdk", "[ds1] /web"]
)
def test_no_name_leads_out_of_the_mount(mount: Path, file: str) -> None:
    """Names with dots or an empty step are refused, wherever they lead."""
    with pytest.raises(TransportUnusable, match="not the name of a file"):
        opened(mount, some_disk(file=file))


def test_a_pipe_for_a_disk_is_refused_at_once(mount: Path) -> None:
    """Opening it would wait for its writer for ever."""
    flat = mount / "web" / "web_0-flat.vmdk"
    flat.unlink()
    os.mkfifo(flat)
    with pytest.raises(TransportUnusable, match="not a plain file"):
        opened(mount)


def test_a_missing_file_is_named(mount: Path) -> None:
    """With the datastore's name for it and the folder that was searched."""
    (mount / "web" / "web_0-flat.vmdk").unlink()
    with pytest.raises(
        TransportUnusable, match=r"\[ds1\] web/web_0-flat.vmdk below .*No such file"
    ):
        opened(mount)


def test_a_file_cut_short_while_it_is_read_is_an_error(mount: Path) -> None:
    """Zeros for what is missing would be a wrong backup."""
    disk = some_disk(disk_uuid="")
    machine = FrozenMachine(some_machine(), "snapshot-1", (disk,))
    source = DatastoreTransport({"ds1": mount}).prepare(machine).open(disk)
    os.truncate(mount / "web" / "web_0-flat.vmdk", 8192)
    with pytest.raises(SourceShrank, match=r"\[ds1\] web/web_0.vmdk.* ended at offset 8192"):
        source.read_into(4096, memoryview(bytearray(8192)))
    source.close()


def test_a_disk_at_the_datastores_top_is_found(mount: Path) -> None:
    """Its flat file lies beside it, in no folder."""
    (mount / "web" / "web_0.vmdk").rename(mount / "top.vmdk")
    (mount / "web" / "web_0-flat.vmdk").rename(mount / "web_0-flat.vmdk")
    expected = (mount / "web_0-flat.vmdk").read_bytes()
    assert opened(mount, some_disk(disk_uuid="", file="[ds1] top.vmdk")) == expected
