"""A stored disk comes back the same in every format, or not at all."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import (
    BackpointError,
    ObjectDamaged,
    OwnerKeyNeeded,
    TargetError,
    UsageError,
)
from backpoint_repo.format import LEAF_SIZE, Kind, object_key
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.restore import restore_disk
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.local import LocalStore
from backpoint_repo.target.choose import FORMATS
from small_repository import as_agent, assert_clean, back_up, new_repository, reopened

MIB = 1 << 20
IDENTITY = b"a point's id, disk 0"
FILES = {"raw": ["out"], "vmdk": ["out.vmdk", "out-flat.vmdk"], "qcow2": ["out.qcow2"]}


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Repository]:
    """A repository in a real folder; whatever a test does, it ends whole."""
    repository = new_repository(LocalStore(tmp_path / "store"))
    yield repository
    assert_clean(repository)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "restored"
    folder.mkdir()
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted filesystem of 8 MiB that nothing else uses."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def make_image(path: Path, size: int, *data: tuple[int, int]) -> Path:
    """A sparse file with random bytes at each (offset, length)."""
    random_bytes = random.Random(size).randbytes
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in data:
            file.seek(offset)
            file.write(random_bytes(length))
    return path


def store_image(repository: Repository, image: Path) -> Point:
    source = RawImage(image)
    try:
        return back_up(repository, "web01", source)
    finally:
        source.close()


def open_stored(repository: Repository, point: Point) -> ImageReader:
    return reopened(repository).open_disk(point.disks[0], ChunkCache(32 * MIB))


def restore(reader: ImageReader, folder: Path, format_name: str) -> list[int]:
    """What was reported, step by step."""
    steps: list[int] = []
    out = folder / FILES[format_name][0]
    restore_disk(reader, out, format_name, IDENTITY, steps.append)
    return steps


def assert_same(image: Path, folder: Path, format_name: str) -> None:
    """Exactly the expected files, and in them exactly the disk."""
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES[format_name])
    if format_name != "qcow2":
        subprocess.run(["cmp", image, folder / FILES[format_name][-1]], check=True)
    compare = ["qemu-img", "compare", "-f", "raw", "-F", format_name]
    subprocess.run([*compare, image, folder / FILES[format_name][0]], check=True)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("size", [0, 1, 511, 512, 4097, 3 * MIB + 513])
def test_every_size(
    stored: Repository, tmp_path: Path, folder: Path, size: int, format_name: str
) -> None:
    image = make_image(tmp_path / "image", size, (0, size))
    steps = restore(open_stored(stored, store_image(stored, image)), folder, format_name)
    assert_same(image, folder, format_name)
    assert sum(steps) == size


@pytest.mark.parametrize("format_name", FORMATS)
def test_sparse_disk_of_many_leaves(
    stored: Repository, tmp_path: Path, folder: Path, format_name: str
) -> None:
    size = 5 * LEAF_SIZE + 12_345
    image = make_image(
        tmp_path / "image",
        size,
        (4096, 100_000),
        (LEAF_SIZE - 3 * MIB, 6 * MIB),
        (3 * LEAF_SIZE + 777, 1),
        (size - 1, 1),
    )
    steps = restore(open_stored(stored, store_image(stored, image)), folder, format_name)
    assert_same(image, folder, format_name)
    assert sum(steps) == size
    allocated = sum(file.stat().st_blocks * 512 for file in folder.iterdir())
    assert allocated < 7 * MIB, "holes must stay holes"


def test_all_zero_disk_of_a_tebibyte(stored: Repository, tmp_path: Path, folder: Path) -> None:
    image = make_image(tmp_path / "image", 1 << 40)
    steps = restore(open_stored(stored, store_image(stored, image)), folder, "raw")
    assert steps == [1 << 40]
    restored = (folder / "out").stat()
    assert (restored.st_size, restored.st_blocks) == (1 << 40, 0)


@pytest.mark.parametrize("format_name", FORMATS)
def test_strange_name(stored: Repository, tmp_path: Path, folder: Path, format_name: str) -> None:
    """Colons, commas and quotes mean much to qemu, and 255 bytes leave no room to add any."""
    image = make_image(tmp_path / "image", 70_000, (0, 70_000))
    reader = open_stored(stored, store_image(stored, image))
    inner = folder / "a:b,c"
    inner.mkdir()
    names = {"raw": "r" * 255, "vmdk": "json:{a,,b=ü%d '", "qcow2": "nbd:" + "q" * 251}
    out = inner / names[format_name]
    restore_disk(reader, out, format_name, IDENTITY, lambda _: None)
    flat = {"vmdk": out.with_name(out.name + "-flat.vmdk")}.get(format_name, out)
    assert set(inner.iterdir()) == {out, flat}
    # qemu could not be told these names, so it gets a better one.
    flat.rename(folder / "restored")
    real_format = "qcow2" if format_name == "qcow2" else "raw"
    compare = ["qemu-img", "compare", "-f", "raw", "-F", real_format]
    subprocess.run([*compare, image, folder / "restored"], check=True)


def test_bytes_that_are_no_text(stored: Repository, tmp_path: Path, folder: Path) -> None:
    image = make_image(tmp_path / "image", 5000, (0, 5000))
    reader = open_stored(stored, store_image(stored, image))
    name = os.fsdecode(b"disk\xff\n")
    restore_disk(reader, folder / name, "qcow2", IDENTITY, lambda _: None)
    with pytest.raises(UsageError, match="cannot refer to a file named"):
        restore_disk(reader, folder / name, "vmdk", IDENTITY, lambda _: None)
    assert [file.name for file in folder.iterdir()] == [name]


@pytest.mark.parametrize("format_name", FORMATS)
def test_existing_file_is_refused(
    stored: Repository, tmp_path: Path, folder: Path, format_name: str
) -> None:
    image = make_image(tmp_path / "image", 5000, (0, 5000))
    reader = open_stored(stored, store_image(stored, image))
    for name in FILES[format_name]:
        taken = folder / name
        for dangling in (False, True):
            if dangling:
                taken.symlink_to("gone")
            else:
                taken.write_bytes(b"mine")
            with pytest.raises(UsageError, match=rf"{name}' exists"):
                restore(reader, folder, format_name)
            assert list(folder.iterdir()) == [taken]
            taken.unlink()


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("which", [0, -1])
def test_name_taken_meanwhile(
    stored: Repository, tmp_path: Path, folder: Path, format_name: str, which: int
) -> None:
    image = make_image(tmp_path / "image", 5000, (0, 5000))
    reader = open_stored(stored, store_image(stored, image))
    out, taken = folder / FILES[format_name][0], folder / FILES[format_name][which]

    def take(length: int) -> None:
        taken.write_bytes(b"new")

    with pytest.raises(UsageError, match="exists"):
        restore_disk(reader, out, format_name, IDENTITY, take)
    assert list(folder.iterdir()) == [taken]
    assert taken.read_bytes() == b"new"


@pytest.mark.parametrize("format_name", FORMATS)
def test_no_such_folder(stored: Repository, tmp_path: Path, format_name: str) -> None:
    reader = open_stored(stored, store_image(stored, make_image(tmp_path / "image", 10)))
    with pytest.raises(UsageError, match=r"no folder .*/nowhere'"):
        restore(reader, tmp_path / "nowhere", format_name)


def test_unknown_format(stored: Repository, tmp_path: Path, folder: Path) -> None:
    reader = open_stored(stored, store_image(stored, make_image(tmp_path / "image", 10)))
    with pytest.raises(UsageError, match="'floppy'; there are raw, vmdk, qcow2"):
        restore_disk(reader, folder / "out", "floppy", IDENTITY, lambda _: None)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("format_name", FORMATS)
def test_disk_full(stored: Repository, tmp_path: Path, small_disk: Path, format_name: str) -> None:
    image = make_image(tmp_path / "image", 20 * MIB, (0, 20 * MIB))
    reader = open_stored(stored, store_image(stored, image))
    with pytest.raises(TargetError, match=r"offset .*No space left on device"):
        restore(reader, small_disk, format_name)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("format_name", FORMATS)
def test_agent_cannot_restore(
    stored: Repository, tmp_path: Path, folder: Path, format_name: str
) -> None:
    image = make_image(tmp_path / "image", MIB, (0, MIB))
    point = store_image(stored, image)
    reader = as_agent(stored).open_disk(point.disks[0], ChunkCache(MIB))
    with pytest.raises(OwnerKeyNeeded):
        restore(reader, folder, format_name)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("format_name", FORMATS)
def test_damaged_chunk_names_its_range(tmp_path: Path, folder: Path, format_name: str) -> None:
    repository = new_repository(LocalStore(tmp_path / "store"))
    image = make_image(tmp_path / "image", 2 * LEAF_SIZE, (LEAF_SIZE + 8 * MIB, 8 * MIB))
    point = store_image(repository, image)
    hurt = LEAF_SIZE + 13 * MIB
    _flip_bit_under(repository, point, hurt)
    with pytest.raises(ObjectDamaged) as caught:
        restore(open_stored(repository, point), folder, format_name)
    found = re.match(r"bytes (\d+) to (\d+) of the disk cannot be read: ", str(caught.value))
    assert found, caught.value
    start, end = int(found[1]), int(found[2])
    assert start <= hurt < end <= start + 4 * MIB
    assert list(folder.iterdir()) == []


def test_damaged_map_names_its_range(tmp_path: Path, folder: Path) -> None:
    root = tmp_path / "store"
    repository = new_repository(LocalStore(root))
    image = make_image(tmp_path / "image", 100_000, (0, 100_000))
    point = store_image(repository, image)
    for pack in (root / "nodes").rglob("*"):
        if pack.is_file():
            pack.write_bytes(bytes(pack.stat().st_size))
    with pytest.raises(BackpointError, match="bytes 0 to 100000 of the disk cannot be read: "):
        restore(open_stored(repository, point), folder, "raw")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("format_name", FORMATS)
def test_interrupted(stored: Repository, tmp_path: Path, folder: Path, format_name: str) -> None:
    image = make_image(tmp_path / "image", 64 * MIB, (0, 64 * MIB))
    reader = open_stored(stored, store_image(stored, image))

    def interrupt(length: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_disk(reader, folder / FILES[format_name][0], format_name, IDENTITY, interrupt)
    assert list(folder.iterdir()) == []


def _flip_bit_under(repository: Repository, point: Point, offset: int) -> None:
    """Damage the only copy of the chunk that holds this byte of the disk."""
    leaf = repository.disk_map(point.disks[0]).leaf(offset // LEAF_SIZE)
    block = offset % LEAF_SIZE // 4096
    entry = max(at for at, start in enumerate(leaf.starts_list) if start <= block)
    (place,) = repository.chunks.locate([leaf.ids[entry].tobytes()])
    assert place is not None
    store = repository.sealed.store
    key = object_key(Kind.DATA_PACK, place.pack.name.hex())
    data = bytearray(store.get(key))
    data[place.offset + place.length // 2] ^= 1
    store.delete(key)
    store.put(key, [data])
