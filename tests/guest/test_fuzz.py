"""Parsers over forged images; and the harness that judges them: it sees whatever goes wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import (
    DirEntry,
    Extent,
    FileId,
    GuestDamaged,
    GuestFilesystem,
    Stat,
    VolumeFacts,
    VolumeImage,
)
from backpoint_fusefs.guest.parsers.open_filesystem import load_parser
from guest_trees.file_image import FileImage
from guest_trees.fuzz import Fuzz, blocks_of_interest, walk_in_child
from guest_trees.fuzz_bases import BASES
from guest_trees.mutations import BLOCK, MutatedImage, Mutation, mutate
from guest_trees.seals import seal

_SEEDS = range(10)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The sound image of a kind, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("bases")

    def base(kind: str) -> Path:
        path = folder / kind
        if not path.exists():
            BASES[kind].make(path)
        return path

    return base


@pytest.mark.parametrize("kind", sorted(BASES))
def test_a_parser_survives_forged_images(kind: str, bases: Callable[[str], Path]) -> None:
    """It may refuse, file by file; and on the sound image it refuses nothing."""
    fuzz = Fuzz(kind, bases(kind))
    sound = fuzz.sound()
    assert sound.outcome.startswith("clean"), sound
    found = {seed: fuzz.survives(seed) for seed in _SEEDS}
    assert not {seed: one for seed, one in found.items() if one.is_fault}
    assert any(one.outcome.startswith("refused") for one in found.values())


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_sealing_what_was_not_changed_changes_nothing(
    kind: str, bases: Callable[[str], Path]
) -> None:
    """So the checksums are where the real driver has them, and computed as it does."""
    with contextlib.closing(FileImage(bases(kind))) as image:
        for offset in _in_use(kind, bases(kind)):
            for at, patch in seal(partial(_block, image), image.read, offset).items():
                assert image.read(at, len(patch)) == patch, f"block {offset:#x}"


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_sealing_puts_right_what_was_changed(kind: str, bases: Callable[[str], Path]) -> None:
    """The checksums of blocks differ as soon as a byte does."""
    sealed = 0
    with contextlib.closing(FileImage(bases(kind))) as image:
        for offset in _in_use(kind, bases(kind)):
            changed = bytearray(image.read(offset, BLOCK))
            changed[300] ^= 1
            mutation = Mutation("a bit", ((offset, bytes(changed)),), image.size)
            forged = MutatedImage(image, mutation)
            patches = seal(partial(_block, forged), forged.read, offset)
            sealed += patches != dict(mutation.patches)
    assert sealed > 20


def _block(image: VolumeImage, offset: int) -> bytes:
    return image.read(offset, BLOCK)


def _in_use(kind: str, base: Path) -> list[int]:
    """Logs and freed blocks hold copies of metadata, whose checksums nobody keeps."""
    return blocks_of_interest(base, load_parser(BASES[kind].parser, streams=True))


def test_a_seed_does_the_same_again(bases: Callable[[str], Path], tmp_path: Path) -> None:
    whole = bases("fat12").read_bytes()
    path = tmp_path / "image"
    results = []
    for seed in (*range(30), *range(30)):
        path.write_bytes(whole)
        results.append((mutate(path, seed), path.read_bytes()))
    assert results[:30] == results[30:]
    assert all(content != whole for _, content in results[:30])
    assert len({content for _, content in results}) == 30


class _Fake:
    """A filesystem of one empty folder. The base of parsers that do one thing badly."""

    root = FileId(0, 2)
    facts = VolumeFacts()

    def __init__(self, image: VolumeImage) -> None:
        pass

    def stat(self, file: FileId) -> Stat:
        kind = 0o040755 if file == self.root else 0o100644
        return Stat(file.tree, file.ino, kind, 1, 0, 0, 0, 0, 0, 0, 0, 0)

    def stats(self, files: Sequence[FileId]) -> list[Stat | None]:
        return [self.stat(file) for file in files]

    def entries(self, folder: FileId) -> Iterable[DirEntry]:
        return []

    def readlink(self, file: FileId) -> bytes:
        return b""

    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        return {}

    def extents(self, file: FileId) -> Iterable[Extent]:
        return []

    def read(self, file: FileId, offset: int, length: int) -> bytes:
        return b""

    def subvolumes(self) -> Mapping[bytes, FileId]:
        return {}


class _Crashes(_Fake):
    def entries(self, folder: FileId) -> Iterable[DirEntry]:
        os.kill(os.getpid(), signal.SIGSEGV)
        return []


class _Loops(_Fake):
    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        while True:
            pass


class _Sleeps(_Fake):
    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        time.sleep(3600)
        return {}


class _Slow(_Fake):
    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        while time.process_time() < 2.5:
            pass
        return {}


class _Eats(_Fake):
    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        return {b"user.large": bytes(2 << 30)}


class _Endless(_Fake):
    def entries(self, folder: FileId) -> Iterator[DirEntry]:
        while True:
            yield DirEntry(b"again", FileId(0, 3))


class _Stumbles(_Fake):
    def entries(self, folder: FileId) -> Iterable[DirEntry]:
        raise KeyError("x")


class _Refuses(_Fake):
    def entries(self, folder: FileId) -> Iterable[DirEntry]:
        raise GuestDamaged("a folder's block is not one")


class _Overflows(_Fake):
    def stat(self, file: FileId) -> Stat:
        return super().stat(file)._replace(mtime_ns=1 << 64)


class _NamesBadly(_Fake):
    def entries(self, folder: FileId) -> Iterable[DirEntry]:
        return [DirEntry(b"..", FileId(0, 3))]


class _ReadsShort(_Fake):
    def stat(self, file: FileId) -> Stat:
        return super().stat(file)._replace(size=0 if file == self.root else 10)

    def entries(self, folder: FileId) -> Iterable[DirEntry]:
        return [DirEntry(b"file", FileId(0, 3))]

    def extents(self, file: FileId) -> Iterable[Extent]:
        return [Extent(0, 10, 0)]


class _HasNoRoot(_Fake):
    def stat(self, file: FileId) -> Stat:
        return super().stat(file)._replace(mode=0o100644)


@pytest.mark.parametrize(
    ("fake", "outcome", "is_fault"),
    [
        (_Fake, "clean: 1 files", False),
        (_Refuses, "refused: 1 of 1 files: entries: a folder's block is not one", False),
        (_Crashes, f"crashed signal {signal.SIGSEGV.value}: ", True),
        (_Loops, "timed out: ", True),
        (_Sleeps, "timed out: ", True),
        (_Slow, "slow: 1 of 1 files: xattrs took 2", True),
        (_Eats, "out of memory", True),
        (_Endless, "broken promise: 1 of 2 files: a folder of more than", True),
        (_Stumbles, "defect: 1 of 1 files: entries: KeyError in test_fuzz.py:", True),
        (_Overflows, "odd: 1 of 1 files: more than 64 bits", False),
        (_HasNoRoot, "odd: 1 of 1 files: the root is no folder", False),
        (_NamesBadly, "broken promise: 1 of 2 files: an impossible name: b'..'", True),
        (_ReadsShort, "broken promise: 2 of 2 files: 0 bytes read at 0", True),
    ],
)
def test_what_a_parser_does_is_seen(
    fake: Callable[[VolumeImage], GuestFilesystem], outcome: str, is_fault: bool, tmp_path: Path
) -> None:
    base = tmp_path / "image"
    base.write_bytes(bytes(BLOCK))
    nothing = Mutation("nothing", (), BLOCK)
    # The clock's limit is for what only waits: the others end by themselves.
    clock_s = 1 if fake is _Sleeps else 60
    found = walk_in_child(base, nothing, fake, clock_s, cpu_max_s=1 if fake is _Loops else 20)
    assert found.outcome.startswith(outcome)
    assert found.is_fault == is_fault


def test_what_hangs_is_named(tmp_path: Path) -> None:
    base = tmp_path / "image"
    base.write_bytes(bytes(BLOCK))
    found = walk_in_child(base, Mutation("nothing", (), BLOCK), _Loops, 60, cpu_max_s=1)
    assert "in xattrs" in found.outcome
