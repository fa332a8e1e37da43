"""A session that this mount has: which of its nodes are open, and what is under way in it.

Decides when an unlinked node's content goes (nobody has it open any more), when times of change
move, and that nothing is under way any more when the session is closed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import trio

from backpoint_fusefs.decode_workers import DecodeWorkers
from backpoint_fusefs.live.errors import SessionInUse
from backpoint_fusefs.live.live_file import LiveFile
from backpoint_fusefs.live.mounted.live_attributes import NOTHING, Extent
from backpoint_fusefs.live.mounted.live_inodes import LiveNumber, session_number
from backpoint_fusefs.live.node_tree import LiveNode, NodeType
from backpoint_fusefs.live.session import Session
from backpoint_fusefs.realm import Stale

T = TypeVar("T")
QUIET_S: Final = 5.0
"""After so long without a write a disk's time moves, though somebody has it open still."""
_END_S: Final = 10.0
"""How long what is under way may take before a session that is asked for is not let go of."""


class HeldSession:
    """For the event loop only. Methods raise Stale once the session is let go of."""

    def __init__(
        self, folder: Path, session: Session, workers: DecodeWorkers, syncs: trio.CapacityLimiter
    ) -> None:
        """syncs: how many threads may wait for a slow disk at once."""
        self.folder = folder
        self.session = session
        self.names = session.names
        self.number = session_number(session.record.session_id)
        self._workers = workers
        self._syncs = syncs
        self._opens: Counter[int] = Counter()
        self._files: dict[int, LiveFile] = {}
        self._forgetting: set[int] = set()
        self._times_dirty = False
        self._written_at: dict[int, float] = {}
        """Disks whose time is still to move, and when (time.monotonic) they were written last."""
        self._under_way = 0
        self._quiet = trio.Event()
        self._gone = False

    def inode(self, node: int) -> int:
        """Of one of its nodes."""
        return LiveNumber(self.number, node).inode

    def node(self, number: int) -> LiveNode:
        """One that has a name, or that somebody has open still."""
        found = self.names.node(number)
        if self._gone or found is None or not (found.parent or self._opens[number]):
            raise Stale
        return found

    @contextmanager
    def using(self) -> Iterator[None]:
        """While this lasts the session is not closed."""
        if self._gone:
            raise Stale
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._quiet.set()

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """On a worker."""
        with self.using():
            return await self._workers.run(function, *args)

    async def sync(self, file: LiveFile) -> None:
        """All that was written to it is durable when this returns."""
        try:
            # Without a turn of the loop, which an fsync on a fast disk would notice.
            self._syncs.acquire_nowait()
        except trio.WouldBlock:
            await self._syncs.acquire()
        try:
            await self.run(file.sync)
        finally:
            self._syncs.release()

    async def extent(self, node: LiveNode) -> Extent:
        """How long a file or disk is; others have `NOTHING`."""
        if node.type not in (NodeType.FILE, NodeType.DISK):
            return NOTHING
        file = await self.file(node.number)
        return Extent(file.size, file.allocated)

    async def file(self, number: int) -> LiveFile:
        """The content of a node; from memory where it was touched before."""
        found = self._files.get(number)
        if found is None:
            found = await self.run(self.session.file, number)
            if number not in self._forgetting:
                self._files[number] = found
        return found

    async def open(self, number: int) -> LiveFile:
        """To be followed by `closed`."""
        self.node(number)
        self._opens[number] += 1
        try:
            return await self.file(number)
        except Exception:
            await self.closed(number)
            raise

    async def closed(self, number: int) -> None:
        """A program closed it."""
        self._opens[number] -= 1
        if self._gone or self._opens[number] > 0:
            return
        del self._opens[number]
        await self._forget_unlinked(number)

    async def unlinked(self, node: LiveNode) -> None:
        """It has lost its name."""
        if node.type is not NodeType.FOLDER and not self._opens[node.number]:
            await self._forget_unlinked(node.number)

    async def _forget_unlinked(self, number: int) -> None:
        node = self.names.node(number)
        if node is None or node.parent or number in self._forgetting:
            return
        self._forgetting.add(number)
        try:
            self._files.pop(number, None)
            await self.run(self.session.forget, number)
        finally:
            self._forgetting.discard(number)

    def written(self, node: LiveNode, *, closing: bool = False) -> None:
        """Content changed. closing: some time ago, by a program that closes it now."""
        # The kernel drops all it keeps of a file whose time it finds moved. Of a disk that a guest
        # writes to, and that a network server looks at after each write, nothing would ever be
        # kept. So a disk's time moves when it is closed, or left alone for a while.
        if node.type is NodeType.DISK and not closing:
            self._written_at[node.number] = time.monotonic()
            return
        self._move_time(node.number)

    def settle_times(self, quiet_s: float = QUIET_S) -> None:
        """Move the times of disks that nobody has written to for so long.

        An NFS server may have a disk open for ever, and its other clients, which have read before,
        know by the time alone that they must read again.
        """
        before = time.monotonic() - quiet_s
        for number in [number for number, at in self._written_at.items() if at <= before]:
            self._move_time(number)

    def _move_time(self, number: int) -> None:
        self._written_at.pop(number, None)
        self._times_dirty = True
        self.names.touch(number, time.time_ns())

    async def save_times(self) -> None:
        """What `written` told, on disk."""
        if self._times_dirty and not self._gone:
            self._times_dirty = False
            await self.run(self.names.save_times)

    @property
    def touched_files(self) -> list[int]:
        """Inode numbers of all whose content the kernel may have kept."""
        return [self.inode(number) for number in self._files]

    async def end(self) -> None:
        """Nothing is begun any more; what is under way is waited for; the session is closed.

        Raises SessionInUse where that takes too long; then all is as before.
        """
        self._gone = True
        with trio.move_on_after(_END_S):
            while self._under_way:
                self._quiet = trio.Event()
                await self._quiet.wait()
        if self._under_way:
            self._gone = False
            raise SessionInUse(
                f"the session {self.folder.name} is being read or written, and that does not end"
            )
        self.settle_times(0.0)
        await self._workers.run(self.session.close)
