"""Which target a restore writes to: by the format's name, and by what the path already is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from backpoint_repo.errors import UsageError
from backpoint_repo.target.block_device import BlockDeviceTarget
from backpoint_repo.target.contract import ImageTarget
from backpoint_repo.target.qcow2_target import Qcow2Target
from backpoint_repo.target.raw_target import RawFileTarget
from backpoint_repo.target.vmdk_target import VmdkTarget

FORMATS: Final = ("raw", "vmdk", "qcow2")


def open_target(path: Path, size: int, format_name: str, identity: bytes) -> ImageTarget:
    """A target of `size` bytes; one of FORMATS. An existing block device takes raw only.

    identity: as for `describe_flat_disk`. Raises UsageError where the format is unknown or
    something is in the way, TargetError.
    """
    if path.is_block_device() and format_name == "raw":
        return BlockDeviceTarget(path, size)
    if format_name == "raw":
        return RawFileTarget(path, size)
    if format_name == "vmdk":
        return VmdkTarget(path, size, identity)
    if format_name == "qcow2":
        return Qcow2Target(path, size)
    raise UsageError(f"unknown format {format_name!r}; there are {', '.join(FORMATS)}")
