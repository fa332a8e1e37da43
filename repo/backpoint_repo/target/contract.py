"""What a restore asks of the place a disk is written to, and no more.

Every format fulfils `ImageTarget`. Knows nothing of chunks or repositories.
"""

from __future__ import annotations

from typing import Protocol

Content = bytes | memoryview


class ImageTarget(Protocol):
    """A disk of fixed size, in the making. `write_at` and `zero_at` may be called from several
    threads at once, in any order, for ranges that do not overlap and lie inside the disk.

    Each ends in exactly one of `finish` and `abandon`. Errors of every method but `abandon`:
    TargetError, naming the target and the offset.
    """

    def write_at(self, offset: int, data: Content) -> None:
        """The disk holds `data` at `offset`."""

    def zero_at(self, offset: int, length: int) -> None:
        """The disk reads as zeros there. Costs nothing in a new file."""

    def finish(self) -> None:
        """When it returns, the disk is durable and whole and has its name.

        Raises UsageError where the name was taken meanwhile.
        """

    def abandon(self) -> None:
        """Leave nothing that looks whole. Raises nothing; also after a failed `finish`."""
