"""Which sessions a mount has: opened when they are touched, let go of when that is asked for.

Decides when a session is tried again that could not be opened, or that was let go of. What is done
in an open one is for `held_session.py`, how it looks for `live_realm.py`.
"""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import pyfuse3
import trio
from pyfuse3 import FileNameT, InodeT

from backpoint_fusefs import inodes
from backpoint_fusefs.decode_workers import DecodeWorkers
from backpoint_fusefs.live.boot_trace.boot_prefetch import BootPrefetch
from backpoint_fusefs.live.boot_trace.session_trace import SessionTrace
from backpoint_fusefs.live.boot_trace.trace_files import ranges_ahead
from backpoint_fusefs.live.control.control_server import serve_control
from backpoint_fusefs.live.errors import NoSuchSession, SessionDamaged, SessionInUse
from backpoint_fusefs.live.mounted.held_session import HeldSession
from backpoint_fusefs.live.mounted.live_inodes import session_number
from backpoint_fusefs.live.mounted.shown_session import ShownSession, shown_sessions
from backpoint_fusefs.live.session import Session
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_fusefs.mount_lease import MountLease
from backpoint_fusefs.point_shelf import PointShelf
from backpoint_fusefs.realm import Stale
from backpoint_repo.errors import BackpointError
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.pin import Pin

LIVE_WORKERS: Final = 8
"""Threads at least, that may wait for the sessions' disk. Not those that decode: who reads must
not wait until somebody's write is on a slow disk."""
_SYNCS: Final = 4
"""Of them, those that may wait for a sync at once."""
_FRESH_S: Final = 1.0
_AGAIN_S: Final = 1.0
"""Before a session that could not be opened is tried again."""
_RELEASED_S: Final = 10.0
"""So long a session that was let go of is not opened again: whoever asked for it has taken its lock
by then, or has done without."""
_SAVE_EVERY_S: Final = 5.0
_INVALIDATE_S: Final = 5.0
_LOG = logging.getLogger("backpoint.live")


@dataclass(frozen=True)
class _Refusal:
    until: float
    error: BackpointError


