"""A session's disk on a real filesystem that runs full, and on a disk that fails."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_fusefs.live.overlay.block_set import BLOCK
from backpoint_fusefs.live.overlay.overlay_disk import OverlayDisk
from fusefs.live.overlay_bases import BytesBase, numbered
from fusefs.live.overlay_model import DiskModel

_SIZE = 1024 * BLOCK
_TINY = ("mount", "-t", "tmpfs", "-o", "size=3m", "none")


@contextlib.contextmanager
def _tmpfs(place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run([*_TINY, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextlib.contextmanager
def _ext4(image: Path, place: Path, size: int) -> Iterator[Path]:
    """Without a journal, so that only data can fail."""
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        # What was raised has frames that have files open.
        gc.collect()
        subprocess.run(["umount", place], check=True)


@pytest.fixture(params=["tmpfs", "ext4"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Room for less than the disk."""
    if request.param == "tmpfs":
        with _tmpfs(tmp_path / "small") as place:
            yield place
    else:
        with _ext4(tmp_path / "image", tmp_path / "small", 4 << 20) as place:
            yield place


class _Ballast:
    """A file that takes what room there is left."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ballast"

    def take(self) -> None:
        with self._path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(BLOCK))

    def give_back(self) -> None:
        self._path.unlink(missing_ok=True)


def test_a_full_filesystem_costs_only_what_did_not_fit(small: Path) -> None:
    """Writes, trims, sizes, syncs and cuts while room comes and goes, at random: what does not fit
    says ENOSPC, the rest stays; with room again all goes on, also after opening it again."""
    for seed in range(6):
        chance = random.Random(seed)
        base = BytesBase(numbered(_SIZE))
        folder, ballast = small / f"{seed}", _Ballast(small)
        disk, model = OverlayDisk(folder, base), DiskModel(base.content)
        refused = _work_while_room_comes_and_goes(disk, model, ballast, chance)
        assert refused > 5
        ballast.give_back()
        disk.zero(0, _SIZE // 2)
        model.zero(0, _SIZE // 2)
        disk.write(5, b"there is room again")
        model.write(5, b"there is room again")
        disk.sync()
        model.synced()
        disk.close()
        disk = OverlayDisk(folder, base)
        model.found(bytes(disk.read(0, 2 * _SIZE)))
        disk.close()
        for path in folder.iterdir():
            path.unlink()


def _work_while_room_comes_and_goes(
    disk: OverlayDisk, model: DiskModel, ballast: _Ballast, chance: random.Random
) -> int:
    """How often something did not fit."""
    refused = cut = 0
    for step in range(150):
        if chance.random() < 0.25:
            chance.choice([ballast.take, ballast.give_back])()
        at, length = chance.randrange(_SIZE - 1), chance.choice([1, BLOCK, 40 * BLOCK])
        length = min(length, _SIZE - at)
        text = (f"write {step:6d} ".encode() * (length // 13 + 1))[:length]
        what = chance.choice(["write", "write", "write", "zero", "sync", "sync", "resize", "cut"])
        try:
            if what == "write":
                model.write(at, text)
                disk.write(at, text)
            elif what == "zero":
                model.zero(at, length)
                disk.zero(at, length)
            elif what == "resize":
                model.resize(at)
                disk.resize(at)
                model.resized()
            else:
                cut += what == "cut"
                disk.cut(cut) if what == "cut" else disk.sync()
                model.synced()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            refused += 1
            model.failed(bytes(disk.read(0, 2 * _SIZE)))
        assert bytes(disk.read(0, 2 * _SIZE)) == model.content
    return refused


def test_what_a_full_filesystem_refuses_leaves_what_was_synced(small: Path) -> None:
    """Opened again while it is still full, after a crash in the middle of that."""
    base, ballast = BytesBase(numbered(_SIZE)), _Ballast(small)
    disk = OverlayDisk(small / "0", base)
    for number in range(30):
        disk.write(number * 5 * BLOCK, bytes([number + 1]) * BLOCK)
        disk.sync()
    ballast.take()
    with pytest.raises(OSError, match="No space") as raised:
        disk.write(0, bytes(_SIZE))
    assert raised.value.errno == errno.ENOSPC
    disk.close()
    disk = OverlayDisk(small / "0", base)
    for number in range(1, 30):
        assert disk.read(number * 5 * BLOCK, 1) == bytes([number + 1])
    disk.write(BLOCK * 5, b"held blocks can be written still")
    disk.sync()
    disk.close()


def test_a_failed_flush_is_never_called_a_success_later(tmp_path: Path) -> None:
    """The disk below loses writes: a sync says so, and all after it, until the disk is opened
    again; then it has what was synced before."""
    with (
        _tmpfs(tmp_path / "below") as below,
        _ext4(below / "image", tmp_path / "above", 64 << 20) as above,
    ):
        _lose_writes(above, _Ballast(below))


def _lose_writes(above: Path, ballast: _Ballast) -> None:
    base = BytesBase(numbered(_SIZE))
    disk = OverlayDisk(above / "0", base)
    disk.write(0, b"synced" * 1000)
    disk.sync()
    subprocess.run(["sync", "-f", above], check=True)
    ballast.take()
    disk.write(100 * BLOCK, b"x" * 600 * BLOCK)
    for _ in range(3):
        with pytest.raises(OSError, match=r"error|space|lost") as raised:
            disk.sync()
        assert raised.value.errno in (errno.EIO, errno.ENOSPC)
    ballast.give_back()
    for call in (disk.sync, lambda: disk.write(0, b"more")):
        with pytest.raises(OSError, match="open the session anew"):
            call()
    disk.close()
    disk = OverlayDisk(above / "0", base)
    assert disk.read(0, 6000) == b"synced" * 1000
    disk.write(100 * BLOCK, b"y" * 100 * BLOCK)
    disk.sync()
    disk.close()


def test_what_is_not_in_memory_is_not_read_on_the_event_loop(tmp_path: Path) -> None:
    """`read_cached` of data that the page cache has not: None, until somebody has read it."""
    with _ext4(tmp_path / "image", tmp_path / "small", 16 << 20) as small:
        disk = OverlayDisk(small / "0", BytesBase(numbered(_SIZE)))
        disk.write(0, b"x" * 100 * BLOCK)
        assert disk.read_cached(10 * BLOCK, BLOCK) == b"x" * BLOCK
        disk.sync()
        descriptor = os.open(small / "0" / "1.data", os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        assert disk.read_cached(10 * BLOCK, BLOCK) is None
        assert disk.read(10 * BLOCK, BLOCK) == b"x" * BLOCK
        assert disk.read_cached(10 * BLOCK, BLOCK) == b"x" * BLOCK
        disk.close()
