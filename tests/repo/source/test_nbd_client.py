"""Servers that lie, stall or babble end in a SourceError, soon."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from backpoint_repo.errors import SourceError
from backpoint_repo.source.contract import Extent
from backpoint_repo.source.nbd_client import NbdConnection
from backpoint_repo.source.nbd_image import NbdImage

LIMIT_S = 0.5
SIZE = 1 << 20
GREETING = struct.pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 3)
CONTEXT = 7
CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_ERROR = 1, 2, 5, 0x8001

Script = Callable[[socket.socket], None]
Answer = Callable[[int, int, int], bytes]


def receive(peer: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = peer.recv(length - len(data))
        if not part:
            raise ConnectionResetError("client left")
        data += part
    return data


def option_reply(option: int, kind: int, body: bytes = b"") -> bytes:
    return struct.pack(">QIII", 0x3E889045565A9, option, kind, len(body)) + body


def negotiate(peer: socket.socket, structured: bool = True, size: int = SIZE) -> None:
    """A correct handshake."""
    peer.sendall(GREETING)
    receive(peer, 4)
    while True:
        _, option, length = struct.unpack(">QII", receive(peer, 16))
        receive(peer, length)
        if option == 10:
            context = struct.pack(">I", CONTEXT) + b"base:allocation"
            peer.sendall(option_reply(10, 4, context) + option_reply(10, 1))
        elif option == 8:
            peer.sendall(option_reply(8, 1 if structured else 0x80000001))
        else:
            info = struct.pack(">HQH", 0, size, 1)
            peer.sendall(option_reply(7, 3, info) + option_reply(7, 1))
            return


def chunk(kind: int, cookie: int, body: bytes, done: bool = True, magic: int = 0x668E33EF) -> bytes:
    return struct.pack(">IHHQI", magic, int(done), kind, cookie, len(body)) + body


def data_chunk(cookie: int, at: int, data: bytes, done: bool = True) -> bytes:
    return chunk(CHUNK_DATA, cookie, struct.pack(">Q", at) + data, done)


def answering(answer: Answer, structured: bool = True) -> Script:
    """A server that negotiates well and answers each request with `answer(cookie, at, length)`."""

    def run(peer: socket.socket) -> None:
        negotiate(peer, structured)
        while True:
            _, _, command, cookie, at, length = struct.unpack(">IHHQQI", receive(peer, 28))
            if command == 2:
                return
            peer.sendall(answer(cookie, at, length))

    return run


@contextmanager
def serving(script: Script, address: Path) -> Iterator[Callable[[], NbdConnection]]:
    """A real Unix socket with `script` behind every connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()

        def handle(peer: socket.socket) -> None:
            # The client hangs up on liars in the middle of their sentence.
            with peer, suppress(ConnectionError):
                script(peer)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    threading.Thread(target=handle, args=(peer,), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield lambda: NbdConnection(str(address), "disk", LIMIT_S)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def drip(peer: socket.socket) -> None:
    """One byte now and then: the socket's own time limit never strikes."""
    with suppress(ConnectionError):
        for byte in GREETING * 1000:
            peer.sendall(bytes([byte]))
            if peer.fileno() < 0 or threading.Event().wait(0.05):
                return


def silent(peer: socket.socket) -> None:
    peer.recv(1)


def endless_options(peer: socket.socket) -> None:
    peer.sendall(GREETING)
    while True:
        peer.sendall(option_reply(8, 3, b"x"))


BAD_HANDSHAKES: dict[str, Script] = {
    "closes": lambda peer: None,
    "closes early": lambda peer: peer.sendall(GREETING[:9]),
    "silent": silent,
    "drips": drip,
    "http": lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "oldstyle": lambda peer: peer.sendall(GREETING[:8] + bytes(144)),
    "bad option magic": lambda peer: peer.sendall(GREETING + bytes(20)),
    "huge option": lambda peer: peer.sendall(
        GREETING + struct.pack(">QIII", 0x3E889045565A9, 8, 1, 0xFFFFFFFF)
    ),
    "endless options": endless_options,
    "huge size": lambda peer: negotiate(peer, size=1 << 63),
    "no size": lambda peer: peer.sendall(
        GREETING + option_reply(8, 0x80000001) + option_reply(7, 1)
    ),
    "refusal": lambda peer: peer.sendall(
        GREETING + option_reply(8, 0x80000001) + option_reply(7, 0x80000006, b"no\x1b[2J such")
    ),
}

BAD_READS: dict[str, Answer] = {
    "zeros": lambda cookie, at, length: bytes(64),
    "wrong magic": lambda cookie, at, length: chunk(1, cookie, bytes(8 + length), magic=1),
    "wrong cookie": lambda cookie, at, length: data_chunk(cookie + 1, at, bytes(length)),
    "simple reply": lambda cookie, at, length: (
        struct.pack(">IIQ", 0x67446698, 0, cookie) + bytes(length)
    ),
    "too long": lambda cookie, at, length: data_chunk(cookie, at, bytes(length + 1)),
    "before": lambda cookie, at, length: data_chunk(cookie, at - 1, bytes(length)),
    "after": lambda cookie, at, length: data_chunk(cookie, at + 1, bytes(length)),
    "far away": lambda cookie, at, length: data_chunk(cookie, (1 << 64) - 1, bytes(length)),
    "gap": lambda cookie, at, length: (
        data_chunk(cookie, at, bytes(10), done=False)
        + data_chunk(cookie, at + 11, bytes(length - 11))
    ),
    "short": lambda cookie, at, length: data_chunk(cookie, at, bytes(length - 1)),
    "overlap": lambda cookie, at, length: (
        data_chunk(cookie, at, bytes(10), done=False)
        + data_chunk(cookie, at + 5, bytes(length - 10))
    ),
    "nothing": lambda cookie, at, length: chunk(0, cookie, b""),
    "empty data": lambda cookie, at, length: data_chunk(cookie, at, b""),
    "endless nothing": lambda cookie, at, length: chunk(0, cookie, b"", done=False) * 70_000,
    "huge hole": lambda cookie, at, length: chunk(
        CHUNK_HOLE, cookie, struct.pack(">QI", at, 0xFFFFFFFF)
    ),
    "bad hole": lambda cookie, at, length: chunk(CHUNK_HOLE, cookie, bytes(11)),
    "unknown type": lambda cookie, at, length: chunk(99, cookie, bytes(length)),
    "huge error": lambda cookie, at, length: chunk(CHUNK_ERROR, cookie, bytes(1 << 20)),
    "tiny error": lambda cookie, at, length: chunk(CHUNK_ERROR, cookie, b"x"),
    "half a chunk": lambda cookie, at, length: data_chunk(cookie, at, bytes(length))[:100],
}

BAD_STATUS: dict[str, bytes] = {
    "no runs": struct.pack(">I", CONTEXT),
    "odd length": struct.pack(">IIIB", CONTEXT, SIZE, 0, 0),
    "empty run": struct.pack(">III", CONTEXT, 0, 0),
    "other context": struct.pack(">III", CONTEXT + 1, SIZE, 0),
    "runs past the end": struct.pack(">IIIII", CONTEXT, SIZE, 0, 1, 0),
}


@pytest.fixture
def address(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@contextmanager
def refused_soon() -> Iterator[None]:
    begin = time.monotonic()
    with pytest.raises(SourceError) as caught:
        yield
    assert time.monotonic() - begin < 10 * LIMIT_S
    message = str(caught.value)
    assert "'disk'" in message
    assert message.isprintable()


@pytest.mark.parametrize("script", BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
def test_bad_handshake(script: Script, address: Path) -> None:
    with serving(script, address) as connect, refused_soon():
        connect()


@pytest.mark.parametrize("answer", BAD_READS.values(), ids=BAD_READS)
def test_bad_read(answer: Answer, address: Path) -> None:
    with serving(answering(answer), address) as connect, closing(connect()) as connection:
        with refused_soon():
            connection.read_into(4096, memoryview(bytearray(8192)))
        assert not connection.usable


@pytest.mark.parametrize("body", BAD_STATUS.values(), ids=BAD_STATUS)
def test_bad_status(body: bytes, address: Path) -> None:
    script = answering(lambda cookie, at, length: chunk(CHUNK_STATUS, cookie, body))
    with (
        serving(script, address) as connect,
        closing(NbdImage("disk", connect)) as image,
        refused_soon(),
    ):
        list(image.extents(0, SIZE))


def test_time_limit_is_named(address: Path) -> None:
    script = answering(lambda cookie, at, length: b"")
    with (
        serving(script, address) as connect,
        closing(connect()) as connection,
        pytest.raises(SourceError, match=r"read of 1 bytes at offset 9 .* NBD time limit of 0.5"),
    ):
        connection.read_into(9, memoryview(bytearray(1)))


def test_good_structured_reply(address: Path) -> None:
    """Chunks in any order, holes among them."""

    def answer(cookie: int, at: int, length: int) -> bytes:
        hole = chunk(CHUNK_HOLE, cookie, struct.pack(">QI", at, 10), done=False)
        return (
            data_chunk(cookie, at + 10, b"x" * (length - 10), done=False)
            + hole
            + chunk(0, cookie, b"")
        )

    with serving(answering(answer), address) as connect, closing(connect()) as connection:
        buffer = bytearray(b"?" * 100)
        connection.read_into(0, memoryview(buffer))
        assert buffer == bytes(10) + b"x" * 90


def test_server_without_structured_replies(address: Path) -> None:
    def answer(cookie: int, at: int, length: int) -> bytes:
        code = 5 if at else 0
        return struct.pack(">IIQ", 0x67446698, code, cookie) + (b"" if code else b"y" * length)

    script = answering(answer, structured=False)
    with serving(script, address) as connect, closing(NbdImage("disk", connect)) as image:
        assert list(image.extents(5, 100)) == [Extent(5, 100, hole=False)]
        buffer = bytearray(100)
        image.read_into(0, memoryview(buffer))
        assert buffer == b"y" * 100
        with pytest.raises(SourceError, match="Input/output error"):
            image.read_into(1, memoryview(buffer))
        image.read_into(0, memoryview(buffer))


def test_error_costs_one_request(address: Path) -> None:
    def answer(cookie: int, at: int, length: int) -> bytes:
        if at:
            return chunk(CHUNK_ERROR, cookie, struct.pack(">IH", 5, 7) + b"bad\none")
        return data_chunk(cookie, at, b"z" * length)

    with serving(answering(answer), address) as connect, closing(connect()) as connection:
        buffer = memoryview(bytearray(10))
        with pytest.raises(SourceError, match=r"at offset 1 .*Input/output error \(bad\?one\)"):
            connection.read_into(1, buffer)
        connection.read_into(0, buffer)
        assert bytes(buffer) == b"z" * 10


def test_status_is_clipped_and_merged(address: Path) -> None:
    def answer(cookie: int, at: int, length: int) -> bytes:
        runs = [(100, 3), (100, 2), (100, 1), (0xFFFFFFFF, 0)]
        packed = b"".join(struct.pack(">II", *run) for run in runs)
        return chunk(CHUNK_STATUS, cookie, struct.pack(">I", CONTEXT) + packed)

    with (
        serving(answering(answer), address) as connect,
        closing(NbdImage("disk", connect)) as image,
    ):
        # Flag 1 is a hole that promises no zeros: data.
        assert list(image.extents(50, 1000)) == [Extent(50, 200, True), Extent(250, 800, False)]


def test_size_that_changes_between_connections(address: Path) -> None:
    sizes = iter([SIZE, SIZE + 512])

    def script(peer: socket.socket) -> None:
        negotiate(peer, size=next(sizes))
        receive(peer, 28)

    with serving(script, address) as connect, closing(NbdImage("disk", connect)) as image:
        with refused_soon():  # this one hangs up, the next one lies about the size
            image.read_into(0, memoryview(bytearray(1)))
        with pytest.raises(SourceError, match="changed its size from 1048576 to 1049088"):
            image.read_into(0, memoryview(bytearray(1)))