class LiveSessions:
    """For the event loop only, but for `open_base` and `close`."""

    def __init__(
        self,
        home: SessionHome,
        shelf: PointShelf,
        lease: MountLease,
        decoders: DecodeWorkers,
        ahead_max: int,
    ) -> None:
        """To be made in the thread of a trio loop. ahead_max: bytes that a boot may have fetched
        before it asks for them, on `decoders`."""
        self.workers = DecodeWorkers(max(LIVE_WORKERS, decoders.count))
        self._home = home
        self._shelf = shelf
        self._lease = lease
        self._decoders = decoders
        self._ahead_max = ahead_max
        self._traces: dict[int, SessionTrace] = {}
        self._syncs = trio.CapacityLimiter(_SYNCS)
        self._shown: dict[int, ShownSession] = {}
        self._looked_at = float("-inf")
        self._held: dict[int, HeldSession] = {}
        self._pins: dict[int, tuple[str, Callable[[], None]]] = {}
        self._opening: defaultdict[int, trio.Lock] = defaultdict(trio.Lock)
        self._refusals: dict[int, _Refusal] = {}
        self._nursery: trio.Nursery | None = None

    async def shown(self) -> list[ShownSession]:
        """All, as they are now, by name."""
        await self._look()
        return sorted(self._shown.values(), key=lambda session: session.name)

    async def find(self, name: bytes) -> ShownSession | None:
        """By name, also one that was begun a moment ago."""
        for fresh_s in (_FRESH_S, 0.0):
            await self._look(fresh_s)
            for session in self._shown.values():
                if session.name == name:
                    return session
        return None

    async def by_number(self, number: int) -> ShownSession:
        """Raises Stale."""
        for fresh_s in (_FRESH_S, 0.0):
            await self._look(fresh_s)
            if number in self._shown:
                return self._shown[number]
        raise Stale

    def held_now(self, number: int) -> HeldSession | None:
        """The session if it is open."""
        return self._held.get(number)

    async def room(self) -> tuple[int, int, int]:
        """See `WritableRealm.room`."""
        found = await self.workers.run(os.statvfs, self._home.folder)
        size = found.f_frsize
        return found.f_blocks * size, found.f_bfree * size, found.f_bavail * size

    async def held(self, number: int) -> HeldSession:
        """The session, opened if it is not. Raises Stale, SessionInUse, SessionDamaged, and what a
        store raises."""
        found = self._held.get(number)
        if found is not None:
            return found
        async with self._opening[number]:
            if number in self._held:
                return self._held[number]
            shown = await self.by_number(number)
            refusal = self._refusals.get(number)
            if refusal is not None and time.monotonic() < refusal.until:
                raise refusal.error
            return await self._open(shown)

    async def release(self, held: HeldSession) -> None:
        """Close it for another process, programs that have its files open get ESTALE.

        Raises SessionInUse where a read or a write in it does not end.
        """
        await self._drop_cached(held)
        try:
            await held.end()
        except OSError as error:
            _LOG.error("the session %s could not be closed well: %s", held.folder.name, error)
        del self._held[held.number]
        await self.workers.run(self._traces.pop(held.number).save)
        self._pins.pop(held.number)[1]()
        why = SessionInUse(
            f"the session {held.folder.name} was let go of a moment ago, for another process"
        )
        self._refusals[held.number] = _Refusal(time.monotonic() + _RELEASED_S, why)
        self._looked_at = float("-inf")
        name = FileNameT(held.folder.name.encode())
        pyfuse3.invalidate_entry_async(InodeT(inodes.LIVE), name, ignore_enoent=True)
        await self._drop_cached(held)
        _LOG.info("the session %s is let go of", held.folder.name)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hear what other processes want of open sessions, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                await trio.sleep(_SAVE_EVERY_S)
                for held in list(self._held.values()):
                    self._pin(held)
                    held.settle_times()
                    try:
                        await held.run(self._traces[held.number].save)
                        await held.save_times()
                    except (OSError, BackpointError, Stale) as error:
                        _LOG.warning("times of the session %s: %s", held.folder.name, error)

    def close(self) -> None:
        """Sync and close all. When the mount is gone, so that nothing is under way any more."""
        for held in self._held.values():
            self._traces[held.number].save()
            held.settle_times(0.0)
            try:
                held.session.close()
            except (OSError, BackpointError) as error:
                _LOG.error("the session %s could not be closed well: %s", held.folder.name, error)
        self.workers.close()

    def open_base(self, point_id: str, disk: int) -> ImageReader:
        """See `OpenBase`; on a worker."""
        folder = self._shelf.folder(bytes.fromhex(point_id))
        disks = self._shelf.disks(folder)
        if disk >= len(disks):
            raise SessionDamaged(f"a session wants disk {disk} of a point that has {len(disks)}")
        return disks[disk]

    async def _look(self, fresh_s: float = 0.0) -> None:
        if time.monotonic() - self._looked_at < fresh_s:
            return
        self._shown = await self.workers.run(shown_sessions, self._home.folder)
        self._looked_at = time.monotonic()

    async def _open(self, shown: ShownSession) -> HeldSession:
        number = shown.number
        trace = await self.workers.run(SessionTrace, shown.folder, self.open_base)
        try:
            session = await self.workers.run(Session, shown.folder, trace.open_base)
        except NoSuchSession:
            raise Stale from None
        except BackpointError as error:
            self._refusals[number] = _Refusal(time.monotonic() + _AGAIN_S, error)
            raise
        if session.record.repository_id != self._shelf.repository_id.hex():
            await self.workers.run(session.close)
            raise SessionDamaged(f"the session {shown.folder.name} is of another repository")
        if session_number(session.record.session_id) != number:
            # Another has taken its name since we looked.
            await self.workers.run(session.close)
            raise Stale
        held = HeldSession(shown.folder, session, self.workers, self._syncs)
        self._held[number], self._traces[number] = held, trace
        self._pin(held)
        await self._fetch_ahead(held)
        await self._serve(held)
        _LOG.info("the session %s is open", shown.folder.name)
        return held

    async def _fetch_ahead(self, held: HeldSession) -> None:
        """What the last boot of this VM read."""
        point_id = held.session.record.point_id
        ranges = await self.workers.run(ranges_ahead, held.folder)

        def fetch(disk: int, offset: int, length: int) -> None:
            self.open_base(point_id, disk).prefetch(offset, length)

        BootPrefetch(self._decoders, fetch, ranges, self._ahead_max).start()

    async def _serve(self, held: HeldSession) -> None:
        assert self._nursery is not None
        serve = partial(serve_control, held.folder, held.session, partial(self.release, held))
        try:
            await self._nursery.start(serve)
        except OSError as error:
            _LOG.warning(
                "the session %s cannot be committed or discarded while it is mounted: %s",
                held.folder.name,
                error,
            )

    def _pin(self, held: HeldSession) -> None:
        """The point that a session stands on stays; a commit changes which it is."""
        point_id = held.session.record.point_id
        pinned = self._pins.get(held.number)
        if pinned is None or pinned[0] != point_id:
            # The session's hold keeps the point itself, so its id says enough.
            pin = Pin(bytes.fromhex(point_id))
            self._pins[held.number] = point_id, self._lease.pinned(pin)
            if pinned is not None:
                pinned[1]()

    async def _drop_cached(self, held: HeldSession) -> None:
        # In a thread: where a file is mapped and written, the kernel waits for us to take it.
        touched = held.touched_files
        with trio.move_on_after(_INVALIDATE_S):
            await trio.to_thread.run_sync(_invalidate, touched, abandon_on_cancel=True)


def _invalidate(numbers: list[int]) -> None:
    for inode in numbers:
        with suppress(OSError):  # the kernel does not know it
            pyfuse3.invalidate_inode(InodeT(inode))
