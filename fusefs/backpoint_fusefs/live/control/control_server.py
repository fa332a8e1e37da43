"""The side of a session's control that the process has which has the session: hears and does.

Runs in the mount's trio loop, beside it; what it does to the session it does on worker threads.
Decides how long a peer is waited for and how many are heard. How a mount lets go of a session is
the mount's business.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio

from backpoint_fusefs.live.control.control_protocol import (
    LINE_MAX,
    SOCKET,
    Request,
    Status,
    Verb,
    decode_request,
    encode_answer,
    encode_refusal,
    encode_status,
)
from backpoint_fusefs.live.control.control_socket import CREDENTIALS_SIZE, listen_at, may_speak
from backpoint_fusefs.live.errors import SessionInUse
from backpoint_fusefs.live.session import Session
from backpoint_repo.errors import BackpointError, UsageError

PEERS_MAX: Final = 8
_LINE_WITHIN_S: Final = 10.0
_LOG = logging.getLogger("backpoint.live")

Release = Callable[[], Awaitable[None]]
"""Lets go of the session for good: nothing of it is open or shown any more, it is closed, and it is
not opened again by this process. Raises SessionInUse where that cannot be; then all is as before.
"""


async def serve_control(
    folder: Path,
    session: Session,
    release: Release,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hear what other processes ask of the session in `folder`, until it is released: then return.

    Start it (`nursery.start`) when the session is open; cancel it before the session is closed for
    another reason. `release` is awaited here, so it must not cancel this task. Raises OSError where
    no socket can be made.
    """
    place = folder / SOCKET
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listen_at(place)))
    desk = _Desk(session, release)
    try:
        async with trio.open_nursery() as nursery:
            desk.leave = nursery.cancel_scope.cancel
            serve = partial(trio.serve_listeners, desk.hear, [listener], handler_nursery=nursery)
            nursery.start_soon(serve)
            task_status.started()
    finally:
        # Nobody else has made one meanwhile: whoever does has the session's lock. A discard may
        # have taken the folder away.
        if not desk.released:
            with suppress(OSError):
                place.unlink()


class _Desk:
    """One request at a time reaches the session."""

    def __init__(self, session: Session, release: Release) -> None:
        self._session = session
        self._release = release
        self._turn = trio.Lock()
        self._peers = 0
        self.released = False
        self.leave: Callable[[], None] = lambda: None

    async def hear(self, stream: trio.SocketStream) -> None:
        """One connection: a line, an answer."""
        self._peers += 1
        try:
            async with stream:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._converse(stream)
        finally:
            self._peers -= 1
        if self.released:
            self.leave()

    async def _converse(self, stream: trio.SocketStream) -> None:
        credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS_SIZE)
        assert isinstance(credentials, bytes)
        if not may_speak(credentials):
            return
        if self._peers > PEERS_MAX:
            await _say(stream, encode_refusal(SessionInUse("too many ask at once; try again")))
            return
        line = await _line_of(stream)
        if line is not None:
            await _say(stream, await self._answer(line))

    async def _answer(self, line: bytes) -> bytes:
        try:
            request = decode_request(line)
            async with self._turn:
                return await self._do(request)
        except (BackpointError, OSError) as error:
            return encode_refusal(error)
        except Exception:
            # A defect in what one peer asked for must not end a mount that guests run on.
            _LOG.exception("a request on the control socket failed")
            return encode_refusal(SessionInUse("it failed; the mount's log says how"))

    async def _do(self, request: Request) -> bytes:
        if self.released:
            raise SessionInUse("the session is being let go of")
        if request.session not in ("", self._session.record.session_id):
            raise UsageError("it has another session of this name now")
        if request.verb is Verb.RELEASE:
            return await self._let_go()
        return await trio.to_thread.run_sync(_apply, self._session, request)

    async def _let_go(self) -> bytes:
        await self._release()
        self.released = True
        return encode_answer({})


def _apply(session: Session, request: Request) -> bytes:
    """On a worker thread."""
    match request.verb:
        case Verb.CUT:
            return encode_answer({"cut": session.cut()})
        case Verb.REBASE:
            session.rebase(request.point, request.through)
        case Verb.FREEZE:
            session.set_frozen(request.frozen)
        case Verb.STATUS:
            return encode_status(_status(session))
    return encode_answer({})


def _status(session: Session) -> Status:
    record = session.record
    return Status(
        record.session_id, os.getpid(), record.point_id, record.frozen, record.floor, record.cut
    )


async def _line_of(stream: trio.SocketStream) -> bytes | None:
    """None where none came in time, or none that ends in time."""
    line = b""
    with trio.move_on_after(_LINE_WITHIN_S):
        while len(line) <= LINE_MAX:
            piece = await stream.receive_some(LINE_MAX)
            line += piece
            if b"\n" in piece:
                return line[: line.index(b"\n")]
            if not piece:
                break
    return None


async def _say(stream: trio.SocketStream, line: bytes) -> None:
    with trio.move_on_after(_LINE_WITHIN_S):
        await stream.send_all(line)
