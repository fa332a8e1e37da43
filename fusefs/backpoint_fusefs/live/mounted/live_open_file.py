"""A file of a session that a program has open: reads as of a point's disk, writes through.

Reads are answered from memory where possible, and what a sequential reader wants next is decoded
for it. So are small writes that need not wait: a trip to a worker takes four times as long. A disk
that throttles its writers, or a commit's cut, would hold up everybody: others are for a worker.
"""

from __future__ import annotations

from collections.abc import Callable

from backpoint_fusefs.content import Prefetchable
from backpoint_fusefs.decode_workers import DecodeWorkers
from backpoint_fusefs.live.live_file import LiveFile
from backpoint_fusefs.live.mounted.held_session import HeldSession
from backpoint_fusefs.live.node_tree import LiveNode
from backpoint_fusefs.open_file import OpenFile, PrefetchBudget


class LiveContent:
    """See `Content`. size: as it was when the file was opened; only read-ahead goes by it."""

    def __init__(self, file: LiveFile) -> None:
        self.size = file.size
        self.read_cached = file.read_cached
        self.read = file.read


class LiveDiskContent(LiveContent):
    """The same over a stored disk, of which what is not overwritten can be fetched early."""

    def __init__(self, file: LiveFile, base: Callable[[], Prefetchable]) -> None:
        """base: what lies below now (a commit changes it); asked on a worker."""
        super().__init__(file)
        self._base = base

    def prefetch(self, offset: int, length: int) -> None:
        """Raises as `ImageReader.read`."""
        self._base().prefetch(offset, length)


class LiveOpenFile:
    """See `WritableOpened`. For the event loop only."""

    def __init__(
        self,
        held: HeldSession,
        node: LiveNode,
        file: LiveFile,
        content: LiveContent,
        workers: DecodeWorkers,
        budget: PrefetchBudget,
    ) -> None:
        self.label = f"live {held.folder.name} {node.name.decode('utf-8', 'backslashreplace')}"
        self._held = held
        self._node = node
        self._file = file
        self._reader = OpenFile(content, workers, budget, self.label)
        self._changed = False

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """Raises as `LiveFile.read`, and Stale."""
        with self._held.using():
            return await self._reader.read(offset, length)

    async def write(self, offset: int, data: bytes) -> None:
        """Raises as `LiveFile.write`, and Stale."""
        with self._held.using():
            done = self._file.write_at_once(offset, data)
        if not done:
            await self._held.run(self._file.write, offset, data)
        self._changed = True
        self._held.written(self._node)

    async def resize(self, size: int) -> None:
        """Raises as `LiveFile.resize`, and Stale."""
        await self._held.run(self._file.resize, size)
        self._changed = True
        self._held.written(self._node)

    async def sync(self) -> None:
        """Raises as `LiveFile.sync`, and Stale."""
        await self._held.sync(self._file)

    def close(self) -> None:
        """Nobody reads or writes it here any more; `closed` is to follow."""
        self._reader.close()

    async def closed(self) -> None:
        """Raises OSError where what is left to do cannot be done."""
        if self._changed:
            self._held.written(self._node, closing=True)
        await self._held.closed(self._node.number)
        await self._held.save_times()
