"""A bucket policy, carried out in front of an object server that knows only a part of it.

SeaweedFS has no condition key for `If-None-Match`, with which S3 forbids that an object is
replaced. So this proxy reads the very policy that the project hands out, refuses what it does not
allow as S3 would, and passes on the rest. Knows as much of the policy language as that policy
needs, and stops at anything else.
"""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

_DENIED: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code>'
    b"<Message>Access Denied</Message></Error>"
)
_REFUSED: Final = (
    "<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
)
_XML: Final = {"content-type": "application/xml"}
_ACTIONS: Final = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",
    "DELETE": "s3:DeleteObject",
}


@dataclass(frozen=True)
class Asked:
    """What somebody wants: `s3:PutObject` on `arn:aws:s3:::bucket/key`."""

    who: str
    action: str
    resource: str
    headers: Mapping[str, str]


@dataclass
class PolicyProxy:
    """endpoint: http://127.0.0.1:PORT. refused: how often what was refused to whom. unchecked: puts
    that came without a checksum of their content."""

    endpoint: str
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    unchecked: int = 0


@contextmanager
def policy_proxy(
    server: str, policy: Mapping[str, Any], users: Mapping[str, str]
) -> Iterator[PolicyProxy]:
    """In front of `server` (http://HOST:PORT). users: ARN of each access key that the policy is
    about; what others ask is passed on."""

    class Handler(_Handler):
        host = server.removeprefix("http://")
        rules = policy
        known = users

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        proxy = PolicyProxy(f"http://127.0.0.1:{listener.server_port}")
        Handler.proxy = proxy
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown()
            thread.join()


def is_allowed(policy: Mapping[str, Any], asked: Asked) -> bool:
    """As S3 decides: what is allowed somewhere and denied nowhere."""
    effects = {row["Effect"] for row in policy["Statement"] if _applies(row, asked)}
    return effects == {"Allow"}


def _applies(row: Mapping[str, Any], asked: Asked) -> bool:
    assert row.keys() <= {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
    return (
        asked.who in row["Principal"]["AWS"]
        and asked.action in row["Action"]
        and fnmatchcase(asked.resource, row["Resource"])
        and _holds(row.get("Condition", {}), asked.headers)
    )


def _holds(condition: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    if not condition:
        return True
    ((operator, keys),) = condition.items()
    ((key, value),) = keys.items()
    assert (operator, key) == ("Null", "s3:if-none-match"), condition
    return (headers.get("if-none-match") is None) is (value == "true")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """Or head and body of an answer come 40 ms apart."""
    host: str
    rules: Mapping[str, Any]
    known: Mapping[str, str]
    proxy: PolicyProxy

    def _pass_on(self) -> None:
        # Also of what is refused: the connection goes on to be used.
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        who = self.known.get(headers.get("authorization", "").partition("Credential=")[2][:8])
        if self.command == "PUT" and "x-amz-checksum-sha256" not in headers:
            self.proxy.unchecked += 1
        if who is not None:
            asked = list(_asked(who, self.command, self.path, headers, body))
            refused = [one for one in asked if not is_allowed(self.rules, one)]
            self.proxy.refused.update((who, one.action) for one in refused)
            if refused:
                assert refused == asked, "only one object at a time is deleted"
                self._refuse(asked)
                return
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def _refuse(self, asked: list[Asked]) -> None:
        if self.command == "POST":  # in which S3 says of each key what became of it
            rows = "".join(_REFUSED.format(key=one.resource.split("/", 1)[1]) for one in asked)
            self._answer(200, _XML, f"<DeleteResult>{rows}</DeleteResult>".encode())
        else:
            self._answer(403, _XML, _DENIED)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = _pass_on

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("content-length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said of requests."""


def _asked(
    who: str, method: str, target: str, headers: Mapping[str, str], body: bytes
) -> Iterator[Asked]:
    parts = urlsplit(target)
    bucket, _, key = parts.path.strip("/").partition("/")
    if method == "POST" and "delete" in parse_qs(parts.query, keep_blank_values=True):
        for found in ElementTree.fromstring(body).iterfind("{*}Object/{*}Key"):
            resource = f"arn:aws:s3:::{bucket}/{found.text}"
            yield Asked(who, "s3:DeleteObject", resource, headers)
    elif key:
        yield Asked(who, _ACTIONS[method], f"arn:aws:s3:::{bucket}/{key}", headers)
    else:
        assert method in ("GET", "HEAD"), (method, target)
        yield Asked(who, "s3:ListBucket", f"arn:aws:s3:::{bucket}", headers)
