"""Forged guests never harm the mount: they cost errors on themselves, and nothing else.

Parsers alone meet many more of them in `tests/guest/test_fuzz.py`; here are the processes, the
kernel and the repository around them. BACKPOINT_FUZZ=2000 is the slow matrix.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from backpoint_repo.source.detect import open_image
from guest_trees.fuzz import Fuzz
from guest_trees.fuzz_bases import BASES
from guest_trees.walk import walk_folder
from mounted_repository import MountedRepository
from small_repository import NOON, back_up

KINDS: Final = ("btrfs", "ext4-dirty", "fat32", "ntfs", "xfs")
IN_ONE_MACHINE: Final = 4
"""Disks, besides a sound one."""
MACHINES: Final = max(
    1, int(os.environ.get("BACKPOINT_FUZZ", "20")) // IN_ONE_MACHINE // len(KINDS)
)
_FILES_MAX: Final = 2_000
_PIECE: Final = 64 << 10


@pytest.mark.timeout(300 + 120 * MACHINES)
@pytest.mark.parametrize("kind", KINDS)
def test_forged_disks_do_not_harm_the_mount(
    checked_repository: MountedRepository, tmp_path: Path, kind: str
) -> None:
    """Whatever is looked at on them, the sound disk beside them stays as it is, and so do all."""
    base = tmp_path / "base"
    BASES[kind].make(base)
    fuzz = Fuzz(kind, base)
    for machine in range(MACHINES):
        disks = [tmp_path / f"disk{number}" for number in range(IN_ONE_MACHINE)]
        for number, disk in enumerate(disks):
            shutil.copyfile(base, disk)
            fuzz.mutation(machine * IN_ONE_MACHINE + number).apply(disk)
        _add_point(checked_repository, f"vm{machine}", base, *disks)
    checked_repository.mount()
    pid = checked_repository.pid
    for machine in range(MACHINES):
        guest = checked_repository.newest(f"vm{machine}") / "guest"
        sound = walk_folder(guest / "disk0")
        assert len(sound) > 10
        refused = sum(_touch_everything(guest / name) for name in os.listdir(guest))
        assert refused or MACHINES > 1, "no disk was forged at all"
        assert walk_folder(guest / "disk0") == sound
    assert checked_repository.pid == pid


def _add_point(repository: MountedRepository, vm: str, *disks: Path) -> None:
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(contextlib.closing(open_image(disk))) for disk in disks]
        back_up(repository.repository, vm, *sources, time=NOON)


def _touch_everything(top: Path) -> int:
    """Look at everything a program can look at; how often that was an error, or an explanation."""
    refused = 0
    for path in _bounded_walk(os.fsencode(top)):
        try:
            found = os.lstat(path)
            os.listxattr(path, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                os.readlink(path)
            if stat.S_ISREG(found.st_mode):
                refused += path.endswith(b"WHY.txt")
                with open(path, "rb", buffering=0) as file:
                    file.read(_PIECE)
                    file.seek(max(0, found.st_size // 2))
                    file.read(_PIECE)
        except OSError:
            refused += 1
    return refused


def _bounded_walk(top: bytes) -> Iterator[bytes]:
    """A forged folder may hold itself."""
    waiting, left = [top], _FILES_MAX
    while waiting and left:
        path = waiting.pop()
        left -= 1
        yield path
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.lstat(path).st_mode):
                waiting += [os.path.join(path, name) for name in os.listdir(path)][:left]
