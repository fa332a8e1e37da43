"""What a restore asks of a way to write a VM's disks, and no more.

Each side also reads what it wrote, by the transport of its name, so that a restore can compare.
Knows no repositories beyond `ImageReader`, and no VM beyond its disks' files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from backpoint_agent.machine import VirtualDisk
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.source.contract import ImageSource
from backpoint_repo.target.contract import ImageTarget

Advance = Callable[[int], None]
"""Called in the caller's thread, in disk order, with bytes of disk dealt with since the last call.
What it raises (a stop) ends the work."""


class WriteSide(Protocol):
    """One VM's disks, writable. The VM is off and stays so. Close it before the VM is powered on.

    All methods but `close` raise TransportUnusable where this way does not reach the disk, and
    TargetError, SourceError, VSphereError, Stopped.
    """

    @property
    def name(self) -> str:
        """vddk, datastore, https or import."""

    @property
    def writes_ranges(self) -> bool:
        """False: a disk can only be written whole, in order; `target` is not there."""

    def fill(self, disk: VirtualDisk, reader: ImageReader, advance: Advance) -> None:
        """Give a new disk, empty so far, the reader's content; durable when it returns."""

    def target(self, disk: VirtualDisk) -> ImageTarget:
        """The disk, to write parts of it. `abandon` leaves what was written so far."""

    def source(self, disk: VirtualDisk) -> ImageSource:
        """The disk as it is now. Not while a target of it is open."""

    def close(self) -> None:
        """End what serves the disks; idempotent. Raises nothing."""


def fill_target(target: ImageTarget, reader: ImageReader, advance: Advance) -> None:
    """`fill` for sides that write anywhere."""
    from backpoint_repo.restore import copy_disk

    try:
        copy_disk(reader, target, advance)
        target.finish()
    except BaseException:
        target.abandon()
        raise
