"""Holding a lease: who uses the repository now, so that a collector knows what it must not take.

A lease says who, since when, which trash epoch was seen and which points are pinned. It is
refreshed by putting the next numbered object and deleting the one before; only the highest number
counts, so a credential that may not delete can hold a lease too. A lease blocks nobody. How others
see it is in `lease_book.py`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backpoint_repo.errors import (
    ObjectExists,
    ObjectMissing,
    RepositoryError,
    StoreReadOnly,
    StoreUnavailable,
)
from backpoint_repo.format import Kind, object_key
from backpoint_repo.pin import Pin
from backpoint_repo.record import encode_record
from backpoint_repo.sealed_store import SealedStore

REFRESH_S: Final = 60.0
LIFETIME_S: Final = 600.0
"""After this long without a refresh a collector may revoke the session; it loses only its backup.
"""

BACKUP: Final = "backup"
MOUNT: Final = "mount"
READ: Final = "read"
COLLECT: Final = "collect"
SEEN_ALL: Final = (1 << 63) - 1
"""The epoch of a session that refers to no pack of its own accord and never will."""


@dataclass(frozen=True)
class LeaseTerms:
    """What a lease says. epoch: newest trash epoch seen; pins: points in use."""

    purpose: str
    epoch: int
    pins: tuple[Pin, ...] = ()


class Lease:
    """A lease that is held. Thread-safe; clock gives seconds since 1970."""

    def __init__(
        self, sealed: SealedStore, session: bytes, terms: LeaseTerms, clock: Callable[[], float]
    ) -> None:
        """Put the first lease object. Raises what a store raises."""
        self._sealed = sealed
        self._session = session
        self._terms = terms
        self._clock = clock
        self._started = clock()
        self._number = 0
        self._lost = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._put(0, terms)

    @property
    def terms(self) -> LeaseTerms:
        """What the newest lease object says."""
        return self._terms

    @property
    def lost(self) -> bool:
        """Whether somebody else has ended this lease, as far as the last look or refresh could see.
        Then nothing that this session relies on is safe, and it must not publish."""
        return self._lost

    def look(self) -> None:
        """Find out whether the lease still stands. Raises what a store raises."""
        with self._lock:
            if not self._ended.is_set():
                self._lost = self._lost or not self._stands()

    def refresh(self, terms: LeaseTerms | None = None) -> None:
        """Put the next lease object, with new terms where they are given.

        A lease that was ended by a collector goes on under the next number, and is `lost`.
        """
        with self._lock:
            if self._ended.is_set():
                return
            terms = terms or self._terms
            number = self._number + 1
            # What failed may have arrived all the same: then its number says other terms.
            while not self._put(number, terms):
                number += 1
            # After that: were the one before ended between a look and the put, nobody would know.
            self._lost = self._lost or not self._stands()
            before = range(self._number, number)
            self._number, self._terms = number, terms
            for one in before:
                self._drop(self._name(one))

    def keep_fresh(self, on_trouble: Callable[[RepositoryError], None]) -> threading.Thread:
        """Refresh from a thread until the lease is released; a failed refresh is only told."""

        def run() -> None:
            while not self._ended.wait(REFRESH_S):
                try:
                    self.refresh()
                except RepositoryError as error:
                    on_trouble(error)

        thread = threading.Thread(target=run, name="lease", daemon=True)
        thread.start()
        return thread

    def abandon(self) -> None:
        """No more refreshing, and no release: the lease is to expire."""
        self._ended.set()

    def release(self) -> None:
        """Give the lease back; harmless when repeated, and when the store is gone.

        Who may not delete says instead that the session is over, and leaves the rest to collectors.
        """
        with self._lock:
            if self._ended.is_set():
                return
            self._ended.set()
            if not self._drop(self._name(self._number)):
                number, last = self._number + 1, LeaseTerms(self._terms.purpose, self._terms.epoch)
                with contextlib.suppress(RepositoryError):
                    while not self._put(number, last, ended=True):
                        number += 1

    def _stands(self) -> bool:
        try:
            self._sealed.store.size(object_key(Kind.LEASE, self._name(self._number)))
        except ObjectMissing:
            return False
        return True

    def _name(self, number: int) -> str:
        return f"{self._session.hex()}-{number:08x}"

    def _drop(self, name: str) -> bool:
        """False where we may not: a collector clears up what is left behind."""
        try:
            self._sealed.delete(Kind.LEASE, name)
        except StoreReadOnly:
            return False
        except StoreUnavailable:
            return True  # whether it is gone or not, there is no more that we can do
        return True

    def _put(self, number: int, terms: LeaseTerms, *, ended: bool = False) -> bool:
        """False where there is one of this number."""
        payload = encode_record(
            ({"ended": True} if ended else {})
            | {
                "session": self._session,
                "purpose": terms.purpose,
                "epoch": terms.epoch,
                "pins": [pin.point_id for pin in terms.pins],
                "roots": [list(root) for pin in terms.pins for root in pin.roots],
                "chunks": [chunk for pin in terms.pins for chunk in pin.chunks],
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": self._started,
                "refreshed": self._clock(),
                "lifetime_s": LIFETIME_S,
            }
        )
        try:
            self._sealed.put(Kind.LEASE, self._name(number), payload)
        except ObjectExists:
            return False
        return True
