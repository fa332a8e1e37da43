"""One disk of a session: what was written over what the point holds, in layers that can be cut off.

A folder of files per disk. Layers have numbers: the highest is written to, those below are cut and
never change. A block that no layer holds is the base's. What a session is, and when it cuts, is
not known here.
"""

from __future__ import annotations

from pathlib import Path

from backpoint_fusefs.live.live_file import BaseContent


class OverlayDisk:
    """A `LiveFile`. Exclusive: one object for a folder; who sees to that is the caller."""

    def __init__(self, folder: Path, base: BaseContent, floor: int = 0) -> None:
        """Open, after a crash too; makes the folder where there is none (lazily: cheap).

        floor: layers of this number and below are in `base` now; they are deleted. A fresh disk
        writes to layer floor + 1. Raises OSError, and SessionDamaged where the files are not ours.
        """
        raise NotImplementedError

    @property
    def size(self) -> int:
        raise NotImplementedError

    @property
    def allocated(self) -> int:
        """Bytes that the layers take on disk."""
        raise NotImplementedError

    def read_cached(self, offset: int, length: int) -> bytes | memoryview | None:
        raise NotImplementedError

    def read(self, offset: int, length: int) -> bytes | memoryview:
        raise NotImplementedError

    def write(self, offset: int, data: bytes | memoryview) -> None:
        raise NotImplementedError

    def zero(self, offset: int, length: int) -> None:
        """Zeros from here on, taking no room (a guest's discard, FALLOC_FL_PUNCH_HOLE)."""
        raise NotImplementedError

    def resize(self, size: int) -> None:
        raise NotImplementedError

    def sync(self) -> None:
        raise NotImplementedError

    def cut(self, through: int) -> None:
        """All that was written is durable and in layers up to number `through`, which never change
        any more; what follows is written to `through` + 1. To be called while nobody writes; a
        `sync` shortly before makes it short. A disk never written to stays without files."""
        raise NotImplementedError

    def rebase(self, base: BaseContent, through: int) -> None:
        """`base` holds all of the layers up to `through` now: read it instead, delete them."""
        raise NotImplementedError

    def close(self) -> None:
        """Syncs nothing."""
        raise NotImplementedError


class CutDisk:
    """A disk as it was when layer `through` was cut; another process may write it on meanwhile.

    An `ImageSource` (see `backpoint_repo.source.contract`), so that a backup session stores it.
    """

    name: str

    def __init__(self, folder: Path, base: BaseContent, floor: int, through: int) -> None:
        """Raises OSError, SessionDamaged."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        raise NotImplementedError

    def written(self) -> list[tuple[int, int]]:
        """(offset, length) of all that the layers floor+1 .. through hold, in whole blocks."""
        raise NotImplementedError
