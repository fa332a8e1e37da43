"""Every kind of image keeps the contract of `ImageSource`: same disk, same bytes, same holes."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpoint_repo.errors import SourceError, SourceShrank
from backpoint_repo.source.contract import Extent, ImageSource
from backpoint_repo.source.detect import open_image
from backpoint_repo.source.qemu_nbd import QemuImage
from backpoint_repo.source.raw_image import RawImage

MIB = 1 << 20
SIZE = 24 * MIB
DATA = [(0, 64 << 10), (4 * MIB + 4096, 3 * MIB), (SIZE - 8192, 8192)]

KINDS = {
    "raw": ("raw", ""),
    "qcow2": ("qcow2", ""),
    "qcow2-compressed": ("qcow2", ""),
    "qcow2-overlay": ("qcow2", ""),
    "vmdk-sparse": ("vmdk", "subformat=monolithicSparse"),
    "vmdk-stream": ("vmdk", "subformat=streamOptimized"),
    "vmdk-flat": ("vmdk", "subformat=monolithicFlat"),
    "vmdk-split": ("vmdk", "subformat=twoGbMaxExtentSparse"),
    "vmdk-child": ("vmdk", ""),
    "vhdx": ("vhdx", "subformat=dynamic"),
    "vdi": ("vdi", ""),
    "vpc-dynamic": ("vpc", "subformat=dynamic,force_size=on"),
    "vpc-fixed": ("vpc", "subformat=fixed,force_size=on"),
}


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def content() -> bytes:
    disk = bytearray(SIZE)
    for offset, length in DATA:
        disk[offset : offset + length] = random.Random(offset).randbytes(length)
    return bytes(disk)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> dict[str, Path]:
    """One image of each kind, all of the same disk."""
    folder = tmp_path_factory.mktemp("a,b:c=d é")
    raw = folder / "raw.img"
    with raw.open("wb") as file:
        file.truncate(SIZE)
        for offset, length in DATA:
            os.pwrite(file.fileno(), content[offset : offset + length], offset)
    paths = {"raw": raw}
    for kind, (format_name, options) in KINDS.items():
        if kind == "raw":
            continue
        path = paths[kind] = folder / f"{kind}.img"
        if kind in ("qcow2-overlay", "vmdk-child"):
            parent = {"qcow2-overlay": "qcow2.img", "vmdk-child": "vmdk-sparse.img"}[kind]
            create = ["create", "-f", format_name, "-b", parent, "-F", format_name]
            subprocess.run(
                ["qemu-img", *create, path.name], check=True, capture_output=True, cwd=folder
            )
            continue
        arguments = ["convert", "-f", "raw", "-O", format_name]
        arguments += ["-c"] if kind == "qcow2-compressed" else []
        arguments += ["-o", options] if options else []
        qemu_img(*arguments, raw, path)
    return paths


@pytest.fixture(params=KINDS)
def image(request: pytest.FixtureRequest, images: dict[str, Path]) -> Iterator[ImageSource]:
    with closing(open_image(images[request.param])) as source:
        yield source


def read(source: ImageSource, offset: int, length: int) -> bytes:
    data = bytearray(b"\xee" * length)
    source.read_into(offset, memoryview(data))
    return bytes(data)


def assert_covers(extents: list[Extent], offset: int, length: int) -> None:
    for extent in extents:
        assert extent.offset == offset
        assert extent.length > 0
        offset += extent.length
        length -= extent.length
    assert length == 0


def test_name_size_and_kind(images: dict[str, Path]) -> None:
    for kind, path in images.items():
        with closing(open_image(path)) as source:
            assert source.size == SIZE, kind
            assert source.name == str(path)
            assert isinstance(source, RawImage if kind == "raw" else QemuImage)


def test_content_equals(image: ImageSource, content: bytes) -> None:
    assert read(image, 0, SIZE) == content


def test_odd_ranges(image: ImageSource, content: bytes) -> None:
    for offset, length in [(1, 1), (511, 513), (65535, 70001), (SIZE - 1, 1), (SIZE - 777, 777)]:
        assert read(image, offset, length) == content[offset : offset + length]
    assert read(image, SIZE, 0) == b""


def test_extents_cover_and_promise(image: ImageSource, content: bytes) -> None:
    ranges = [(0, SIZE), (1, 1), (MIB + 1, 5 * MIB), (SIZE - 1, 1), (SIZE, 0), (100, 0)]
    for offset, length in ranges:
        extents = list(image.extents(offset, length))
        assert_covers(extents, offset, length)
        for extent in extents:
            if extent.hole:
                part = content[extent.offset : extent.offset + extent.length]
                assert part.count(0) == len(part)


# qemu's vhdx driver answers no block status: the whole disk is data, and its holes read as zeros.
@pytest.mark.parametrize("image", [kind for kind in KINDS if kind != "vhdx"], indirect=True)
def test_holes_are_told(image: ImageSource) -> None:
    """At least 12 of the 20 MiB nobody wrote; formats allocate up to 2 MiB at once."""
    holes = sum(extent.length for extent in image.extents(0, SIZE) if extent.hole)
    assert holes >= 12 * MIB


def test_eight_threads(image: ImageSource, content: bytes) -> None:
    generator = random.Random(8)
    ranges = []
    for _ in range(400):
        offset = generator.randrange(SIZE)
        ranges.append((offset, min(generator.choice([1, 4096, 300_000]), SIZE - offset)))
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda each: read(image, *each), ranges)
        for (offset, length), result in zip(ranges, results, strict=True):
            assert result == content[offset : offset + length]


def test_extents_while_reading(image: ImageSource, content: bytes) -> None:
    """A consumer reads each extent before it asks for the next one."""
    for extent in image.extents(0, SIZE):
        if not extent.hole:
            end = extent.offset + extent.length
            assert read(image, extent.offset, extent.length) == content[extent.offset : end]


def test_closed_source_refuses(images: dict[str, Path]) -> None:
    for path in images.values():
        source = open_image(path)
        source.close()
        source.close()
        with pytest.raises(SourceError):
            read(source, 0, 1)


def test_typed_buffer(image: ImageSource, content: bytes) -> None:
    """A buffer that counts in words is filled to its last byte."""
    buffer = memoryview(bytearray(4096)).cast("Q")
    image.read_into(0, buffer)
    assert buffer.tobytes() == content[:4096]


@pytest.mark.parametrize("kind", ["raw", "vmdk-flat"])
def test_shrunk_file(kind: str, images: dict[str, Path], tmp_path: Path) -> None:
    for path in images["raw"].parent.iterdir():
        if path.name.startswith(images[kind].stem):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    shrinking = tmp_path / images[kind].name
    with closing(RawImage(shrinking)) as source:
        os.truncate(shrinking, 100)
        with pytest.raises(SourceShrank, match=r"offset 100; it had \d+ bytes"):
            read(source, 0, source.size)


def test_shrunk_file_has_no_holes(tmp_path: Path) -> None:
    """Past its new end the kernel answers as it does for a hole; that must not pass for zeros."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(range(256)) * 1000)
    with closing(RawImage(path)) as source:
        os.truncate(path, 5000)
        with pytest.raises(SourceShrank, match="5000"):
            list(source.extents(0, source.size))
        with pytest.raises(SourceShrank, match="5000"):
            list(source.extents(100_000, 1000))


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.booleans(), st.integers(1, 40_000)), max_size=8),
    window=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_raw_extents(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[tuple[bool, int]],
    window: tuple[float, float],
) -> None:
    path = tmp_path_factory.mktemp("raw") / "disk"
    disk = b"".join((b"\xff" if data else b"\0") * length for data, length in pieces)
    with path.open("wb") as file:
        position = 0
        for data, length in pieces:
            if data:
                os.pwrite(file.fileno(), b"\xff" * length, position)
            position += length
        file.truncate(position)
    first, last = sorted(int(share * len(disk)) for share in window)
    with closing(RawImage(path)) as source:
        assert source.size == len(disk)
        extents = list(source.extents(first, last - first))
        assert_covers(extents, first, last - first)
        for extent in extents:
            if extent.hole:
                assert not any(disk[extent.offset : extent.offset + extent.length])
        assert read(source, first, last - first) == disk[first:last]
