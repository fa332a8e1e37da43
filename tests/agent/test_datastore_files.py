"""One file of a datastore, by vCenter's file access."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Timer
from typing import cast

import pytest
import urllib3

from backpoint_agent.errors import (
    CannotConnect,
    ObjectGone,
    PermissionMissing,
    Stopped,
    TaskFailed,
)
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere import datastore_files
from backpoint_agent.vsphere.connections import Connections
from backpoint_agent.vsphere.datastore_files import (
    REQUEST_LIMIT,
    DatastoreFile,
    folder_url,
    split_datastore_path,
)
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.trust import Trust
from backpoint_agent.vsphere.vcenter import VCenter
from frozen_vm import account_of, logged_in
from rogue_server import RogueServer, rogue_server
from vcsim import Simulator

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def vcenter(simulator: Simulator, tmp_path: Path) -> Iterator[VCenter]:
    with logged_in(account_of(simulator, tmp_path)) as ready:
        yield ready


def a_file(simulator: Simulator, vcenter: VCenter, name: str, content: bytes) -> DatastoreFile:
    """A file that is there."""
    path = f"[LocalDS_0] {name}"
    there = simulator.file(path)
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(content)
    return DatastoreFile(vcenter, "DC0", path)


NAMES = (
    "web/web.vmx",
    "My VM (1)/My VM.vmx",
    "100% sure/a%20b.vmx",
    "Zürich 東京/ä.vmx",
    "a+b&c=d/e?f#g.vmx",
    "semi;colon/co,mma'quote\".vmx",
)


def test_any_name_is_read_and_written(simulator: Simulator, vcenter: VCenter) -> None:
    """Spaces, percents, signs that mean something in URLs, and other scripts name one file each."""
    for number, name in enumerate(NAMES):
        content = CONTENT[number:]
        file = a_file(simulator, vcenter, name, content)
        assert file.size() == len(content)
        assert file.read_all(len(content)) == content
        assert file.read(1000, 3) == content[1000:1003]
        assert file.tail(10) == content[-10:]
        assert file.tail(1 << 20) == content
        new = DatastoreFile(vcenter, "DC0", f"[LocalDS_0] {name}.new")
        new.write(io.BytesIO(content[::-1]), len(content))
        assert simulator.file(new.name).read_bytes() == content[::-1]


def test_names_are_encoded_once_and_an_ampersand_twice() -> None:
    """The names of the API carry %2f for a slash; a datacenter in a folder is a path; vCenter
    decodes the ampersand of a datacenter's name once too often."""
    url = folder_url("Eu rope/A%2fB & C", "[d s%2f] a b/c&d.vmdk")
    assert url == (
        "/folder/a%20b/c%26d.vmdk?dcPath=Eu%20rope%2FA%252fB%20%2526%20C&dsName=d%20s%252f"
    )


@pytest.mark.parametrize(
    "path",
    ["", "web.vmx", "[ds]", "[ds] ", "[] a", "[ds] ../a", "[ds] a/../../b", "[ds] /a", "[ds] a//b"],
)
def test_what_is_no_datastore_path_is_refused(path: str) -> None:
    """Also one that leads elsewhere; nobody is asked."""
    with pytest.raises(TaskFailed, match="not the name of a file"):
        split_datastore_path(path)


def test_an_empty_file_is_empty(simulator: Simulator, vcenter: VCenter) -> None:
    """Read, tailed and written."""
    file = a_file(simulator, vcenter, "empty", b"")
    assert (file.size(), file.read_all(0), file.tail(9)) == (0, b"", b"")
    new = DatastoreFile(vcenter, "DC0", "[LocalDS_0] new")
    new.write(io.BytesIO(b""), 0)
    assert simulator.file(new.name).read_bytes() == b""


