"""A parser process that dies, hangs or lies costs one request, and never the one who asked."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import FileId, GuestDamaged, GuestError
from backpoint_fusefs.guest.guest_volume import GuestVolume
from backpoint_fusefs.guest.volume import Piece, Volume
from backpoint_fusefs.guest.volume_reader import VolumeReader
from backpoint_fusefs.guest.worker.frames import FRAME_MAX, FrameKind, FrameSocket, PeerGone
from backpoint_fusefs.guest.worker.parser_process import (
    Allowance,
    ParserDied,
    ParserProcess,
)
from backpoint_repo.errors import StoreUnavailable
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage

_FILE = FileId(0, 2)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parser") / "disk"
    make_image(path, "ext4", 32 << 20)
    with mounted_image(path, "ext4") as root:
        (root / "file").write_bytes(b"content")
        (root / "large").write_bytes(bytes(range(256)) * (4 << 12))
    return path


@pytest.fixture
def image(disk: Path) -> Iterator[FileImage]:
    image = FileImage(disk)
    yield image
    image.close()


@pytest.fixture
def process(image: FileImage) -> Iterator[ParserProcess]:
    process = ParserProcess("ext", [image])
    yield process
    process.end()


def test_a_process_answers_from_the_image_alone(process: ParserProcess) -> None:
    """It finds a file by its name, and reads it."""
    root, _, _ = process.ask("opened")
    found = process.ask("lookup", *root, b"file")
    assert process.ask("read", *found[:2], 0, 100) == b"content"


def test_a_killed_process_says_so(process: ParserProcess) -> None:
    """The request fails with the signal's number, and there is no process any more."""
    os.kill(process.pid, signal.SIGSEGV)
    with pytest.raises(ParserDied, match=r"died at 'opened' \(signal 11\)"):
        process.ask("opened")
    assert not process.alive


def test_a_hanging_process_is_ended(image: FileImage) -> None:
    """One that does not answer within its time is killed."""
    process = ParserProcess("ext", [image], allowance=Allowance(silence_s=3.0))
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(ParserDied, match="more than it may"):
        process.ask("opened")
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_process_that_reads_without_end_is_ended(image: FileImage) -> None:
    """What a request may read is limited."""
    with pytest.raises(ParserDied, match="more than it may"):
        ParserProcess("ext", [image], allowance=Allowance(bytes_read=100))


class _Failing(FileImage):
    failing = False

    def read(self, offset: int, length: int) -> bytes:
        if self.failing:
            raise StoreUnavailable("the store is gone")
        return super().read(offset, length)


def test_a_fault_of_the_repository_stays_one(disk: Path) -> None:
    """Bytes that cannot be had are not the guest's damage; the process lives on."""
    image = _Failing(disk)
    process = ParserProcess("ext", [image])
    try:
        root, _, _ = process.ask("opened")
        large = process.ask("lookup", *root, b"large")[:2]
        image.failing = True
        with pytest.raises(StoreUnavailable, match="the store is gone"):
            process.ask("read", *large, 1 << 20, 1000)
        image.failing = False
        assert process.ask("read", *large, 1 << 20, 4) == bytes(range(4))
    finally:
        process.end()
        image.close()


def test_no_filesystem_is_an_error_with_a_reason(tmp_path: Path) -> None:
    """Zeros are refused by the parser, not by a crash."""
    (tmp_path / "zeros").write_bytes(bytes(1 << 20))
    image = FileImage(tmp_path / "zeros")
    with pytest.raises(GuestError):
        ParserProcess("ext", [image])
    image.close()


class _Dying:
    """Starts a process and kills it, as often as it is asked to."""

    def __init__(self, number: signal.Signals) -> None:
        self.started = 0
        self._signal = number

    def __call__(self, volume: Volume, reader: VolumeReader) -> ParserProcess:
        self.started += 1
        process = ParserProcess("ext", [_DISKS[volume.name]])
        os.kill(process.pid, self._signal)
        return process


