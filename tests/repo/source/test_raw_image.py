"""Raw disks: real block devices, odd sizes, and paths that are no disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backpoint_repo.errors import SourceError, SourceShrank
from backpoint_repo.source.contract import Extent
from backpoint_repo.source.detect import open_image
from backpoint_repo.source.raw_image import RawImage


def qcow2_lookalike(size: int) -> bytes:
    """A raw disk whose guest wrote a qcow2 header that names a file of the host."""
    header = b"QFI\xfb" + bytes([0, 0, 0, 2]) + (72).to_bytes(8, "big") + (11).to_bytes(4, "big")
    return (header.ljust(72, b"\0") + b"/etc/shadow").ljust(size, b"\0")


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    content = qcow2_lookalike(1 << 20)
    backing = tmp_path / "loop.img"
    backing.write_bytes(content)
    attach = ["losetup", "--find", "--show", "--read-only", str(backing)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    yield device, content
    subprocess.run(["losetup", "--detach", device], check=True)


def test_block_device_is_raw_whatever_it_holds(loop_device: tuple[str, bytes]) -> None:
    device, content = loop_device
    with closing(open_image(device)) as source:
        assert isinstance(source, RawImage)
        assert source.size == len(content)
        assert list(source.extents(0, source.size)) == [Extent(0, len(content), hole=False)]
        data = bytearray(len(content))
        source.read_into(0, memoryview(data))
        assert bytes(data) == content
        with pytest.raises(SourceShrank):
            source.read_into(len(content) - 1, memoryview(bytearray(2)))


@pytest.mark.parametrize("size", [0, 1, 511, 513, 70_001])
def test_odd_sizes(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "disk"
    path.write_bytes(content)
    with closing(open_image(path)) as source:
        assert source.size == size
        assert sum(extent.length for extent in source.extents(0, size)) == size
        data = bytearray(size)
        source.read_into(0, memoryview(data))
        assert bytes(data) == content
        tail = bytearray(min(size, 7))
        source.read_into(size - len(tail), memoryview(tail))
        assert bytes(tail) == content[size - len(tail) :]


def test_no_disks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    cases = {
        tmp_path: "is neither a regular file nor a block device",
        tmp_path / "fifo": "is neither a regular file nor a block device",
        Path("/dev/null"): "is neither a regular file nor a block device",
        tmp_path / "missing": "No such file or directory",
        tmp_path / "two\nlines": "No such file or directory",
        tmp_path / "loop": "Too many levels of symbolic links",
        tmp_path / "zero\0byte": "embedded null byte",
    }
    for path, reason in cases.items():
        with pytest.raises(SourceError, match=reason) as caught:
            open_image(path)
        assert "\n" not in str(caught.value)


def test_unreadable_file(tmp_path: Path) -> None:
    """Root reads everything, so somebody else has to try."""
    path = tmp_path / "disk"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for folder in tmp_path.parents:
                if folder.stat().st_uid == 0 and folder.name.startswith("pytest-"):
                    folder.chmod(0o755)
            tmp_path.chmod(0o755)
            os.setresuid(65534, 65534, 65534)
            RawImage(path)
        except SourceError as error:
            status = 0 if "Permission denied" in str(error) else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_bad_sector(loop_device: tuple[str, bytes], tmp_path: Path) -> None:
    """The kernel's I/O error arrives with the device, the offset and the reason."""
    device, content = loop_device
    os.truncate(tmp_path / "loop.img", len(content) // 2)
    with closing(RawImage(device)) as source, pytest.raises(SourceError) as caught:
        source.read_into(len(content) - 4096, memoryview(bytearray(4096)))
    offset = len(content) - 4096
    assert str(caught.value) == f"cannot read {device!r} at offset {offset}: Input/output error"
