"""Copies of mounted images: what the driver's own recovery makes of them, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest_trees.crash_image import crash_image, settle, write_durably
from guest_trees.disks import Kind, make_image, mounted_image

_MIB = 1 << 20
_DURABLE = b"durable" * 1000


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
def test_only_recovery_shows_what_was_made_durable(kind: Kind, tmp_path: Path) -> None:
    """The settled files are there before; what was written later is in the journal alone."""
    copy, image = _crashed(kind, 32, tmp_path, ["commit=300"])
    with mounted_image(copy, kind, read_only=True) as folder:
        assert _names(folder) == {"settled"}
    _is_recovered(copy, kind)
    with mounted_image(image, kind, read_only=True) as folder:
        assert _names(folder) == {"never renamed", "durable"}


@pytest.mark.parametrize(("kind", "mib"), [("xfs", 304), ("btrfs", 128)])
def test_what_was_made_durable_is_recovered(kind: Kind, mib: int, tmp_path: Path) -> None:
    """These write from their logs when they like: what is there before is not certain."""
    copy, _ = _crashed(kind, mib, tmp_path, [])
    _is_recovered(copy, kind)


def _is_recovered(copy: Path, kind: Kind) -> None:
    """The rename may be there or not: whoever syncs this machine meanwhile makes it durable too."""
    with mounted_image(copy, kind) as folder:
        assert _names(folder) - {"settled", "never renamed"} == {"durable"}
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
