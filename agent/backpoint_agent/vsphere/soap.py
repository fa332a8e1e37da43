"""One session's SOAP exchanges with a vCenter, in pyvmomi's terms.

Decides how large an answer may be and what counts as one. Refuses to know how a session begins or
is renewed. Everything that goes wrong below SOAP is raised as our error, pyvmomi's faults as they
are: `VCenter.call` puts them into words.
"""

from __future__ import annotations

import io
from http.client import HTTPException
from typing import Any, Final
from xml.etree import ElementTree

import urllib3
from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import SoapResponseDeserializer, SoapStubAdapterBase
from pyVmomi.VmomiSupport import F_OPTIONAL, GetServiceVersions, versionIdMap
from urllib3.exceptions import HTTPError

from backpoint_agent.errors import CannotConnect
from backpoint_agent.vsphere.connections import Connections, connection_error

ANSWER_MAX: Final = 64 << 20
"""Bytes of an answer. A page of 100 VMs has about 10 MB; as objects it is ten times
that, which is what the agent's memory has to bear."""
_PIECE: Final = 1 << 20
_COOKIE: Final = "vmware_soap_session"
_OK, _FAULT, _UNAVAILABLE = 200, 500, 503


class SoapSession(SoapStubAdapterBase):  # type: ignore[misc]  # pyVmomi has no types
    """Thread-safe once it is logged in. cookie: "vmware_soap_session=..." as vCenter set it last.
    limit_s: of an exchange, where it is not the usual one."""

    def __init__(self, connections: Connections, version: str) -> None:
        super().__init__(version=version)
        self.cookie = ""
        self.requestContext = None
        self.limit_s: float | None = None
        self._connections = connections

    def __repr__(self) -> str:
        return f"<session of {self._connections.address}>"

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outer: Any = None) -> Any:
        """As pyvmomi wants it. outer: the stub that objects in the answer shall ask through."""
        request = self.SerializeRequest(mo, info, args)
        headers = {
            "Content-Type": "text/xml; charset=UTF-8",
            "SOAPAction": self.versionId,
            "User-Agent": "backpoint",
            # A small compressed answer may stand for an endless one; the network is near.
            "Accept-Encoding": "identity",
        }
        if self.cookie:
            headers["Cookie"] = self.cookie
        answer = self._connections.call("POST", "/sdk", headers, request, self.limit_s)
        body = read_answer(answer, self._connections)
        if answer.status not in (_OK, _FAULT):
            raise _refusal(answer.status, self._connections)
        result = self._parse(body, info, outer or self)
        if isinstance(result, vmodl.MethodFault) and answer.status == _FAULT:
            raise result
        if answer.status != _OK:
            raise _nonsense(self._connections)
        self._take_cookie(answer)
        return result

    def _take_cookie(self, answer: urllib3.BaseHTTPResponse) -> None:
        for header in answer.headers.getlist("Set-Cookie"):
            pair = header.partition(";")[0].strip()
            if pair.startswith(f"{_COOKIE}="):
                self.cookie = pair

    def _parse(self, body: bytes, info: Any, stub: Any) -> Any:
        """The answer's object, whose class is the one that the method promises."""
        try:
            deserializer: Any = SoapResponseDeserializer(stub)
            result = deserializer.Deserialize(io.BytesIO(body), info.result)
        # pyvmomi's deserialiser meets hostile XML with whatever Python raises there: ExpatError,
        # KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError ...
        except Exception:
            raise _nonsense(self._connections) from None
        if isinstance(result, vmodl.MethodFault) or info.result is type(None):
            return result
        fits = bool(info.resultFlags & F_OPTIONAL) if result is None else False
        if not fits and not isinstance(result, info.result):
            raise _nonsense(self._connections)
        return result


def service_of(stub: Any) -> Any:
    """The ServiceInstance, where everything begins."""
    return vim.ServiceInstance("ServiceInstance", stub)


def session_value(cookie: str) -> str:
    """What follows the name in a session's cookie."""
    return cookie.partition("=")[2].strip('"')


def read_answer(answer: urllib3.BaseHTTPResponse, connections: Connections) -> bytes:
    """The whole body, bounded. Raises CannotConnect if it is larger, breaks off or takes long."""
    body = bytearray()
    whole = False
    try:
        while piece := answer.read(_PIECE, decode_content=False):
            body += piece
            if len(body) > ANSWER_MAX:
                raise CannotConnect(
                    f"{connections.address} answers with more than {ANSWER_MAX >> 20} MiB"
                )
        whole = True
    except (HTTPError, HTTPException, OSError, ValueError) as error:
        host, port, limit_s = connections.host, connections.port, connections.limit_s
        raise connection_error(error, host, port, limit_s) from None
    finally:
        if whole:
            answer.release_conn()
        else:
            answer.close()
    return bytes(body)


def choose_version(connections: Connections) -> str:
    """The newest API version that both sides know, as pyvmomi names it, so that vCenter never
    answers with types that are unknown here."""
    answer = connections.call("GET", "/sdk/vimServiceVersions.xml", {}, None)
    body = read_answer(answer, connections)
    if answer.status != _OK:
        raise _refusal(answer.status, connections)
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise _nonsense(connections) from None
    offered = {
        (element.text or "").strip()
        for space in root.findall("namespace")
        if space.findtext("name") == "urn:vim25"
        for element in space.iter("version")
    }
    for version in GetServiceVersions("vim25"):
        if versionIdMap[version] in offered:
            return str(version)
    raise CannotConnect(f"{connections.address} speaks no version of the vSphere API known here")


def _refusal(status: int, connections: Connections) -> CannotConnect:
    if status == _UNAVAILABLE:
        return CannotConnect(f"{connections.address} is not ready (HTTP 503), it may be starting")
    return CannotConnect(f"{connections.address} answers HTTP {status}, not as a vCenter does")


def _nonsense(connections: Connections) -> CannotConnect:
    return CannotConnect(f"{connections.address} answers with something that is no SOAP answer")
