"""One file of a datastore, by vCenter's file access over HTTPS (`/folder/...?dcPath=&dsName=`).

Decides how a datastore path becomes a URL, that an answer to a range is exactly that range, what
each HTTP status means, and how often a read is tried again. Refuses to know what is in the file.

Quoting. The path, `dcPath` and `dsName` are each percent-encoded once, a space as `%20`. `dcPath`
is an inventory path: its elements are the names as the API gives them, in which vCenter itself
writes `/`, `\\` and `%` as `%2f`, `%5c` and `%25`; the `%` of those is encoded like any other, and
that is all there is to "double-quoted" names. One exception is vCenter's own: it splits the query
again after it decoded it, so an ampersand in a datacenter's name has to survive one decoding.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol, TypeVar
from urllib.parse import quote

import urllib3

from backpoint_agent.errors import (
    CannotConnect,
    ObjectGone,
    PermissionMissing,
    TaskFailed,
)
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.vcenter import VCenter

REQUEST_LIMIT: Final = 2 << 20
"""Bytes asked for at once: an answer that breaks costs little, and a stop is heard between two."""

_ANSWER_LIMIT_S: Final = 300.0
"""Of the answer to one request; the silence in it has the vCenter's own limit."""

_TRIES: Final = 4
_FIRST_PAUSE_S: Final = 0.5
_PIECE: Final = 256 << 10
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_READ_PRIVILEGE: Final = "Datastore.Browse or Datastore.FileManagement"
_WRITE_PRIVILEGE: Final = "Datastore.FileManagement"

T = TypeVar("T")


class Readable(Protocol):
    """What `write` takes its bytes from: any binary file."""

    def read(self, size: int, /) -> bytes: ...


