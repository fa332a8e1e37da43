"""One process has a session, others ask it: what is heard, what is refused, what is survived."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.live.control import holder as holder_module
from backpoint_fusefs.live.control.control_client import NobodyListens, ask
from backpoint_fusefs.live.control.control_protocol import (
    LINE_MAX,
    SOCKET,
    Request,
    Verb,
    decode_answer,
    decode_request,
    decode_status,
    encode_refusal,
    encode_request,
)
from backpoint_fusefs.live.control.control_server import PEERS_MAX
from backpoint_fusefs.live.control.control_socket import connect_to, listen_at, may_speak
from backpoint_fusefs.live.control.holder import RemoteHolder, hold
from backpoint_fusefs.live.discard import discard_session
from backpoint_fusefs.live.errors import (
    NoSuchSession,
    SessionFrozen,
    SessionInUse,
    SessionStorageFailed,
)
from backpoint_fusefs.live.session_cut import CUTS
from backpoint_repo.errors import BackpointError, ObjectMissing, StoreUnavailable, UsageError
from commit_processes import (
    ask_as_nobody,
    ask_for_a_cut,
    exit_code,
    have_session,
    in_another_process,
    only_lock_session,
    start,
)
from commit_scene import CommitScene, make_scene, serving, write

_HEX = "0123456789abcdef"
REQUESTS = st.builds(
    Request,
    st.sampled_from(Verb),
    st.one_of(st.just(""), st.text(_HEX, min_size=16, max_size=16)),
    st.text(_HEX, min_size=32, max_size=32),
    st.integers(0, (1 << 53) - 1),
    st.booleans(),
)


@pytest.fixture
def scene(tmp_path: Path) -> CommitScene:
    """With a session `trial`."""
    made = make_scene(tmp_path)
    made.start()
    return made


def converse(folder: Path, sent: bytes, *, end: bool = False) -> bytes:
    """What comes back for these bytes, whatever they are. end: nothing more will be sent."""
    with connect_to(folder / SOCKET, 20) as peer:
        try:
            peer.sendall(sent)
            if end:
                peer.shutdown(socket.SHUT_WR)
            return peer.recv(LINE_MAX)
        except (ConnectionResetError, BrokenPipeError):
            return b""


@given(REQUESTS)
def test_a_request_arrives_as_it_was_sent(request: Request) -> None:
    """And is one line, far below the limit."""
    line = encode_request(request)
    assert line.count(b"\n") == 1
    assert len(line) < LINE_MAX
    assert decode_request(line) == request


@given(st.one_of(st.binary(), st.text().map(str.encode), st.just(b"[" * 50_000)))
def test_what_is_no_request_is_refused(line: bytes) -> None:
    """With an error for the asker, whatever it is."""
    with pytest.raises(UsageError):
        decode_request(line)
    with pytest.raises(BackpointError):
        decode_answer(line)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (SessionFrozen("frozen"), SessionFrozen),
        (StoreUnavailable("gone"), StoreUnavailable),
        (OSError(28, "No space left on device"), SessionStorageFailed),
    ],
)
def test_a_refusal_is_raised_as_what_it_was(
    error: BackpointError, raised: type[BackpointError]
) -> None:
    """So that the exit code and the remedy are the same as in the other process."""
    with pytest.raises(raised, match="refused"):
        decode_answer(encode_refusal(error))


def test_another_process_is_asked(scene: CommitScene) -> None:
    """Status, cut and freeze reach the session of a real second process; a bad rebase does not."""
    folder = scene.live / "trial"
    with scene.session() as session:
        write(session, 0, 0, b"x")
    with in_another_process(have_session, scene) as process, hold(scene.home(), "trial") as holder:
        assert isinstance(holder, RemoteHolder)
        assert holder.status.pid == process.pid
        assert holder.cut() == 1
        assert holder.cut() == 2
        holder.set_frozen(True)
        assert decode_status(ask(folder, Request(Verb.STATUS))).frozen
        with pytest.raises(UsageError, match="no cut"):
            holder.rebase(holder.status.point, 3)
        with pytest.raises(ObjectMissing):
            holder.rebase("0" * 32, 2)
        assert decode_status(ask(folder, Request(Verb.STATUS))).point == holder.status.point
        with pytest.raises(UsageError, match="another session"):
            ask(folder, Request(Verb.CUT, "0" * 16))
    with scene.session() as session:
        assert session.record.frozen
        assert session.record.cut == 2


def test_a_released_session_is_free(scene: CommitScene) -> None:
    """When the answer is there, this process can take it; the server has ended by itself."""
    folder = scene.live / "trial"
    session = scene.home().open("trial")
    with serving(session, folder) as done:
        with hold(scene.home(), "trial") as holder:
            holder.release()
        with hold(scene.home(), "trial") as holder:
            assert not holder.remote
    assert done == ["released", "ended"]
    with pytest.raises(NobodyListens):
        ask(folder, Request(Verb.STATUS))


def test_a_session_that_a_process_has_can_be_discarded(scene: CommitScene) -> None:
    """It lets go first; the other process lives on."""
    with in_another_process(have_session, scene) as process:
        discard_session(scene.home(), "trial")
        assert not (scene.live / "trial").exists()
        assert process.is_alive()
    with pytest.raises(NoSuchSession), hold(scene.home(), "trial"):
        pass


def test_a_killed_process_leaves_nothing_in_the_way(scene: CommitScene) -> None:
    """Its socket is there still: the session can be taken, served again and asked for."""
    with in_another_process(have_session, scene) as process:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        exit_code(process)
        assert (scene.live / "trial" / SOCKET).is_socket()
        with hold(scene.home(), "trial") as holder:
            assert not holder.remote
    with in_another_process(have_session, scene), hold(scene.home(), "trial") as holder:
        assert holder.remote


def test_a_process_that_hears_nobody_is_named(
    scene: CommitScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is told which process has the session, and what to do."""
    monkeypatch.setattr(holder_module, "_PATIENCE_S", 0.1)
    with in_another_process(only_lock_session, scene) as process:
        says = f"process {process.pid}.*wait until it ends"
        with pytest.raises(SessionInUse, match=says), hold(scene.home(), "trial"):
            pass


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"null\n",
        b'{"verb": "status"',
        b'{"verb": "cut", "session": "../../etc"}\n',
        b'{"verb": ["cut"]}\n',
        b'{"verb": "rebase", "through": 1e300}\n',
        b'{"verb": "freeze", "frozen": "yes"}\n',
        b"\xff\xfe\x00\n",
        b"[" * 60_000 + b"\n",
        b"x" * (4 * LINE_MAX),
    ],
    ids=lambda line: repr(line[:20]),
)
def test_hostile_requests_change_nothing(scene: CommitScene, line: bytes) -> None:
    """Each ends in a refusal or a closed connection, and the next honest one is answered."""
    folder = scene.live / "trial"
    with scene.session() as session, serving(session, folder):
        answer = converse(folder, line, end=True)
        assert not answer or b'"ok": false' in answer
        status = decode_status(ask(folder, Request(Verb.STATUS)))
        assert (status.cut, status.floor, status.frozen) == (0, 0, False)