_DISKS: dict[str, FileImage] = {}


def test_what_crashed_a_process_is_not_tried_again(image: FileImage) -> None:
    """The same request fails at once; another one gets a new process."""
    start = _Dying(signal.SIGSEGV)
    guest = _on(image, start)
    for _ in range(3):
        with pytest.raises(ParserDied, match="signal 11"):
            guest.root()
    assert start.started == 1
    with pytest.raises(ParserDied):
        guest.default_subvolume()
    assert start.started == 2


def test_what_somebody_killed_is_tried_once_more(image: FileImage) -> None:
    """The kernel short of memory, say; twice in a row it is not tried again."""
    start = _Dying(signal.SIGKILL)
    guest = _on(image, start)
    for _ in range(2):
        with pytest.raises(ParserDied, match="signal 9"):
            guest.root()
        assert start.started == 2


def _on(image: FileImage, start: _Dying) -> GuestVolume:
    volume = Volume("disk0", image.size, (Piece(0, image.size, image.size, ((0, 0),)),), "ext")
    _DISKS["disk0"] = image
    return GuestVolume(volume, VolumeReader(volume, ()), start)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        (),
        (1, 2, 3),
        (0, 2, 0o100644, 1, 0, 0, 1, 0, 0, 0, 0, b""),
        (0, 0, 0o100644, 1, 0, 0, 1, 0, 0, 0, 0, 0),
        (0, 1 << 39, 0o100644, 1, 0, 0, 1, 0, 0, 0, 0, 0),
        (0, 2, 0o100644, 1, 0, 0, -1, 0, 0, 0, 0, 0),
        (0, 2, 0o100644, 1, 0, 0, 1 << 63, 0, 0, 0, 0, 0),
        (0, 2, 1 << 40, 1, 0, 0, 1, 0, 0, 0, 0, 0),
        (0, 2, 0o100644, 1 << 40, 0, 0, 1, 0, 0, 0, 0, 0),
        (0, 2, 0o100644, 1, 0, 0, 1, 0, (1, 2, 3), 0, 0, 0),
        (0, 2, 0o100644, 1, 0, 0, 1, 0, (1 << 63, 0), 0, 0, 0),
    ],
)
def test_an_impossible_stat_is_damage(answer: object) -> None:
    """Whatever a process says of a file is checked before the kernel hears of it."""
    guest = _saying(answer)
    with pytest.raises(GuestDamaged):
        guest.stat(_FILE)


def test_a_time_beyond_64_bits_arrives() -> None:
    """As seconds and nanoseconds: FILETIME begins in 1601, and btrfs ends after the stars."""
    first = -11644473600
    sent = (0, 2, 0o100644, 1, 0, 0, 1, 0, 5, (first, 7), 5, 0)
    assert _saying(sent).stat(_FILE).mtime_ns == first * 10**9 + 7


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"x" * 1025])
def test_an_impossible_name_is_not_shown(name: bytes) -> None:
    """A listing leaves out what no kernel would take, and nothing else."""
    good = (b"good", ((0, 5), None))
    page = _saying((False, ((name, ((0, 4), None)), good))).page(_FILE, 0)
    assert [line.name for line in page.lines] == [b"good"]


def test_frames_refuse_what_is_too_long() -> None:
    """A length beyond the limit ends the conversation before any memory is taken."""
    one, other = socket.socketpair()
    with one, other:
        one.sendall(struct.pack(">BI", FrameKind.DATA, FRAME_MAX + 1))
        with pytest.raises(PeerGone):
            FrameSocket(other).receive()


class _Saying:
    """A process that gives the same answer to everything."""

    alive = True

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def ask(self, name: str, *arguments: object) -> object:
        return self._answer


def _saying(answer: object) -> GuestVolume:
    volume = Volume("disk0", 1 << 20, (), "ext")
    process = _Saying(answer)
    return GuestVolume(volume, VolumeReader(volume, ()), lambda *_: process)  # type: ignore[arg-type]
