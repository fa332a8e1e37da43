"""The mount's lease: tells collectors which points have files open, so that their data stays.

Decides when it is renewed: every minute, soon after a point is opened or closed, and when trash
appears that a collector would delete. A store that cannot be written to costs the protection, not
the mount.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from backpoint_repo.errors import RepositoryError
from backpoint_repo.lease import MOUNT, REFRESH_S, Lease, LeaseTerms
from backpoint_repo.pin import Pin
from backpoint_repo.point import POINT_ID_SIZE
from backpoint_repo.repository import Repository
from backpoint_repo.trash import newest_epoch

_CALM_S: Final = 1.0
"""Between two renewals: programs open and close files in bursts."""
_LOOK_S: Final = 10.0
"""Between two looks for new trash: so long a collector waits for a mount, at most."""
_LOG = logging.getLogger("backpoint.mount")


class MountLease:
    """For the event loop only."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._open: Counter[bytes] = Counter()
        self._changed = trio.Event()
        self._lease: Lease | None = None
        self._pins: dict[bytes, Pin] = {}
        self._failed = False
        self._told_loss = False

    def pinned(self, pin: Pin) -> Callable[[], None]:
        """A file of the point was opened; to be called when it is closed."""
        self._open[pin.point_id] += 1
        if self._open[pin.point_id] == 1:
            self._pins[pin.point_id] = pin
            self._changed.set()
        return partial(self._unpin, pin.point_id)

    def _unpin(self, point_id: bytes) -> None:
        self._open[point_id] -= 1
        if not self._open[point_id]:
            del self._open[point_id], self._pins[point_id]
            self._changed.set()

    async def run(self) -> None:
        """Hold the lease until cancelled, then give it back."""
        try:
            while True:
                self._changed = trio.Event()
                epoch = await trio.to_thread.run_sync(self._newest_epoch)
                if epoch is not None:
                    # Only now: a lease that says "seen" must pin whatever was open when the trash
                    # it has seen was published.
                    await trio.to_thread.run_sync(self._renew, epoch, tuple(self._pins.values()))
                await trio.sleep(_CALM_S)
                with trio.move_on_after(REFRESH_S):
                    await self._news(epoch)
        finally:
            if self._lease is not None:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._lease.release)

    async def _news(self, epoch: int | None) -> None:
        """Returns when something was opened or closed, or there is trash beyond this epoch."""
        while not self._changed.is_set():
            with trio.move_on_after(_LOOK_S):
                await self._changed.wait()
            if await trio.to_thread.run_sync(self._newest_epoch) != epoch:
                return

    def _newest_epoch(self) -> int | None:
        """None where it cannot be told now."""
        try:
            # A mount refers to nothing by itself, so all trash there is may be declared seen.
            return newest_epoch(self._repository.sealed)
        except RepositoryError as error:
            self._tell(error)
            return None

    def _renew(self, epoch: int, pins: tuple[Pin, ...]) -> None:
        try:
            terms = LeaseTerms(MOUNT, epoch, pins)
            if self._lease is None:
                session = secrets.token_bytes(POINT_ID_SIZE)
                clock = self._repository.clock
                self._lease = Lease(self._repository.sealed, session, terms, clock)
            else:
                self._lease.refresh(terms)
            self._failed = False
            self._tell_loss()
        except RepositoryError as error:
            self._tell(error)

    def _tell(self, error: RepositoryError) -> None:
        if not self._failed:
            _LOG.warning(
                "this mount cannot tell others which points it reads, so they may be removed "
                "while they are open: %s",
                error,
            )
        self._failed = True

    def _tell_loss(self) -> None:
        assert self._lease is not None
        if self._lease.lost and not self._told_loss:
            self._told_loss = True
            _LOG.warning(
                "this mount gave no sign of life for longer than its lease allows (a suspended "
                "machine?), and a collector ended it: files of points that were removed meanwhile "
                "may be lost; the lease is held again"
            )
