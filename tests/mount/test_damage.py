"""A repository that is damaged, or cannot be written: what a mount of it still gives."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mounted_repository import MakePoint, MountedRepository

PAGE = 4096
MIB = 1 << 20


def test_a_damaged_pack_hurts_only_the_bytes_it_holds(
    unchecked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    content = os.urandom(4 * MIB)
    back_up_bytes("web", content)
    _flip_one_byte_of_a_pack(unchecked_repository.root)
    unchecked_repository.mount()
    flat = unchecked_repository.newest("web") / "disk0-flat.vmdk"
    hurt = []
    with flat.open("rb", buffering=0) as file:
        for offset in range(0, len(content), PAGE):
            found = _page_at(file.fileno(), offset)
            assert found in (None, content[offset : offset + PAGE])
            if found is None:
                hurt.append(offset)
    # Chunks here have 4 to 64 KiB, and neighbours of a damaged one are whole.
    assert 1 <= len(hurt) <= 16
    assert hurt == list(range(hurt[0], hurt[0] + len(hurt) * PAGE, PAGE))
    complaints = [line for line in unchecked_repository.log().splitlines() if " ERROR " in line]
    assert 1 <= len(complaints) <= 2 * len(hurt)
    assert all("web " in line and "disk0-flat.vmdk at " in line for line in complaints)
    assert (flat.parent / "point.json").read_text()


def test_a_point_that_cannot_be_read_is_logged_and_the_others_are_shown(
    unchecked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    back_up_bytes("web", b"good")
    back_up_bytes("db", b"bad")
    points = unchecked_repository.fresh().catalog.refresh()
    broken = next(point for point in points if point.vm == "db")
    path = unchecked_repository.root / "points" / broken.point_id.hex()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    unchecked_repository.mount()
    assert os.listdir(unchecked_repository.place / "vms") == ["web"]
    assert broken.point_id.hex() in unchecked_repository.log()


def test_points_that_vanish_under_a_mount_are_errors_for_their_readers_only(
    unchecked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    content = os.urandom(MIB)
    back_up_bytes("web", content)
    unchecked_repository.mount()
    flat = unchecked_repository.newest("web") / "disk0-flat.vmdk"
    with flat.open("rb", buffering=0) as file:
        for pack in (unchecked_repository.root / "packs").glob("*/*"):
            pack.unlink()
        with pytest.raises(OSError, match="Input/output"):
            os.pread(file.fileno(), MIB, 0)
    assert (flat.parent / "point.json").stat().st_size > 0


def test_a_store_that_cannot_be_written_is_mounted_with_a_warning(
    unchecked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    content = os.urandom(100_000)
    back_up_bytes("web", content)
    # Also root cannot make a lease where its folder's name is a file's.
    leases = unchecked_repository.root / "leases"
    for left in leases.iterdir():
        left.unlink()
    leases.rmdir()
    leases.write_bytes(b"")
    unchecked_repository.mount()
    flat = unchecked_repository.newest("web") / "disk0-flat.vmdk"
    assert flat.read_bytes() == content
    assert "cannot tell others which points it reads" in unchecked_repository.log()


def _page_at(fd: int, offset: int) -> bytes | None:
    """None where it cannot be read."""
    try:
        return os.pread(fd, PAGE, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


def _flip_one_byte_of_a_pack(root: Path) -> None:
    pack = next((root / "packs").glob("*/*"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
