"""A FAT filesystem as a folder, by mtools: many kernels, ours here among them, cannot mount FAT.

Decides how what was done to the folder goes back: file by file, so that what nobody touched stays
where it is on the disk. Knows nothing of images and partitions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from guest_disks.tool import run

# mtools reads and writes names in the encoding of the locale.
_LOCALE = {"LC_ALL": "C.UTF-8"}


@contextlib.contextmanager
def fat_files(device: Path, folder: Path, *, read_only: bool) -> Iterator[None]:
    """Copy the files of `device` into the empty `folder`; write what the block changed back.

    Folders that the block removed stay. Raises RuntimeError with the words of mtools.
    """
    if run("mdir", "-b", "-i", device, "::", environment=_LOCALE).strip():
        run("mcopy", "-Q", "-s", "-m", "-n", "-i", device, "::*", folder, environment=_LOCALE)
    before = _states(folder)
    yield
    if not read_only:
        _write_back(device, folder, before)


def _states(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of each file, by its path relative to `folder`."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder): (p.stat().st_size, p.stat().st_mtime_ns) for p in found}


def _write_back(device: Path, folder: Path, before: dict[Path, tuple[int, int]]) -> None:
    if not before:
        run("mcopy", "-Q", "-s", "-m", "-i", device, *folder.iterdir(), "::", environment=_LOCALE)
        return
    after = _states(folder)
    for name in before.keys() - after.keys():
        run("mdel", "-i", device, f"::{name}", environment=_LOCALE)
    there = {parent for name in before for parent in name.parents}
    for name in sorted(name for name, state in after.items() if before.get(name) != state):
        for parent in reversed([p for p in name.parents if p not in there]):
            run("mmd", "-i", device, f"::{parent}", environment=_LOCALE)
            there.add(parent)
        source, target = folder / name, f"::{name}"
        run("mcopy", "-Q", "-o", "-m", "-i", device, source, target, environment=_LOCALE)