class DatastoreFile:
    """A file that may or may not exist. Reads may come from several threads at once.

    Every method raises what `VCenter.http` raises, and: ObjectGone (404), PermissionMissing (403),
    CannotConnect for answers that break off, do not fit or are the server's own trouble (5xx; what
    a host has locked is answered so too), TaskFailed for any other status.
    """

    def __init__(
        self, vcenter: VCenter, datacenter: str, path: str, stop: Stop | None = None
    ) -> None:
        """datacenter: its inventory path ("Europe/DC0"). path: "[datastore] folder/name".

        stop: ends the pauses between tries. Raises TaskFailed for what is no datastore path.
        """
        self._vcenter = vcenter
        self._url = folder_url(datacenter, path)
        self._path = path
        self._stop = stop or Stop()

    @property
    def name(self) -> str:
        """ "[datastore] folder/name"."""
        return self._path

    def size(self) -> int:
        """Bytes, as the server says now."""
        return self._tried(self._ask_size)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes; they lie inside the file."""
        data = bytearray(length)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`, in requests of at most REQUEST_LIMIT."""
        target = buffer.cast("B")
        for start in range(0, len(target), REQUEST_LIMIT):
            piece = target[start : start + REQUEST_LIMIT]
            self._stop.check()
            self._tried(partial(self._ask_range, offset + start, piece))

    def read_all(self, limit: int) -> bytes:
        """The whole file. Raises TaskFailed where it has more than `limit` bytes."""
        size = self.size()
        if size > limit:
            raise TaskFailed(f"{self._path} has {size} bytes, more than the {limit} it may have")
        return self.read(0, size)

    def tail(self, limit: int) -> bytes:
        """The last `limit` bytes, all of a shorter file."""
        size = self.size()
        return self.read(max(0, size - limit), min(size, limit))

    def write(self, stream: Readable, size: int) -> None:
        """Make the file, or make it anew, with the `size` bytes that `stream` has.

        Not tried again, for the stream is spent; a file that was begun stays behind. Raises
        TaskFailed where the stream has fewer or more bytes, or the file not `size` of them then.
        """
        # A session that ran out is found here: the stream can be sent only once.
        with contextlib.suppress(ObjectGone):
            self.size()
        self._stop.check()
        body = _Exactly(stream, size, self._path, self._stop)
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with self._answer("PUT", headers, body) as answer:
            self._check_status(answer.status, (200, 201, 204), _WRITE_PRIVILEGE)
            answer.close()  # whatever the server may want to tell about it
        body.check_spent()
        if (stored := self.size()) != size:
            raise TaskFailed(f"{self._path} has {stored} bytes after {size} were written")

    def _ask_size(self) -> int:
        with self._answer("HEAD", {}) as answer:
            answer.drain_conn()
            self._check_status(answer.status, (200,), _READ_PRIVILEGE)
            text = answer.headers.get("Content-Length", "")
            if not re.fullmatch(r"\d{1,18}", text):
                raise CannotConnect(f"the server does not say the size of {self._path}")
            return int(text)

    def _ask_range(self, offset: int, buffer: memoryview) -> None:
        last = offset + len(buffer) - 1
        with self._answer("GET", {"Range": f"bytes={offset}-{last}"}) as answer:
            self._check_status(answer.status, (206,), _READ_PRIVILEGE, offset)
            what = f"{self._path} at offset {offset}"
            said = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if said is None or (int(said[1]), int(said[2])) != (offset, last):
                raise CannotConnect(f"reading {what}: the answer is not the range that was asked")
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise CannotConnect(f"reading {what}: the answer is encoded")
            self._take_body(answer, buffer, what)

    def _take_body(self, answer: urllib3.BaseHTTPResponse, buffer: memoryview, what: str) -> None:
        deadline = time.monotonic() + _ANSWER_LIMIT_S
        filled = 0
        while filled < len(buffer):
            # What is there, and no waiting for more: a server that drips is noticed.
            data = answer.read1(len(buffer) - filled, decode_content=False)
            if not data:
                raise CannotConnect(f"reading {what}: {len(buffer) - filled} bytes are missing")
            buffer[filled : filled + len(data)] = data
            filled += len(data)
            self._stop.check()
            if time.monotonic() > deadline:
                raise CannotConnect(f"reading {what} took more than {_ANSWER_LIMIT_S:g} s")
        if answer.read(1, decode_content=False):
            raise CannotConnect(f"reading {what}: more bytes than were asked for")

    @contextlib.contextmanager
    def _answer(
        self, method: str, headers: dict[str, str], body: Readable | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """One exchange; its connection is used again only if all of the answer was read."""
        headers = {"Accept-Encoding": "identity", **headers}
        answer = self._vcenter.http(method, self._url, headers=headers, body=body)
        try:
            yield answer
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise CannotConnect(
                f"the answer about {self._path} broke off: {type(error).__name__}"
            ) from error
        finally:
            # Closed where not all of it was read; the pool wants it back in any case.
            answer.close()
            answer.release_conn()

    def _check_status(
        self, status: int, wanted: tuple[int, ...], privilege: str, offset: int | None = None
    ) -> None:
        if status in wanted:
            return
        where = self._path if offset is None else f"{self._path} at offset {offset}"
        if status == 404:
            raise ObjectGone(f"{where} does not exist, or its datastore or datacenter does not")
        if status in (401, 403):
            raise PermissionMissing(f"the account needs the privilege {privilege} for {where}")
        if status >= 500 or status in (200, 408, 429):
            # 200 to a range: the whole file, from its beginning.
            raise CannotConnect(f"the server answered {where} with HTTP status {status}")
        raise TaskFailed(f"the server answered {where} with HTTP status {status}")

    def _tried(self, ask: Callable[[], T]) -> T:
        pause_s = _FIRST_PAUSE_S
        for left in reversed(range(_TRIES)):
            try:
                return ask()
            except CannotConnect as error:
                if not left:
                    raise CannotConnect(f"{error} ({_TRIES} tries)") from error
            self._stop.wait(random.uniform(pause_s / 2, pause_s))
            pause_s *= 2
        raise AssertionError("the last try returns or raises")


def folder_url(datacenter: str, path: str) -> str:
    """Path and query of a file on the vCenter. Raises TaskFailed for what is no datastore path."""
    datastore, file = split_datastore_path(path)
    dc_path = quote(datacenter.replace("&", "%26"), safe="")
    return f"/folder/{quote(file)}?dcPath={dc_path}&dsName={quote(datastore, safe='')}"


def split_datastore_path(path: str) -> tuple[str, str]:
    """("datastore", "folder/name") of "[datastore] folder/name".

    Raises TaskFailed for anything else, and for names that lead elsewhere ("..").
    """
    datastore, bracket, file = path.removeprefix("[").partition("] ")
    odd = {"", ".", ".."}.intersection(file.split("/"))
    if not (path.startswith("[") and bracket and datastore) or odd or "\0" in path:
        raise TaskFailed(f"{path!r} is not the name of a file on a datastore")
    return datastore, file


class _Exactly:
    """A stream that is found out when it has more or fewer bytes than it was said to have."""

    def __init__(self, stream: Readable, size: int, name: str, stop: Stop) -> None:
        self._stream = stream
        self._rest = size
        self._name = name
        self._stop = stop

    def read(self, size: int = -1) -> bytes:
        self._stop.check()
        wanted = min(self._rest, _PIECE if size < 0 else size)
        data = self._stream.read(wanted) if wanted else b""
        if len(data) > wanted or (wanted and not data):
            raise TaskFailed(f"writing {self._name}: {self._rest} bytes of its content are missing")
        self._rest -= len(data)
        return data

    def check_spent(self) -> None:
        """Raises TaskFailed where not all was sent, or more is left."""
        if self._rest or self._stream.read(1):
            raise TaskFailed(f"writing {self._name}: its content is not of the size announced")
