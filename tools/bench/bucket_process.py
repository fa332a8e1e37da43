"""An object server that costs next to nothing: objects in memory that was touched beforehand.

Decides just what Backpoint and restic ask of S3: conditional puts, ranges, listings of 1000 a page;
no signature is checked. With it the client is what is measured, which a real server on the same two
cores prevents. `python tools/bench/bucket_process.py BYTES`; each line on stdin is [verb, argument]
and gets one line of JSON back. It ends with its stdin.
"""

from __future__ import annotations

import json
import mmap
import re
import socket
import sys
import threading
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from proxy_wire import Gone, Head, Wire

PAGE: Final = 1000
_DATE: Final = "2026-01-01T00:00:00.000Z"
_HTTP_DATE: Final = "Thu, 01 Jan 2026 00:00:00 GMT"
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass
class Bucket:
    """All objects of all buckets, by `bucket/key`."""

    room: memoryview
    used: int = 0
    objects: dict[str, memoryview] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, length: int) -> memoryview:
        """Memory for a body; what is deleted is not used again."""
        with self.lock:
            start, self.used = self.used, self.used + length
        if self.used > len(self.room):
            raise MemoryError("the bucket is full")
        return self.room[start : start + length]

    def put(self, key: str, data: memoryview, only_new: bool) -> bool:
        with self.lock:
            if key in self.objects:
                if only_new:
                    return False
            else:
                insort(self.keys, key)
            self.objects[key] = data
            return True

    def delete(self, key: str) -> None:
        with self.lock:
            if self.objects.pop(key, None) is not None:
                del self.keys[bisect_left(self.keys, key)]

    def page(self, prefix: str, after: str) -> tuple[list[tuple[str, int]], bool]:
        """Keys and sizes, and whether there are more."""
        with self.lock:
            start = bisect_left(self.keys, max(prefix, after + "\0" if after else ""))
            found = []
            for key in self.keys[start : start + PAGE + 1]:
                if not key.startswith(prefix):
                    break
                found.append((key, len(self.objects[key])))
        return found[:PAGE], len(found) > PAGE

    def load(self, folder: Path, prefix: str) -> None:
        """Every file below a folder becomes an object."""
        for path in folder.rglob("*"):
            if path.is_file():
                room = self.reserve(path.stat().st_size)
                room[:] = path.read_bytes()
                self.objects[f"{prefix}/{path.relative_to(folder)}"] = room
        self.keys = sorted(self.objects)

    def clear(self) -> None:
        with self.lock:
            self.objects.clear()
            self.keys.clear()
            self.used = 0


class Service:
    """One connection's requests."""

    def __init__(self, bucket: Bucket, client: Wire) -> None:
        self._bucket = bucket
        self._client = client

    def run(self) -> None:
        try:
            while True:
                self._exchange(self._client.head())
        except Gone:
            self._client.close()

    def _exchange(self, asked: Head) -> None:
        method, target, _ = asked.first.split(" ", 2)
        parts = urlsplit(target)
        key = unquote(parts.path).strip("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        body = self._body(asked)
        if method == "PUT":
            only_new = asked.get("if-none-match") == "*"
            stored = "/" not in key or self._bucket.put(key, body, only_new)
            self._answer(200 if stored else 412)
        elif method == "DELETE":
            self._bucket.delete(key)
            self._answer(204)
        elif method == "POST":
            self._delete_many(key, bytes(body).decode())
        elif "location" in query:
            self._page("<LocationConstraint>us-east-1</LocationConstraint>")
        elif "/" not in key and method == "GET":
            self._list(key, query)
        elif "/" not in key:
            self._answer(200)
        else:
            self._get(method, key, asked.get("range"))

    def _body(self, asked: Head) -> memoryview:
        room = self._bucket.reserve(asked.length)
        self._client.fill(room)
        if "aws-chunked" not in (asked.get("content-encoding") or "") and not (
            asked.get("x-amz-content-sha256") or ""
        ).startswith("STREAMING"):
            return room
        raw, at, parts = bytes(room), 0, []
        while at < len(raw):
            end = raw.index(b"\r\n", at)
            size = int(raw[at:end].split(b";")[0], 16)
            parts.append(raw[end + 2 : end + 2 + size])
            at = end + 4 + size
        plain = b"".join(parts)
        room[: len(plain)] = plain
        return room[: len(plain)]

    def _get(self, method: str, key: str, wanted: str | None) -> None:
        data = self._bucket.objects.get(key)
        if data is None:
            return self._answer(404, b"" if method == "HEAD" else b"<Error><Code>NoSuchKey</Code>")
        if wanted is None:
            return self._answer(200, data, head_only=method == "HEAD")
        first, last = self._range(wanted, len(data))
        if first >= len(data):
            return self._answer(416)
        span = f"bytes {first}-{last - 1}/{len(data)}"
        return self._answer(206, data[first:last], ("Content-Range", span))

    def _range(self, wanted: str, size: int) -> tuple[int, int]:
        found = _RANGE.fullmatch(wanted)
        assert found, wanted
        if not found[1]:
            return max(0, size - int(found[2])), size
        return int(found[1]), min(size, int(found[2]) + 1) if found[2] else size

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        prefix = f"{bucket}/{query.get('prefix', [''])[0]}"
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        found, more = self._bucket.page(prefix, f"{bucket}/{after}" if after else "")
        rows = "".join(
            f"<Contents><Key>{escape(key.partition('/')[2])}</Key><Size>{size}</Size>"
            f'<LastModified>{_DATE}</LastModified><ETag>"0"</ETag></Contents>'
            for key, size in found
        )
        token = found[-1][0].partition("/")[2] if more else ""
        self._page(
            f"<ListBucketResult><Name>{bucket}</Name><KeyCount>{len(found)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{rows}"
            + (f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if more else "")
            + "</ListBucketResult>"
        )

    def _delete_many(self, bucket: str, wanted: str) -> None:
        keys = re.findall(r"<Key>([^<]+)</Key>", wanted)
        for key in keys:
            self._bucket.delete(f"{bucket}/{key}")
        rows = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._page(f"<DeleteResult>{rows}</DeleteResult>")

    def _page(self, xml: str) -> None:
        self._answer(200, f'<?xml version="1.0" encoding="UTF-8"?>{xml}'.encode())

    def _answer(
        self,
        status: int,
        body: bytes | memoryview = b"",
        *more: tuple[str, str],
        head_only: bool = False,
    ) -> None:
        common = (("Content-Length", str(len(body))), ("ETag", '"0"'))
        fields = (*common, ("Last-Modified", _HTTP_DATE), *more)
        self._client.send(Head(f"HTTP/1.1 {status} X", fields).encode())
        if body and not head_only:
            self._client.send(body)


def _accept(listener: socket.socket, bucket: Bucket) -> None:
    while True:
        connection, _ = listener.accept()
        service = Service(bucket, Wire(connection))
        threading.Thread(target=service.run, daemon=True).start()


def _order(bucket: Bucket, verb: str, what: Any) -> Any:
    if verb == "load":
        bucket.load(Path(what["folder"]), what["prefix"])
    elif verb == "clear":
        bucket.clear()
    return len(bucket.keys)


def main() -> None:
    # New memory costs this machine up to 2 s a GiB, which is not to be paid while others wait.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    bucket = Bucket(memoryview(mmap.mmap(-1, int(sys.argv[1]), flags=flags)))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    threading.Thread(target=_accept, args=[listener, bucket], daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    for line in sys.stdin:
        verb, what = json.loads(line)
        print(json.dumps(_order(bucket, verb, what)), flush=True)


if __name__ == "__main__":
    main()
