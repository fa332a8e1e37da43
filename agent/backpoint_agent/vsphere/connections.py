"""HTTPS connections to one vCenter, and to the hosts that its answers name.

Decides how long anything may take, that nothing goes in the clear or by a proxy, and how each way
to fail is told. Refuses to know sessions and SOAP; whom to believe is `trust.py`'s decision.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import OrderedDict
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from backpoint_agent.errors import CannotConnect, CertificateRefused, VSphereError
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.trust import (
    Trust,
    TrustContext,
    TrustedSocket,
    explain_refusal,
    fingerprint,
)

HOSTS_MAX: Final = 64
"""Hosts whose idle connections are kept; a cluster has at most 96, rarely all at once."""
IDLE_CONNECTIONS_MAX: Final = 32
PORT: Final = 443


class _Connection(HTTPSConnection):
    """The answer's headers come within the read timeout in all, not each byte of them; its body
    may take long, as long as it goes on."""

    whole_answer = False
    heeds: Stop | None = None

    def request(self, *arguments: Any, **options: Any) -> None:
        secure, limit_s = self._secure()
        # What was left of the limit of the answer before is not this request's.
        secure.give_up_at = None
        # What is asked after a stop is clearing up, and is not cut.
        secure.heeds = self.heeds if self.heeds and self.heeds.reason is None else None
        secure.settimeout(limit_s)
        super().request(*arguments, **options)

    def getresponse(self) -> Any:
        secure, limit_s = self._secure()
        secure.give_up_at = time.monotonic() + limit_s
        answer = super().getresponse()
        if not self.whole_answer:
            secure.give_up_at = None
            secure.settimeout(limit_s)
        return answer

    def _secure(self) -> tuple[TrustedSocket, float]:
        assert isinstance(self.sock, TrustedSocket), "the handshake decides whom we believe"
        return self.sock, float(self.timeout or 0)


class _ShortConnection(_Connection):
    """The answer comes within the read timeout, with its body."""

    whole_answer = True


class _ShortPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _ShortConnection


class Connections:
    """Thread-safe. host, port: the vCenter's; limit_s: of an exchange."""

    def __init__(self, address: str, trust: Trust, limit_s: float, stop: Stop) -> None:
        """Connects to nobody yet. stop: ends transfers that wait; calls are not cut.

        Raises CannotConnect for an address that is none, and CertificateRefused where the
        authorities cannot be loaded.
        """
        self.host, self.port = _split(address)
        self.limit_s = limit_s
        self._trust = trust
        self._context = trust.context()
        self._lock = threading.Lock()
        self._hosts: OrderedDict[tuple[str, int, str | None], urllib3.HTTPSConnectionPool] = (
            OrderedDict()
        )
        self._pool_class = _heeding(stop)
        self._calls = _ShortPool(self.host, self.port, **self._pool_options(self._context))
        self._bulk = self._pool_class(self.host, self.port, **self._pool_options(self._context))

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def thumbprint(self, algorithm: str) -> str:
        """Of the vCenter's certificate as it was last verified; "" before the first exchange."""
        seen = self._context.presented
        return fingerprint(seen, algorithm) if seen else ""

    def call(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
        limit_s: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """One exchange with the vCenter that is over, with its answer's body, within the limit.
        limit_s: if another than usual."""
        return self._send(self._calls, method, path, headers, body, limit_s or self.limit_s)

    def transfer(
        self, method: str, url: str, headers: dict[str, str], body: Any, thumbprint: str | None
    ) -> urllib3.BaseHTTPResponse:
        """One exchange with whom `url` names, of any size; only silence is limited."""
        host, port, path = self.locate(url)
        pool = self._bulk if self.is_own(host, port) else self._host_pool(host, port, thumbprint)
        return self._send(pool, method, path, headers, body, self.limit_s)

    def locate(self, url: str) -> tuple[str, int, str]:
        """Host, port and path of `url`; a path, or the host `*` in a lease, is the vCenter's."""
        if url.startswith("/"):
            return self.host, self.port, url
        try:
            parts = urllib3.util.parse_url(url.replace("https://*/", f"https://{self.address}/", 1))
        except LocationParseError:
            parts = urllib3.util.Url()
        if not parts.host or not parts.scheme:
            raise CannotConnect(f"{url[:200]!r} is no address of a file")
        if parts.scheme != "https":
            raise CertificateRefused(f"{parts.host} would be asked without TLS; refused")
        return parts.host, parts.port or PORT, parts.request_uri

    def is_own(self, host: str, port: int) -> bool:
        """Whether this is the vCenter."""
        return (host, port) == (self.host, self.port)

    def close(self) -> None:
        """Close all that is idle."""
        with self._lock:
            pools = [self._calls, self._bulk, *self._hosts.values()]
            self._hosts.clear()
        for pool in pools:
            pool.close()

    def _pool_options(self, context: TrustContext) -> dict[str, Any]:
        return {
            "ssl_context": context,
            "maxsize": IDLE_CONNECTIONS_MAX,
            # The handshake compares it already; urllib3 warns where it knows of no check.
            "assert_fingerprint": context.pin,
        }

    def _host_pool(
        self, host: str, port: int, thumbprint: str | None
    ) -> urllib3.HTTPSConnectionPool:
        trust = self._trust.for_host(thumbprint)
        with self._lock:
            key = (host, port, trust.pin)
            pool = self._hosts.pop(key, None)
            if pool is None:
                pool = self._pool_class(host, port, **self._pool_options(trust.context()))
            self._hosts[key] = pool
            old = self._hosts.popitem(last=False)[1] if len(self._hosts) > HOSTS_MAX else None
        if old is not None:
            old.close()
        return pool

    def _send(
        self,
        pool: urllib3.HTTPSConnectionPool,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Any,
        limit_s: float,
    ) -> urllib3.BaseHTTPResponse:
        try:
            return pool.urlopen(
                method,
                path,
                body,
                headers,
                retries=False,
                redirect=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=limit_s, read=limit_s),
            )
        except (HTTPError, OSError, ValueError) as error:
            failure = connection_error(error, pool.host, pool.port or PORT, limit_s)
        raise failure


