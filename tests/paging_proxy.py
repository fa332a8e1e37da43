"""A vCenter that answers as newer ones do: the simulator behind a proxy.

The simulator ignores `maxObjects`, this hands out its answers page by page; it may forget what is
left of them, as a vCenter does whose session ended. The simulator has its tags at `/rest`, this
also at `/api`.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from rogue_server import ok
from vcsim import Simulator

_OBJECTS: Final = re.compile(rb"<objects>.*?</objects>", re.DOTALL)
_LIMIT_S: Final = 30
_FAULT: Final = """<?xml version="1.0"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><soapenv:Fault>
<faultcode>ServerFaultCode</faultcode><faultstring>gone</faultstring><detail>
<{kind}Fault xmlns="urn:vim25" xsi:type="{kind}">{fields}</{kind}Fault>
</detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>"""
_SESSION_GONE: Final = _FAULT.format(
    kind="NotAuthenticated",
    fields='<object type="PropertyCollector">propertyCollector</object><privilegeId/>',
)
_TOKEN_STALE: Final = _FAULT.format(
    kind="InvalidArgument", fields="<invalidProperty>token</invalidProperty>"
)


_API: Final = re.compile("[A-Z]+ /api/")


def _older(line: str) -> str:
    """A request line to `/api` as it is to `/rest`."""
    line = line.replace("/api/session", "/rest/com/vmware/cis/session")
    line = line.replace("/api/cis/", "/rest/com/vmware/cis/").replace("?action=", "?~action=")
    return re.sub(r"(/tagging/(tag|category)/)(?!id:)", r"\1id:", line)


@dataclass
class PagingProxy:
    """The `answer` of a `RogueServer`. pages: objects in each answer that had any. forget: so many
    times the session ends when a further page is asked for."""

    simulator: Simulator
    forget: int = 0
    pages: list[int] = field(default_factory=list)
    _left: dict[str, tuple[bytes, list[bytes], bytes, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: bytes, _ended: threading.Event) -> Iterable[bytes]:
        """One exchange."""
        head, _, body = request.partition(b"\r\n\r\n")
        with self._lock:
            if b"ContinueRetrievePropertiesEx" in body:
                yield self._next(body)
                return
        line, _, rest = head.decode().partition("\r\n")
        newer = _API.match(line)
        status, headers, answer = self._forward(f"{_older(line)}\r\n{rest}", body)
        if newer and answer:
            answer = json.dumps(json.loads(answer).get("value", [])).encode()
        wanted = re.search(rb"<maxObjects[^>]*>(\d+)</maxObjects>", body)
        if status == 200 and wanted and b"<objects>" in answer:
            with self._lock:
                answer = self._page(answer, int(wanted[1]))
        yield ok(answer, f"{status} X", headers)

    def _forward(self, head: str, body: bytes) -> tuple[int, str, bytes]:
        line, *fields = head.split("\r\n")
        method, path, _ = line.split(" ")
        sent = dict(each.split(": ", 1) for each in fields)
        sent.pop("Accept-Encoding", None)
        context = ssl.create_default_context(cafile=str(self.simulator.ca_file))
        connection = http.client.HTTPSConnection(
            self.simulator.host, self.simulator.port, timeout=_LIMIT_S, context=context
        )
        try:
            connection.request(method, path, body or None, sent)
            answer = connection.getresponse()
            kept = [
                f"{name}: {value}\r\n"
                for name, value in answer.getheaders()
                if name in {"Set-Cookie", "Content-Type"}
            ]
            return answer.status, "".join(kept), answer.read()
        finally:
            connection.close()

    def _page(self, answer: bytes, size: int) -> bytes:
        objects = _OBJECTS.findall(answer)
        start, end = answer.index(b"<objects>"), answer.rindex(b"</objects>") + len(b"</objects>")
        return self._part(answer[:start], objects, answer[end:], size)

    def _part(self, before: bytes, objects: list[bytes], after: bytes, size: int) -> bytes:
        self.pages.append(len(objects[:size]))
        token = b""
        if len(objects) > size:
            number = str(len(self.pages))
            self._left[number] = before, objects[size:], after, size
            token = b"<token>%s</token>" % number.encode()
        return before + token + b"".join(objects[:size]) + after

    def _next(self, body: bytes) -> bytes:
        token = re.search(rb"<token[^>]*>(\w+)</token>", body)
        if self.forget:
            self.forget -= 1
            self._left.clear()
            return ok(_SESSION_GONE.encode(), "500 X", "Content-Type: text/xml\r\n")
        assert token, body
        if token[1].decode() not in self._left:
            return ok(_TOKEN_STALE.encode(), "500 X", "Content-Type: text/xml\r\n")
        before, objects, after, size = self._left.pop(token[1].decode())
        part = self._part(before, objects, after, size)
        part = re.sub(rb"(?<=[</])RetrieveProp", b"ContinueRetrieveProp", part)
        return ok(part, headers="Content-Type: text/xml\r\n")
