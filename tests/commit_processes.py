"""Processes of their own around a session: they have it, commit it and die, or may not ask.

Forked from a clean server. Decides nothing of what must hold.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from backpoint_fusefs.live.control.control_client import ask
from backpoint_fusefs.live.control.control_protocol import (
    LINE_MAX,
    SOCKET,
    Request,
    Verb,
    encode_request,
)
from backpoint_fusefs.live.control.control_socket import connect_to
from backpoint_repo.errors import BackpointError
from commit_scene import CommitScene, commit, serving
from faults.failing_store import deadly_store

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["commit_processes"])


def start(work: Callable[..., None], *args: object) -> BaseProcess:
    """Begin to run module-level `work` in a process of its own."""
    process = _CONTEXT.Process(target=work, args=args)
    process.start()
    return process


def exit_code(process: BaseProcess) -> int:
    """Wait for it; -9 where it was killed. Fails where it takes over a minute."""
    process.join(60)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


@contextmanager
def in_another_process(
    work: Callable[[CommitScene, str, Connection], None], scene: CommitScene, name: str = "trial"
) -> Iterator[BaseProcess]:
    """`have_session` or `only_lock_session`, ready."""
    ours, theirs = _CONTEXT.Pipe()
    process = start(work, scene, name, theirs)
    theirs.close()
    try:
        assert ours.poll(60)
        assert ours.recv() == "ready"
        yield process
    finally:
        ours.close()
        assert exit_code(process) in (0, -signal.SIGKILL)


def have_session(scene: CommitScene, name: str, ready: Connection) -> None:
    """What a mount's process does with a session, until the pipe is closed."""
    with scene.session(name) as session, serving(session, scene.live / name):
        _wait_for_end(ready)


def only_lock_session(scene: CommitScene, name: str, ready: Connection) -> None:
    """It has the session and hears nobody."""
    with scene.session(name):
        _wait_for_end(ready)


def _wait_for_end(ready: Connection) -> None:
    ready.send("ready")
    try:
        ready.recv()
    except EOFError:
        return


def commit_dying(scene: CommitScene, at: int, moment: str) -> None:
    """A commit that is killed in its n-th changing store call."""
    commit(scene, scene.repository(deadly_store(scene.root, at, moment)))


def ask_as_nobody(folder: Path) -> None:
    """Ends with 0 where the connection is made and closed without a word."""
    os.setgid(65534)
    os.setuid(65534)
    with connect_to(folder / SOCKET, 20) as peer:
        try:
            peer.sendall(encode_request(Request(Verb.STATUS)))
            answer = peer.recv(LINE_MAX)
        except (ConnectionResetError, BrokenPipeError):
            answer = b""
    os._exit(1 if answer else 0)


def ask_for_a_cut(folder: Path) -> None:
    """Ends with the exit code of what is raised."""
    try:
        ask(folder, Request(Verb.CUT))
    except BackpointError as error:
        os._exit(error.exit_code)