def _heeding(stop: Stop) -> type[urllib3.HTTPSConnectionPool]:
    """Pools of connections whose answers are not waited for once a stop is requested."""

    class Connection(_Connection):
        heeds = stop

    class Pool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool


def connection_error(error: Exception, host: str, port: int, limit_s: float) -> VSphereError:
    """Ours for what urllib3 or a socket raised; for bodies that are read elsewhere, too."""
    cause: object = error
    if isinstance(error, SSLError) and error.args:
        cause = error.args[0]
    if isinstance(cause, ssl.SSLError):
        refusal = explain_refusal(cause, host, port, limit_s)
        if refusal is not None:
            return CertificateRefused(refusal)
    where = f"{host}:{port}"
    if isinstance(error, NameResolutionError):
        return CannotConnect(f"the name {host} is not known to the resolver")
    if isinstance(error, ConnectTimeoutError):
        return CannotConnect(f"{where} cannot be reached within {limit_s:g} s")
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return CannotConnect(f"{where} did not answer within {limit_s:g} s")
    if isinstance(error, NewConnectionError):
        return CannotConnect(f"{where} refuses connections, or is not reachable")
    if isinstance(cause, ssl.SSLError):
        return CannotConnect(f"{where} does not speak TLS with us: {cause.reason or 'cut'}")
    if isinstance(error, ProtocolError | OSError):
        return CannotConnect(f"the connection to {where} was cut")
    return CannotConnect(f"no exchange with {where} is possible: {type(error).__name__}")


def _split(address: str) -> tuple[str, int]:
    try:
        parts = urllib3.util.parse_url(f"https://{address}")
    except LocationParseError:
        parts = urllib3.util.Url()
    if not parts.host or parts.auth or parts.request_uri != "/":
        raise CannotConnect(f"{address[:200]!r} is neither host nor host:port")
    return parts.host, parts.port or PORT
