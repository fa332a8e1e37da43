"""A session that this process has: names, disks and files together, written, cut and frozen as one.

One process has a session at a time (a lock on its folder). Decides what is consistent with what:
writers go on side by side, a cut waits for them and sees all disks and files at one moment. FUSE,
inode numbers and how a commit stores things are not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backpoint_fusefs.live.live_file import BaseContent, LiveFile
from backpoint_fusefs.live.node_tree import NodeTree
from backpoint_fusefs.live.session_record import SessionRecord

OpenBase = Callable[[str, int], BaseContent]
"""(point id in hex, disk number) -> that stored disk. Raises what a repository raises."""


class Session:
    """Thread-safe; all but `names`' reads may wait."""

    names: NodeTree

    def __init__(self, folder: Path, open_base: OpenBase) -> None:
        """Take the lock and open. Raises NoSuchSession, SessionInUse, SessionDamaged."""
        raise NotImplementedError

    @property
    def record(self) -> SessionRecord:
        raise NotImplementedError

    def file(self, number: int) -> LiveFile:
        """The content of a DISK or FILE node: one object per node as long as the session is open.
        Its `write`, `resize` and `zero` raise SessionFrozen while the session is frozen."""
        raise NotImplementedError

    def forget(self, number: int) -> None:
        """An unlinked node that nobody has open any more: its content goes, and the node."""
        raise NotImplementedError

    def cut(self) -> int:
        """The moment for a commit, durable: the number of the cut. All disks have a layer of this
        number that ends; small files and names are copied to `cuts/<number>/`. Writers wait
        meanwhile, no longer than needed."""
        raise NotImplementedError

    def rebase(self, point_id: str, through: int) -> None:
        """The point holds all up to cut `through` now: go on over it, delete what it holds."""
        raise NotImplementedError

    def set_frozen(self, frozen: bool) -> None:
        """Durable. What was written before is synced first."""
        raise NotImplementedError

    def sync(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Sync, and let go of the lock."""
        raise NotImplementedError