def test_a_large_file_is_read_and_written_in_pieces(simulator: Simulator, vcenter: VCenter) -> None:
    """No request asks for more than the limit."""
    content = CONTENT * 500
    file = a_file(simulator, vcenter, "large", content)
    simulator.forget_calls()
    assert file.read(5, len(content) - 5) == content[5:]
    asked = [call.detail for call in simulator.calls() if call.method == "GET /folder"]
    assert asked[0] == f"bytes=5-{5 + REQUEST_LIMIT - 1}"
    assert len(asked) == -(-(len(content) - 5) // REQUEST_LIMIT)
    file.write(io.BytesIO(content[::-1]), len(content))
    assert simulator.file(file.name).read_bytes() == content[::-1]


def test_more_than_the_limit_is_not_read(simulator: Simulator, vcenter: VCenter) -> None:
    """A log that grew for years costs one question."""
    file = a_file(simulator, vcenter, "vmware.log", CONTENT)
    with pytest.raises(TaskFailed, match="has 10240 bytes, more than the 100"):
        file.read_all(100)


def test_a_missing_file_is_gone(vcenter: VCenter) -> None:
    """For size, reading and a datacenter that is not there."""
    with pytest.raises(ObjectGone, match=r"\[LocalDS_0\] none"):
        DatastoreFile(vcenter, "DC0", "[LocalDS_0] none").size()
    with pytest.raises(ObjectGone):
        DatastoreFile(vcenter, "DC0", "[LocalDS_0] none").read(0, 10)
    with pytest.raises(ObjectGone):
        DatastoreFile(vcenter, "DC1", "[LocalDS_0] none").size()


def test_a_missing_privilege_is_named(simulator: Simulator, vcenter: VCenter) -> None:
    """Of reading and of writing."""
    file = a_file(simulator, vcenter, "secret", CONTENT)
    simulator.http_status(403, 1, "GET /folder")
    with pytest.raises(PermissionMissing, match=r"Datastore\.Browse .*\[LocalDS_0\] secret"):
        file.read(0, 1)
    simulator.http_status(403, 1, "PUT /folder")
    with pytest.raises(PermissionMissing, match=r"privilege Datastore\.FileManagement for"):
        file.write(io.BytesIO(b"x"), 1)


def test_a_read_is_tried_again_and_not_for_ever(
    simulator: Simulator, vcenter: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two failures are survived; a server that always fails is given up after four tries."""
    monkeypatch.setattr(datastore_files, "_FIRST_PAUSE_S", 0.001)
    file = a_file(simulator, vcenter, "web", CONTENT)
    simulator.http_status(503, 1, "GET /folder")
    simulator.drop_connections(1, "GET /folder")
    assert file.read(0, 10) == CONTENT[:10]
    simulator.http_status(500, -1, "GET /folder")
    simulator.forget_calls()
    with pytest.raises(CannotConnect, match=r"status 500 \(4 tries\)"):
        file.read(0, 10)


def test_a_session_that_ran_out_is_renewed(simulator: Simulator, vcenter: VCenter) -> None:
    """Before a read, and before a write, whose stream could be sent only once."""
    file = a_file(simulator, vcenter, "web", CONTENT)
    simulator.expire_sessions()
    assert file.read(0, 10) == CONTENT[:10]
    simulator.expire_sessions()
    file.write(io.BytesIO(b"new"), 3)
    assert simulator.file(file.name).read_bytes() == b"new"


@pytest.mark.parametrize("size", [2, 4])
def test_a_stream_of_another_length_is_found_out(vcenter: VCenter, size: int) -> None:
    """Neither a short file nor one that was cut passes for the content."""
    file = DatastoreFile(vcenter, "DC0", "[LocalDS_0] odd")
    with pytest.raises(TaskFailed, match=r"\[LocalDS_0\] odd"):
        file.write(io.BytesIO(b"xyz"), size)


def test_a_stop_ends_the_pause_between_tries(simulator: Simulator, vcenter: VCenter) -> None:
    """Nobody waits for a server that is out of order."""
    stop = Stop()
    a_file(simulator, vcenter, "web", CONTENT)
    file = DatastoreFile(vcenter, "DC0", "[LocalDS_0] web", stop)
    simulator.http_status(500, -1, "HEAD /folder")
    stop.request("somebody asked")
    with pytest.raises(Stopped):
        file.size()


RANGE = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 10-19/100\r\n"
ODD_ANSWERS = {
    "the whole file": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + bytes(100),
    "a range earlier": b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/100\r\n"
    b"Content-Length: 10\r\n\r\n" + bytes(10),
    "a shorter range": b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 10-14/100\r\n"
    b"Content-Length: 5\r\n\r\n" + bytes(5),
    "no range": b"HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\n\r\n" + bytes(10),
    "too few bytes": RANGE + b"Content-Length: 5\r\n\r\n" + bytes(5),
    "too many bytes": RANGE + b"Content-Length: 11\r\n\r\n" + bytes(11),
    "a cut body": RANGE + b"Content-Length: 10\r\nConnection: close\r\n\r\n" + bytes(5),
    "endless chunks": RANGE + b"Transfer-Encoding: chunked\r\n\r\n" + b"5\r\nxxxxx\r\n" * 50,
    "a compressed body": RANGE
    + b"Content-Encoding: gzip\r\nContent-Length: 10\r\n\r\n"
    + bytes(10),
}


class Folder:
    """The file access of a server that says what it is told; a real connection, without a login."""

    def __init__(self, server: RogueServer) -> None:
        self._connections = Connections(server.address, Trust(server.certificate.file), 5, Stop())

    def http(
        self, method: str, url: str, *, headers: dict[str, str], body: object = None
    ) -> urllib3.BaseHTTPResponse:
        return self._connections.transfer(method, url, headers, body, None)

    def close(self) -> None:
        self._connections.close()


@contextmanager
def folder_of(place: Path, answer: Callable[[], Iterable[bytes]]) -> Iterator[VCenter]:
    """It hangs up where its answer says so."""

    def pieces(request: bytes, ended: Event) -> Iterator[bytes]:
        for piece in answer():
            yield piece
            if b"Connection: close" in piece:
                raise ConnectionAbortedError

    with rogue_server(place / "rogue", pieces) as server:
        folder = Folder(server)
        try:
            yield cast(VCenter, folder)
        finally:
            folder.close()


@pytest.mark.parametrize("answer", ODD_ANSWERS.values(), ids=ODD_ANSWERS.keys())
def test_an_answer_that_is_not_the_range_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """Whatever it claims in its head: no other bytes than those asked for, and all of them."""
    monkeypatch.setattr(datastore_files, "_FIRST_PAUSE_S", 0.001)
    with (
        folder_of(tmp_path, lambda: [answer]) as folder,
        pytest.raises(CannotConnect, match=r"\[ds\] web.*\(4 tries\)"),
    ):
        DatastoreFile(folder, "DC0", "[ds] web").read(10, 10)


def test_a_right_answer_after_a_wrong_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an answer that broke off left in the buffer does not stay there."""
    monkeypatch.setattr(datastore_files, "_FIRST_PAUSE_S", 0.001)
    right = RANGE + b"Content-Length: 10\r\n\r\n0123456789"
    answers = iter([ODD_ANSWERS["a cut body"], ODD_ANSWERS["a range earlier"], right, right])
    with folder_of(tmp_path, lambda: [next(answers)]) as folder:
        file = DatastoreFile(folder, "DC0", "[ds] web")
        assert file.read(10, 10) == b"0123456789"
        assert file.read(10, 10) == b"0123456789"


def test_a_size_that_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that leaves it open is not guessed at."""
    monkeypatch.setattr(datastore_files, "_FIRST_PAUSE_S", 0.001)
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with (
        folder_of(tmp_path, lambda: [answer]) as folder,
        pytest.raises(CannotConnect, match="does not say the size"),
    ):
        DatastoreFile(folder, "DC0", "[ds] web").size()


def test_a_server_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never silent for long, and never comes to an end."""
    monkeypatch.setattr(datastore_files, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(datastore_files, "_ANSWER_LIMIT_S", 0.0)
    head = RANGE + b"Content-Length: 10\r\n\r\n"
    with (
        folder_of(tmp_path, lambda: [head, *([b"x"] * 10)]) as folder,
        pytest.raises(CannotConnect, match="took more than 0 s"),
    ):
        DatastoreFile(folder, "DC0", "[ds] web").read(10, 10)


def test_a_stop_is_not_held_up_by_a_silent_server(simulator: Simulator, tmp_path: Path) -> None:
    """A transfer that waits is cut; what is asked after the stop is clearing up, and is not."""
    stop = Stop()
    with logged_in(account_of(simulator, tmp_path), stop) as vcenter:
        vmx = read_machine(vcenter, simulator.vms()[0]).vmx
        file = DatastoreFile(vcenter, "DC0", vmx, stop)
        simulator.slow_calls(15, 1, "GET /folder")
        timer = Timer(0.5, stop.request, ("a test",))
        timer.start()
        start = time.monotonic()
        with pytest.raises(Stopped):
            file.read(0, 16)
        assert time.monotonic() - start < 10
        timer.join()
        assert len(vcenter.http("GET", folder_url("DC0", vmx)).data) > 16
