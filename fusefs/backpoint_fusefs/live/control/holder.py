"""Whoever can cut, rebase, freeze or let go of a session: this process, or another that is asked.

A session has one process at a time. Where nobody has it, this process takes it for the moment;
where a mount has it, the mount is asked. Decides which of the two; knows no disks and no points.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from backpoint_fusefs.live.control.control_client import HungUp, NobodyListens, ask
from backpoint_fusefs.live.control.control_protocol import (
    Request,
    Status,
    Verb,
    decode_cut,
    decode_status,
)
from backpoint_fusefs.live.errors import SessionInUse
from backpoint_fusefs.live.session import Session
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_fusefs.live.session_names import checked_name
from backpoint_fusefs.live.system_refusal import told

_AGAIN_S: Final = 0.02
_PATIENCE_S: Final = 3.0
"""A process that starts or ends has the lock already, or still, and answers nobody."""


class Holder(Protocol):
    """Each call is done when it returns. They raise SessionInUse where the process that has the
    session does not answer, and what `Session` raises."""

    @property
    def session_id(self) -> str: ...

    @property
    def remote(self) -> bool:
        """Whether another process has the session."""
        ...

    def cut(self) -> int: ...

    def rebase(self, point_id: str, through: int) -> None: ...

    def set_frozen(self, frozen: bool) -> None: ...

    def release(self) -> None:
        """Nobody has the session any more, and whoever had it does not open it again."""
        ...


class LocalHolder:
    """This process has it."""

    remote: Final = False

    def __init__(self, session: Session) -> None:
        self._session = session
        self.session_id = session.record.session_id
        self.cut = session.cut
        self.rebase = session.rebase
        self.set_frozen = session.set_frozen
        self.release = session.close


@dataclass(frozen=True)
class RemoteHolder:
    """Another process has it, and this one may have ended by the time it is asked."""

    folder: Path
    status: Status

    @property
    def session_id(self) -> str:
        return self.status.session

    @property
    def remote(self) -> bool:
        return True

    def cut(self) -> int:
        return decode_cut(self._ask(Request(Verb.CUT, self.session_id)))

    def rebase(self, point_id: str, through: int) -> None:
        self._ask(Request(Verb.REBASE, self.session_id, point_id, through))

    def set_frozen(self, frozen: bool) -> None:
        self._ask(Request(Verb.FREEZE, self.session_id, frozen=frozen))

    def release(self) -> None:
        self._ask(Request(Verb.RELEASE, self.session_id))

    def _ask(self, request: Request) -> dict[str, object]:
        try:
            return ask(self.folder, request)
        except NobodyListens:
            raise SessionInUse(
                f"the process {self.status.pid} that had the session {self.folder.name} has ended; "
                "try again"
            ) from None


@contextmanager
def hold(home: SessionHome, name: str) -> Iterator[Holder]:
    """Reach the session; what this process takes for it, it gives back at the end.

    Raises NoSuchSession, SessionDamaged, SessionInUse where another process has the session and
    does not answer, UsageError or SessionStorageFailed for what the system refuses.
    """
    with told(f"the session {checked_name(name)}"):
        reached = _reach(home, name)
        if isinstance(reached, RemoteHolder):
            yield reached
            return
        try:
            yield LocalHolder(reached)
        finally:
            reached.close()


def _reach(home: SessionHome, name: str) -> Session | RemoteHolder:
    """The socket first: an answer comes at once, a lock that is taken is waited for."""
    deadline = time.monotonic() + _PATIENCE_S
    folder = home.folder / name
    while True:
        try:
            with suppress(NobodyListens):
                return RemoteHolder(folder, decode_status(ask(folder, Request(Verb.STATUS))))
        except HungUp:
            # One that is killed takes connections until it is gone.
            if time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)
            continue
        try:
            return home.open(name)
        except SessionInUse as error:
            if time.monotonic() > deadline:
                raise SessionInUse(
                    f"{error}, which takes no requests; wait until it ends, or end it"
                ) from None
