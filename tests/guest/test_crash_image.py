"""Copies of mounted images: what the driver's own recovery makes of them, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest_trees.crash_image import crash_image, settle, write_durably
from guest_trees.disks import Kind, make_image, mounted_image

_MIB = 1 << 20
_DURABLE = b"durable" * 1000


@pytest.mark.parametrize(("kind", "mib"), [("ext3", 32), ("ext4", 32), ("btrfs", 128)])
def test_only_recovery_shows_what_was_made_durable(kind: Kind, mib: int, tmp_path: Path) -> None:
    """Before it only the settled files are there; what nobody asked to be written never is."""
    copy, image = _crashed(kind, mib, tmp_path, ["commit=300"])
    with mounted_image(copy, kind, read_only=True) as folder:
        assert _names(folder) == {"settled"}
    with mounted_image(copy, kind) as folder:
        assert _names(folder) == {"settled", "durable"}
        assert (folder / "durable").read_bytes() == _DURABLE
    with mounted_image(image, kind, read_only=True) as folder:
        assert _names(folder) == {"never renamed", "durable"}


def test_xfs_recovers_what_was_made_durable(tmp_path: Path) -> None:
    """XFS writes from its log when it likes: only what must be there is certain."""
    copy, _ = _crashed("xfs", 304, tmp_path, [])
    with mounted_image(copy, "xfs") as folder:
        assert len(_names(folder)) == 2
        assert (folder / "durable").read_bytes() == _DURABLE


def _crashed(kind: Kind, mib: int, scratch: Path, options: list[str]) -> tuple[Path, Path]:
    """The copy, and the image as it was unmounted afterwards."""
    image = scratch / "image"
    make_image(image, kind, mib * _MIB)

    def change(folder: Path) -> None:
        (folder / "settled").write_bytes(b"settled")
        settle(folder)
        write_durably(folder / "durable", _DURABLE)
        (folder / "settled").rename(folder / "never renamed")

    return crash_image(image, kind, scratch / "copy", change, options), image


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"lost+found"}
