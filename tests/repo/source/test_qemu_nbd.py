"""The qemu-nbd child: how it starts, dies, and takes nothing with it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from backpoint_repo.errors import SourceError, SourceShrank
from backpoint_repo.source.qemu_nbd import QemuImage

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    raw.write_bytes(os.urandom(16 * MIB))
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    return path


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
        if command.startswith(b"/usr/bin/qemu-nbd\0") and bytes(folder) in command:
            found.append(int(process.name))
    return found


def test_close_leaves_nothing(image: Path, temporary: Path) -> None:
    source = QemuImage(image, "qcow2")
    (private,) = temporary.iterdir()
    assert private.stat().st_mode & 0o777 == 0o700
    assert len(children_of(temporary)) == 1
    source.close()
    source.close()
    assert children_of(temporary) == []
    assert list(temporary.iterdir()) == []


def test_refused_image_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    broken = tmp_path / "broken.vhdx"
    broken.write_bytes(b"vhdxfile".ljust(4096, b"\0"))
    for _ in range(20):  # sometimes it accepts our connection before it gives up
        with pytest.raises(SourceError, match=r"qemu-nbd cannot open .*broken.vhdx.*Failed to"):
            QemuImage(broken, "vhdx")
    assert list(temporary.iterdir()) == []
    assert children_of(temporary) == []


def test_image_in_use(image: Path) -> None:
    """A running machine holds a write lock; its moving disk is not to be backed up."""
    edit = ["qemu-io", "-f", "qcow2", str(image)]
    with subprocess.Popen(edit, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as machine:
        assert machine.stdin is not None
        assert machine.stdout is not None
        machine.stdin.write(b"write 0 512\n")
        machine.stdin.flush()
        assert machine.stdout.read(6) != b""
        with pytest.raises(SourceError, match="lock"):
            QemuImage(image, "qcow2")


def test_killed_while_reading(image: Path, temporary: Path) -> None:
    with closing(QemuImage(image, "qcow2")) as source:
        (child,) = children_of(temporary)
        reading = threading.Barrier(5)
        caught: list[str] = []

        def read() -> None:
            buffer = memoryview(bytearray(16 * MIB))
            reading.wait()
            try:
                while True:
                    source.read_into(0, buffer)
            except SourceError as error:
                caught.append(str(error))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        reading.wait()
        os.kill(child, signal.SIGKILL)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert len(caught) == 4
        assert all("qemu-nbd ended with code -9" in message for message in caught)
        with pytest.raises(SourceError, match="ended with code -9"):
            list(source.extents(0, source.size))


def test_closed_while_reading(image: Path) -> None:
    source = QemuImage(image, "qcow2")
    reading = threading.Barrier(2)
    caught: list[SourceError] = []

    def read() -> None:
        buffer = memoryview(bytearray(16 * MIB))
        reading.wait()
        try:
            while True:
                source.read_into(0, buffer)
        except SourceError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait()
    source.close()
    thread.join(20)
    assert not thread.is_alive()
    assert len(caught) == 1


def test_child_dies_with_us(image: Path, tmp_path: Path) -> None:
    """SIGKILL gives us no chance to end the child: it has to notice by itself."""
    program = (
        "import signal, sys, tempfile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from backpoint_repo.source.qemu_nbd import QemuImage\n"
        f"source = QemuImage({str(image)!r}, 'qcow2')\n"
        "print('open', flush=True)\n"
        "signal.pause()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment
    ) as us:
        assert us.stdout is not None
        assert us.stdout.readline() == b"open\n"
        (child,) = children_of(tmp_path)
        exited = os.pidfd_open(child)
        us.kill()
    try:
        ready, _, _ = select.select([exited], [], [], 20)
        assert ready, "qemu-nbd outlived its parent"
    finally:
        os.close(exited)


def test_outlives_the_thread_that_opened_it(image: Path) -> None:
    opened: list[QemuImage] = []
    thread = threading.Thread(target=lambda: opened.append(QemuImage(image, "qcow2")))
    thread.start()
    thread.join()
    with closing(opened[0]) as source:
        source.read_into(0, memoryview(bytearray(4096)))


def test_not_installed(image: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="install the Debian package qemu-utils"):
        QemuImage(image, "qcow2")


def test_bad_cluster(tmp_path: Path) -> None:
    """qemu-nbd hangs up over a bad cluster; the error still tells where and why."""
    raw, image = tmp_path / "raw", tmp_path / "packed.qcow2"
    raw.write_bytes(b"".join(bytes([index]) * 7 + os.urandom(1) for index in range(256)) * 4096)
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", raw, image], check=True)
    with image.open("r+b") as file:
        file.seek(image.stat().st_size - 4096)
        file.write(b"\xff" * 4096)
    with closing(QemuImage(image, "qcow2")) as source:
        source.read_into(0, memoryview(bytearray(4096)))
        offset = source.size - 65536
        with pytest.raises(SourceError, match=rf"offset {offset} .*Input/output error"):
            source.read_into(offset, memoryview(bytearray(65536)))


def test_shrunk_image(image: Path) -> None:
    """qemu gives zeros for what is cut off; that must not pass for the disk's content."""
    with closing(QemuImage(image, "qcow2")) as source:
        source.read_into(0, memoryview(bytearray(4096)))
        os.truncate(image, 8 * MIB)
        with pytest.raises(SourceShrank, match=r"disk.qcow2' ended at offset 8388608; it had"):
            source.read_into(source.size - 4096, memoryview(bytearray(4096)))
        with pytest.raises(SourceShrank):
            list(source.extents(0, source.size))
