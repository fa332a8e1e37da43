"""streamOptimized VMDKs as they are sent: qemu reads them as the disk they were made of."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_agent.restoring.stream_writer import (
    GRAIN_SIZE,
    TABLE_COVERS,
    pack_grain,
    stream_vmdk,
)

MIB = 1 << 20


def disk(size: int, pieces: int) -> bytes:
    chance = random.Random(size)
    data = bytearray(size)
    for _ in range(pieces):
        at = chance.randrange(size)
        piece = chance.randbytes(min(70_000, size - at))
        data[at : at + len(piece)] = piece
    return bytes(data)


def grains(data: bytes) -> Iterator[tuple[int, bytes]]:
    for number, at in enumerate(range(0, len(data), GRAIN_SIZE)):
        yield number, pack_grain(number, data[at : at + GRAIN_SIZE])


def written(data: bytes, folder: Path) -> Path:
    path = folder / "disk.vmdk"
    path.write_bytes(b"".join(stream_vmdk(len(data), 0x1234, grains(data))))
    return path


def qemu_img(*words: str | Path) -> bytes:
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (512, 1),
        (GRAIN_SIZE, 1),
        (3 * GRAIN_SIZE + 512, 2),
        (TABLE_COVERS, 5),
        (TABLE_COVERS + 512, 5),
        (3 * TABLE_COVERS + MIB + 1536, 10),
    ],
)
def test_qemu_reads_what_was_written(size: int, pieces: int, tmp_path: Path) -> None:
    """Also a disk that ends within a grain, and one with tables that hold nothing."""
    data = disk(size, pieces)
    path = written(data, tmp_path)
    raw = tmp_path / "raw"
    qemu_img("convert", "-f", "vmdk", "-O", "raw", path, raw)
    assert raw.read_bytes() == data
    assert b"No errors" in qemu_img("check", "-f", "vmdk", path)


def test_an_empty_disk_is_a_header_and_an_end(tmp_path: Path) -> None:
    """Nothing is sent of what is zero, and it reads as zeros."""
    path = written(bytes(4 * TABLE_COVERS), tmp_path)
    assert path.stat().st_size < GRAIN_SIZE + 4096
    raw = tmp_path / "raw"
    qemu_img("convert", "-f", "vmdk", "-O", "raw", path, raw)
    assert raw.read_bytes() == bytes(4 * TABLE_COVERS)


def test_the_header_is_of_the_version_that_esxi_takes(tmp_path: Path) -> None:
    """Version 3, with markers and compression; the directory is announced at the end."""
    data = disk(MIB, 1)
    content = written(data, tmp_path).read_bytes()
    magic, version, flags, capacity = struct.unpack_from("<4sIIQ", content)
    assert (magic, version, flags, capacity) == (b"KDMV", 3, 0x30001, MIB // 512)
    assert struct.unpack_from("<Q", content, 56) == ((1 << 64) - 1,)
    (directory,) = struct.unpack_from("<Q", content, len(content) - 1024 + 56)
    assert directory * 512 < len(content)
    assert content[-512:] == bytes(512)


def test_a_grain_of_zeros_takes_nothing() -> None:
    """Also one at the disk's end."""
    assert pack_grain(7, bytes(GRAIN_SIZE)) == b""
    assert pack_grain(7, bytes(512)) == b""
