"""A parser process as its parent sees it: started, asked, fed with bytes, watched, ended.

Decides what a process may cost: how long it may think about one request and how much it may read
for it. One that does not keep to it, or dies, or talks nonsense, is killed and costs the request a
ParserDied. Serves the process's reads in the thread that asks. Knows no mount.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestError, GuestUnsupported
from backpoint_fusefs.guest.worker.channel_image import REQUEST_MAX
from backpoint_fusefs.guest.worker.frames import FrameKind, FrameSocket, PeerGone, pack, unpack
from backpoint_fusefs.guest.worker.server import READ
from backpoint_repo.errors import BackpointError, SourceError

_END_S: Final = 2.0


class ParserDied(GuestError):
    """The process is gone: it crashed, or it was killed because it took too much."""


class ParserKilled(ParserDied):
    """Somebody else killed it: a person, or a kernel short of memory."""


class SandboxUnavailable(GuestError):
    """This machine cannot confine parsers, so none is run."""


class Bytes(Protocol):
    """What an image is read from. size: bytes."""

    size: int

    def read(self, offset: int, length: int) -> bytes | memoryview: ...


@dataclass(frozen=True)
class Allowance:
    """What one request may cost: seconds of thinking between two reads and in all, bytes read."""

    silence_s: float = 30.0
    thinking_s: float = 120.0
    bytes_read: int = 4 << 30


_ERRORS: Final = {"GuestDamaged": GuestDamaged, "GuestUnsupported": GuestUnsupported}


class ParserProcess:
    """Starts when it is made. Thread-safe: one request at a time.

    images: what the process may read. Raises SandboxUnavailable, GuestError, and what reading an
    image raises.
    """

    def __init__(
        self,
        kind: str,
        images: Sequence[Bytes],
        *,
        streams: bool = False,
        allowance: Allowance | None = None,
    ) -> None:
        self._images = images
        self._allowance = allowance or Allowance()
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                _command(theirs.fileno(), kind, streams),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # What a hostile guest makes a parser print is nobody's message.
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"TZ": "UTC", "LC_ALL": "C.UTF-8"},
            )
        self._frames = FrameSocket(ours)
        self._stream = ours
        self._fault: BackpointError | None = None
        try:
            # The first answer comes unasked: it is confined.
            self._answer_to("start")
            self.ask("open", *(image.size for image in images))
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked again, as far as anybody can tell."""
        return self._process.poll() is None

    def ask(self, name: str, *arguments: Any) -> Any:
        """The answer to one request. Raises GuestError; what reading an image raises."""
        with self._lock:
            if self._process.returncode is not None:
                raise ParserDied("its parser has been ended")
            return self._answer_to(name, pack((name, *arguments)))

    def end_if_idle(self) -> bool:
        """Kill it unless it is answering somebody."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self.end()
        finally:
            self._lock.release()
        return True

    def end(self) -> None:
        """Kill it; nothing of it is left when this returns."""
        self._process.kill()
        self._process.wait(_END_S)
        self._frames.close()

    def _answer_to(self, name: str, request: bytes | None = None) -> Any:
        self._fault = None
        try:
            if request is not None:
                self._stream.settimeout(self._allowance.silence_s)
                self._frames.send(FrameKind.REQUEST, request)
            return self._result()
        except (PeerGone, TimeoutError) as error:
            raise self._died(name, error) from error

    def _result(self) -> Any:
        """Serve reads until the answer comes."""
        started = time.monotonic()
        left, reading_s = self._allowance.bytes_read, 0.0
        while True:
            self._stream.settimeout(self._allowance.silence_s)
            kind, payload = self._frames.receive()
            if kind is FrameKind.READ:
                before = time.monotonic()
                left -= self._serve(payload)
                reading_s += time.monotonic() - before
                thinking_s = time.monotonic() - started - reading_s
                if left < 0 or thinking_s > self._allowance.thinking_s:
                    raise TimeoutError
                continue
            if self._fault is not None:
                # Whatever the parser made of it: bytes were missing that the guest has.
                raise self._fault
            if kind is FrameKind.BYTES:
                return bytes(payload)
            answer = unpack(payload)
            if kind is FrameKind.RESULT:
                return answer
            raise _error(answer)

    def _serve(self, payload: bytearray) -> int:
        """Answer a read; how many bytes that was."""
        if len(payload) != READ.size:
            raise PeerGone("a read that makes no sense")
        image, offset, length = map(int, READ.unpack(payload))
        if image >= len(self._images) or length > REQUEST_MAX:
            raise PeerGone("a read of something there is not")
        if offset + length > self._images[image].size:
            raise PeerGone("a read behind the end")
        try:
            content = self._images[image].read(offset, length)
            if len(content) != length:
                raise SourceError("an image ended too soon")
        except BackpointError as error:
            self._fault = error
            self._frames.send(FrameKind.FAULT, str(error).encode())
            return 0
        self._frames.send(FrameKind.DATA, content)
        return length

    def _died(self, name: str, error: Exception) -> ParserDied:
        if isinstance(error, TimeoutError):
            self.end()
            return ParserDied(f"its parser was ended: {name!r} took more than it may")
        try:
            # The connection closes a moment before a crashing process has ended.
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            code = 0
        self.end()
        how = f"signal {-code}" if code < 0 else str(error)
        kind = ParserKilled if code == -signal.SIGKILL else ParserDied
        return kind(f"its parser died at {name!r} ({how})")


def _command(descriptor: int, kind: str, streams: bool) -> list[str]:
    module = "backpoint_fusefs.guest.worker"
    mode = "streams" if streams else "plain"
    # -I: neither the environment nor the working directory decide what is imported.
    return [sys.executable, "-I", "-m", module, str(descriptor), kind, mode]


def _error(answer: Any) -> GuestError:
    match answer:
        case (str(kind), str(message)) if kind in _ERRORS:
            return _ERRORS[kind](message)
        case ("SandboxMissing", str(message)):
            return SandboxUnavailable(message)
        case _:
            return GuestDamaged("its parser refused without a reason")