def test_silent_peers_do_not_keep_others_out(scene: CommitScene) -> None:
    """Only so many are heard at once, the others are told so; when they go, all is as before."""
    folder = scene.live / "trial"
    with scene.session() as session, serving(session, folder), ExitStack() as opened:
        silent = [opened.enter_context(connect_to(folder / SOCKET, 20)) for _ in range(12)]
        told, _, _ = select.select(silent, [], [], 20)
        while len(told) < len(silent) - PEERS_MAX:
            told, _, _ = select.select(silent, [], [], 20)
        assert len(told) == len(silent) - PEERS_MAX
        assert all(b"too many" in peer.recv(LINE_MAX) for peer in told)
        opened.close()
        while b"too many" in (answer := converse(folder, encode_request(Request(Verb.STATUS)))):
            pass
        assert decode_status(decode_answer(answer)).cut == 0


def test_a_failing_request_leaves_the_server_alive(scene: CommitScene) -> None:
    """The session itself fails under it: refused each time with the reason, and it goes on."""
    folder = scene.live / "trial"
    with scene.session() as session, serving(session, folder):
        (folder / CUTS).write_text("in the way")
        for _ in range(2):
            with pytest.raises(UsageError, match="refused: Not a directory"):
                ask(folder, Request(Verb.CUT))
        (folder / CUTS).unlink()
        assert decode_status(ask(folder, Request(Verb.STATUS))).cut == 0
        assert ask(folder, Request(Verb.CUT))["cut"] == 1


def test_names_too_long_for_a_socket_address(tmp_path: Path) -> None:
    """The folder of sessions may be any depth."""
    deep = tmp_path.joinpath(*["deep" * 20] * 3)
    deep.mkdir(parents=True)
    made = make_scene(deep)
    made.start("n" * 80)
    with made.session("n" * 80) as session, serving(session, made.live / ("n" * 80)):
        write(session, 0, 0, b"x")
        with hold(made.home(), "n" * 80) as holder:
            assert holder.remote
            assert holder.cut() == 1
        assert (made.live / ("n" * 80) / SOCKET).stat().st_mode & 0o777 == 0o600


def test_the_socket_goes_when_the_server_ends(scene: CommitScene) -> None:
    """Nothing that refuses connections stays behind."""
    folder = scene.live / "trial"
    with scene.session() as session:
        with serving(session, folder):
            assert (folder / SOCKET).is_socket()
        assert [path.name for path in folder.glob(f"{SOCKET}*")] == []


def test_another_user_is_not_heard(scene: CommitScene) -> None:
    """Even where modes let him connect."""
    with (
        tempfile.TemporaryDirectory(prefix="backpoint-", dir="/tmp") as name,
        scene.session() as session,
        serving(session, Path(name)),
    ):
        Path(name).chmod(0o755)
        Path(name, SOCKET).chmod(0o666)
        assert exit_code(start(ask_as_nobody, Path(name))) == 0
        assert ask(Path(name), Request(Verb.STATUS))["ok"]
    assert not may_speak(struct.pack("=iII", 1, os.geteuid() + 1, 0))


def test_nobody_but_the_same_user_answers(tmp_path: Path) -> None:
    """A listener that closes at once, or answers rubbish, is an error to act on, not a hang."""
    with listen_at(tmp_path / SOCKET) as listener:
        listener.setblocking(True)
        for said in (b"", b"rubbish\n", b"y" * (2 * LINE_MAX)):
            process = start(ask_for_a_cut, tmp_path)
            peer, _ = listener.accept()
            with peer:
                peer.recv(LINE_MAX)
                peer.sendall(said)
            assert exit_code(process) == (2 if said == b"rubbish\n" else 4)


def test_a_process_that_dies_while_it_is_asked(scene: CommitScene) -> None:
    """It took the connection and is gone: the session is free then, and is taken."""
    listener = listen_at(scene.live / "trial" / SOCKET)
    listener.settimeout(20)

    def die() -> None:
        with listener:
            listener.accept()[0].close()

    dying = threading.Thread(target=die)
    dying.start()
    with hold(scene.home(), "trial") as holder:
        assert not holder.remote
    dying.join(20)
