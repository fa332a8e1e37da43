"""Files written past the page cache are what they would be without that."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo.store.direct_writer import DirectWriter

MAX = 1 << 20
SIZES = (0, 1, 4096, 65535, 65536, 65537, 69632, MAX - 1, MAX, MAX + 1, MAX + 4097)


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """On a disk, and on a filesystem that may have no way past the page cache."""
    if request.param == "disk":
        yield tmp_path
        return
    mounted = tmp_path / "memory"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "backpoint-test", str(mounted)]
    subprocess.run(mount, check=True)
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_files_of_any_size(folder: Path) -> None:
    """One after the other: nothing of one is in the next."""
    writer = DirectWriter(MAX)
    for number, size in enumerate((*SIZES, *reversed(SIZES))):
        path, content = folder / str(number), os.urandom(size)
        writer.write(path, [content[:40], memoryview(content)[40:]], 1_700_000_000.0)
        assert path.read_bytes() == content
        assert (path.stat().st_mtime, path.stat().st_mode & 0o777) == (1_700_000_000.0, 0o600)
        path.unlink()


def test_what_is_there_is_not_overwritten(folder: Path) -> None:
    (folder / "away").write_bytes(b"here before")
    (folder / "link").symlink_to(folder / "away")
    for size in SIZES:
        for name in ("away", "link"):
            with pytest.raises(FileExistsError):
                DirectWriter(MAX).write(folder / name, [bytes(size)], 0.0)
    assert (folder / "away").read_bytes() == b"here before"
