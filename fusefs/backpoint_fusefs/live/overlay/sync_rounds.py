"""Many who want to be durable at once share one flush: whoever comes while one runs joins the next.

The first of a round leads it: waits for the round before, closes its own and flushes for all of it.
What a flush is, is not known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager


class _Round:
    def __init__(self) -> None:
        self.running = threading.Lock()
        """Held by its leader: an Event for each sync would cost it 2 us more."""
        self.running.acquire()
        self.failure: BaseException | None = None


class SyncRounds:
    """flush: makes durable all that was written before it is called; under `turn`, so one at a
    time, and not while somebody else holds that."""

    def __init__(self, turn: AbstractContextManager[object], flush: Callable[[], None]) -> None:
        self._turn = turn
        self._flush = flush
        self._joining = threading.Lock()
        self._open: _Round | None = None

    def sync(self) -> None:
        """Raises what the round's flush raised; an OSError each for all of the round."""
        with self._joining:
            mine = self._open
            leads = mine is None
            if mine is None:
                mine = self._open = _Round()
        if leads:
            self._lead(mine)
        else:
            # Its leader always ends it: as soon as the flush does, which is the disk's to limit.
            with mine.running:
                pass
        if isinstance(mine.failure, OSError):
            failure = mine.failure
            raise OSError(failure.errno, failure.strerror, failure.filename) from failure
        if mine.failure is not None:
            raise mine.failure

    def _lead(self, mine: _Round) -> None:
        try:
            with self._turn:
                with self._joining:
                    self._open = None
                self._flush()
        except BaseException as error:
            mine.failure = error
            # An interrupt while waiting for the turn: nobody may join what is over.
            with self._joining:
                if self._open is mine:
                    self._open = None
        finally:
            mine.running.release()
