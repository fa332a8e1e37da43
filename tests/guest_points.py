"""Restore points of a machine whose files are known, for tests of what reads them.

Decides the machine: three disks, the awkward cases of ext4 on the first, a second volume mounted at
/data, swap on the third. The oracle is the kernel's mount of the same disks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from backpoint_repo.cli import main
from backpoint_repo.source.raw_image import RawImage
from command_line import CommandLine, Said, make_repository, opened
from guest_disks.tool import run
from guest_trees.awkward import fill
from guest_trees.disks import abilities_of, make_image, mounted_image, without_big_files
from small_repository import assert_clean, back_up

SYSTEM_UUID: Final = "5b6f1f60-0d1c-4a6e-9a3b-5d2a54a0c001"
DATA_UUID: Final = "5b6f1f60-0d1c-4a6e-9a3b-5d2a54a0c002"
_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Machine:
    """owner, agent: commands on the repository. disks: the machine's, which tests may change."""

    owner: CommandLine
    agent: CommandLine
    disks: tuple[Path, Path, Path]

    def back_up(self, vm: str = "web", *, disks: int = 3) -> None:
        """A point of its first disks, now the newest of the VM."""
        back_up(opened(self.owner), vm, *map(RawImage, self.disks[:disks]))

    @contextlib.contextmanager
    def mounted(self, *, read_only: bool = True) -> Iterator[Path]:
        """Its files as the kernel shows them, /data included."""
        system, data = (mounted_image(disk, "ext4", read_only=read_only) for disk in self.disks[:2])
        with system as root, data as below:
            run("mount", "--bind", below, root / "data")
            try:
                yield root
            finally:
                run("umount", root / "data")

    def assert_clean(self) -> None:
        assert_clean(opened(self.owner))


def run_here(
    line: CommandLine, capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0
) -> Said:
    """As `line.run`, in this process: half a second less, for what need not be an own one."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in line.variables.items():
            patched.setenv(name, value)
        ended = main([str(word) for word in words])
    said = Said(ended, *capsys.readouterr())
    assert said.code == code, said
    return said


def make_machine(folder: Path) -> Machine:
    """No point yet."""
    owner, agent = make_repository(folder, folder / "repo")
    system, data, swap = (folder / name for name in ("system.raw", "data.raw", "swap.raw"))
    make_image(system, "ext4", 160 * _MIB, ("-U", SYSTEM_UUID, "-L", "system"))
    make_image(data, "ext4", 24 * _MIB, ("-U", DATA_UUID, "-L", "data"))
    with swap.open("xb") as file:
        file.truncate(4 * _MIB)
    run("mkswap", "-q", swap)
    machine = Machine(owner, agent, (system, data, swap))
    with mounted_image(system, "ext4") as root:
        fill(root, without_big_files(abilities_of("ext4")))
        _add_system(root)
    with mounted_image(data, "ext4") as root:
        (root / "inner").mkdir()
        (root / "inner" / "file").write_bytes(b"on the second volume")
        os.symlink("/etc/fstab", root / "absolute")
    return machine


def _add_system(root: Path) -> None:
    for name in ("etc", "data", "usr", "usr/bin", "var"):
        (root / name).mkdir()
    (root / "data" / "covered").write_bytes(b"nobody sees this while /data is mounted")
    os.symlink("usr/bin", root / "bin")
    (root / "usr/bin/tool").write_bytes(b"#!/bin/sh\n")
    lines = (f"UUID={SYSTEM_UUID} / ext4 defaults 0 1", "LABEL=data /data ext4 defaults 0 2")
    (root / "etc" / "fstab").write_text("\n".join(lines) + "\n")
