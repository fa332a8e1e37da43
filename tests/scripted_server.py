"""A server on a socket that answers requests as a test says: what no good object store would do.

Knows how HTTP frames a request, and what an answer of S3 looks like; the script is the test's.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit

from backpoint_repo.store.object_store import ObjectStore

ETAG: Final = '"0123456789abcdef0123456789abcdef"'
_HEAD_END: Final = b"\r\n\r\n"


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(urlsplit(self.target).query).items()}


Script = Callable[[Request], bytes]
"""All bytes of the answer; the connection is closed behind them, or reset for `RESET`."""
RESET: Final = b"reset"


@dataclass
class ScriptedServer:
    port: int
    seen: list[Request] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def store(self, pauses: list[float] | None = None) -> ObjectStore:
        """A bucket there. pauses: where those between two tries go, which are not waited for."""
        waited = [] if pauses is None else pauses
        return ObjectStore(bucket_at(self.endpoint), "s3://bucket/prefix", waited.append)


def bucket_at(endpoint: str, prefix: str = "prefix"):  # type: ignore[no-untyped-def]  # a union
    from obstore.store import S3Store

    return S3Store(
        "bucket",
        prefix=prefix,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id="AKIDOFTESTS",
        secret_access_key="SECRETOFTESTS",
        client_options={"allow_http": True},
    )


@contextmanager
def scripted_server(script: Script) -> Iterator[ScriptedServer]:
    """Answers each connection's one request, each in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = ScriptedServer(listening.getsockname()[1])

    def serve(connection: socket.socket) -> None:
        # The client may have gone by then.
        with connection, contextlib.suppress(OSError):
            request = _request(connection)
            if request is not None:
                server.seen.append(request)
                _answer(connection, script(request))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listening.accept()[0]
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield server
    finally:
        # Closing alone does not wake the one who waits in it.
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()


def _answer(connection: socket.socket, said: bytes) -> None:
    if said == RESET:
        at_once = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    else:
        connection.sendall(said)


def _request(connection: socket.socket) -> Request | None:
    data = b""
    while _HEAD_END not in data:
        piece = connection.recv(1 << 16)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(_HEAD_END)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (at.partition(":") for at in lines)
    }
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(1 << 16)
    method, target, _ = first.split(" ")
    return Request(method, target, headers, body)


def answer(status: str, body: bytes = b"", *headers: str, size: int | None = None) -> bytes:
    """status: `200 OK`. size: what its head says of the body's, where that is not true."""
    length = len(body) if size is None else size
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + _HEAD_END + body


def an_object(body: bytes, *headers: str, status: str = "200 OK", size: int | None = None) -> bytes:
    dated = "Last-Modified: Mon, 12 Oct 2009 17:50:00 GMT"
    return answer(status, body, f"ETag: {ETAG}", dated, *headers, size=size)


def an_error(status: str, code: str, more: str = "") -> bytes:
    """As S3 says it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>x</Message>{more}</Error>"
    return answer(status, body.encode(), "Content-Type: application/xml")


def a_listing(keys: list[tuple[str, int]], *, more: bool) -> bytes:
    """keys: with their sizes, and whatever the bucket has before them. more: there are others."""
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>"
        f"<ETag>{ETAG}</ETag><Size>{size}</Size></Contents>"
        for key, size in keys
    )
    token = "<NextContinuationToken>more</NextContinuationToken>" if more else ""
    cut = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
    body = f"<?xml version='1.0'?><ListBucketResult>{cut}{rows}</ListBucketResult>"
    return answer("200 OK", body.encode(), "Content-Type: application/xml")
