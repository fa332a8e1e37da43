"""The qemu-nbd behind a qcow2 target: it may die, and it may not stay."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from backpoint_repo.errors import SourceError, TargetError
from backpoint_repo.source.qemu_nbd_child import QemuNbdChild
from backpoint_repo.target.nbd_writer import NbdWriter
from backpoint_repo.target.qcow2_target import Qcow2Target

MIB = 1 << 20


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where private folders are made, to see that none stays."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def children_of(folder: Path) -> list[int]:
    """qemu-nbd processes that serve a socket under `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"qemu-nbd\0" in command and bytes(folder) in command:
            found.append(int(process.name))
    return found


def test_finish_leaves_only_the_image(tmp_path: Path, private: Path) -> None:
    target = Qcow2Target(tmp_path / "disk", 10 * MIB)
    assert len(children_of(private)) == 1
    target.write_at(5 * MIB, b"x" * 40 * 1000)
    target.finish()
    target.abandon()
    assert children_of(private) == []
    assert list(private.iterdir()) == []
    assert sorted(tmp_path.iterdir()) == [tmp_path / "disk", private]
    subprocess.run(["qemu-img", "check", "-q", tmp_path / "disk"], check=True)


def test_size_is_rounded_up_to_sectors(tmp_path: Path) -> None:
    target = Qcow2Target(tmp_path / "disk", 4097)
    target.write_at(4096, b"!")
    target.finish()
    convert = ["qemu-img", "convert", "-O", "raw"]
    subprocess.run([*convert, tmp_path / "disk", tmp_path / "raw"], check=True)
    assert (tmp_path / "raw").read_bytes() == bytes(4096) + b"!" + bytes(511)


@pytest.mark.parametrize("when", ["write", "finish"])
def test_killed(tmp_path: Path, private: Path, when: str) -> None:
    target = Qcow2Target(tmp_path / "disk", 10 * MIB)
    target.write_at(0, b"x" * MIB)
    (child,) = children_of(private)
    os.kill(child, signal.SIGKILL)
    with pytest.raises(TargetError, match=r"/disk'.*qemu-nbd ended with code -9"):
        target.write_at(MIB, b"y" * MIB) if when == "write" else target.finish()
    target.abandon()
    assert list(private.iterdir()) == []
    assert list(tmp_path.iterdir()) == [private]


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match="install the Debian package qemu-utils"):
        Qcow2Target(place / "disk", MIB)
    assert list(place.iterdir()) == []


def test_writer_refuses_a_read_only_export(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(MIB))
    node = {"driver": "raw", "file": {"driver": "file", "filename": str(image)}}
    with (
        closing(QemuNbdChild("disk", str(tmp_path), node, ["--read-only"])) as child,
        pytest.raises(SourceError, match="cannot be written and flushed"),
    ):
        child.first_connection(lambda: NbdWriter(child.address, "disk", 5))


def test_write_past_the_end_costs_no_connection(tmp_path: Path) -> None:
    """The server's refusal is told, and the stream stays in step."""
    image = tmp_path / "image"
    image.write_bytes(bytes(MIB))
    node = {"driver": "raw", "file": {"driver": "file", "filename": str(image)}}
    with closing(QemuNbdChild("disk", str(tmp_path), node, [])) as child:
        writer = child.first_connection(lambda: NbdWriter(child.address, "disk", 5))
        with closing(writer):
            with pytest.raises(SourceError, match=rf"write of 2 bytes at offset {MIB - 1} failed"):
                writer.write_at(MIB - 1, b"ab")
            writer.write_at(MIB - 2, b"ab")
            writer.flush()
    assert image.read_bytes() == bytes(MIB - 2) + b"ab"
