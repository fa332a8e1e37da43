"""A TLS server that answers as a test says: late, for ever, in pieces, nonsense, or not at all."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vcsim.certificate import Certificate

Answer = Callable[[bytes, threading.Event], Iterable[bytes]]


class RogueServer:
    """Listens on 127.0.0.1 with a certificate of its own; `requests` has what it was sent."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        """answer: the pieces to send for a request; it may wait, at most for the event."""
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = Certificate.make(folder)
        self.requests: list[bytes] = []
        self.ended = threading.Event()
        self._answer = answer
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate.file, self.certificate.key_file)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop listening and wait for the answers under way, which watch `ended`."""
        self.ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, plain: socket.socket) -> None:
        """Clients that refuse the certificate, or go, are what the tests are about."""
        plain.settimeout(10)
        with (
            plain,
            contextlib.suppress(OSError),
            self._context.wrap_socket(plain, server_side=True) as secure,
        ):
            while request := _read_request(secure):
                self.requests.append(request)
                for piece in self._answer(request, self.ended):
                    secure.sendall(piece)
                    if self.ended.is_set():
                        return


def ok(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@contextlib.contextmanager
def rogue_server(folder: Path, answer: Answer) -> Iterator[RogueServer]:
    """Listening inside the block."""
    server = RogueServer(folder, answer)
    try:
        yield server
    finally:
        server.close()


def _read_request(secure: ssl.SSLSocket) -> bytes:
    """Head and body; nothing where the client went."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := secure.recv(65536)):
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        if not (piece := secure.recv(65536)):
            return b""
        body += piece
    return head + b"\r\n\r\n" + body
