"""One vCenter, logged in: the only door to it.

Decides what is tried again, and puts every failure into words. Refuses to know VMs. How the server
is trusted is in `trust.py`, limits of an exchange in `connections.py`, that a lost session is
renewed in `session_keeper.py`, what a fault means in `faults.py`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import urllib3
from pyVmomi import vmodl
from pyVmomi.VmomiSupport import GetWsdlType

from backpoint_agent.errors import CannotConnect, LoginRefused, VSphereError
from backpoint_agent.secret_reading import read_secret
from backpoint_agent.settings.model import VCenterSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.back_off import plan_waits
from backpoint_agent.vsphere.connections import Connections, connection_error
from backpoint_agent.vsphere.faults import error_of, faults_of, one_line, with_faults
from backpoint_agent.vsphere.session_keeper import SessionKeeper
from backpoint_agent.vsphere.soap import (
    SoapSession,
    choose_version,
    service_of,
    session_value,
)
from backpoint_agent.vsphere.trust import Trust
from backpoint_repo.errors import KeyFault

T = TypeVar("T")
_UNAUTHORIZED: Final = 401


class VCenter:
    """Thread-safe. Every call may raise CannotConnect, LoginRefused, CertificateRefused,
    PermissionMissing, ObjectGone, Busy, QuiesceFailed, TaskFailed, Stopped; of these
    `faults.is_fault` says which fault of VMware's is behind. An exchange takes no longer than the
    settings' `request_limit_s`, and is not cut by a stop: its effect would be unknown."""

    def __init__(self, settings: VCenterSettings, stop: Stop) -> None:
        """Connect, verify the certificate, log in. stop: ends waits before another try."""
        self._settings = settings
        self._stop = stop
        self._chance = random.Random()
        trust = Trust.make(settings.ca_file, settings.thumbprint)
        self._connections = Connections(settings.address, trust, settings.request_limit_s, stop)
        try:
            self._open()
        except BaseException:
            self._connections.close()
            raise

    def _open(self) -> None:
        version = self._ask_again("connecting", lambda: choose_version(self._connections), True)
        # Not repeated: a connection that was cut may have delivered a wrong password.
        self._keeper = self._ask_again("connecting", lambda: self._log_in(version), False)
        try:
            self._content = self.call(
                "reading what this vCenter is", service_of(self._keeper).RetrieveContent
            )
            if getattr(self._content.about, "apiType", None) != "VirtualCenter":
                raise CannotConnect(f"{self.address} is no vCenter; hosts cannot be asked alone")
        except BaseException:
            self._keeper.close()
            raise

    def _log_in(self, version: str) -> SessionKeeper:
        return SessionKeeper(
            version,
            self._settings.user,
            begin=lambda: SoapSession(self._connections, version),
            password=self._password,
            keep_alive_s=self._settings.keep_alive_s,
        )

    def __repr__(self) -> str:
        return f"<vCenter {self.name} at {self.address}>"

    @property
    def name(self) -> str:
        """As the configuration calls it."""
        return self._settings.name or self.address

    @property
    def uuid(self) -> str:
        """instanceUuid of the vCenter."""
        return str(self._content.about.instanceUuid or "")

    @property
    def content(self) -> Any:
        """The ServiceContent."""
        return self._content

    @property
    def address(self) -> str:
        """host:port."""
        return self._connections.address

    def thumbprint(self, algorithm: str = "sha1") -> str:
        """ "AA:BB:..." of the vCenter's certificate as it was verified; algorithm: sha1, sha256."""
        return self._connections.thumbprint(algorithm)

    def call(self, what: str, ask: Callable[[], T], *, repeat: bool = True) -> T:
        """Run one exchange ("reading the inventory"): faults become our errors, a lost session is
        renewed. repeat: it only asks, so that after a broken connection it may be made again, with
        back-off, within about `request_limit_s`; an exchange with an effect says False, and a
        CannotConnect leaves open whether it happened. When a stop was requested before, this is
        clearing up, and is tried again all the same."""
        return self._ask_again(what, ask, repeat)

    def _ask_again(self, what: str, ask: Callable[[], T], repeat: bool) -> T:
        """Errors leave outside the handlers, so that no chain shows what pyvmomi held."""
        stop = self._stop if self._stop.reason is None else Stop()
        waits = plan_waits(self._settings.request_limit_s, self._chance)
        give_up_at = time.monotonic() + self._settings.request_limit_s
        renewed = False
        while True:
            logins = self._logins()
            try:
                return ask()
            except vmodl.MethodFault as fault:
                error = error_of(f"{self.name}: {what}", fault, self.name_of)
            except VSphereError as failure:
                error = type(failure)(f"{self.name}: {what}: {failure}")
                with_faults(error, faults_of(failure))
            # Collectors and views die with their session: asked in a new one, all is well.
            if repeat and not renewed and self._logins() != logins:
                renewed = True
                continue
            wait = next(waits, None)
            if wait is None or time.monotonic() + wait > give_up_at:
                raise error
            if not repeat or not isinstance(error, CannotConnect):
                raise error
            stop.wait(wait)

    def object(self, kind: str, moref: str) -> Any:
        """A managed object by type ("VirtualMachine", "HttpNfcLease") and moref; asks nobody."""
        managed: Any = GetWsdlType("urn:vim25", kind)
        return managed(moref, self._keeper)

    def http(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: Any = None,
        thumbprint: str | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """One HTTPS exchange; the body of the answer is not read yet (the caller reads and releases
        it, and limits it). Redirects are not followed.

        url: a path on the vCenter, or absolute; the host `*` of a lease is the vCenter. The vCenter
        is trusted as configured, and it alone is sent this session's cookie. Another host is
        trusted by `thumbprint` (SHA-1 or SHA-256, as a lease's deviceUrl carries it) if that is
        given, else by ca_file or the system's authorities; what it needs to let us in is in the URL
        or in `headers`. A 401 of the vCenter renews the session and is tried once more, if the body
        is bytes or can be rewound. Raises as `call`; nothing else is tried again, and any other
        HTTP status is the caller's affair. What reading the body raises, `http_error` words.
        """
        own = self._connections.is_own(*self._connections.locate(url)[:2])
        session = self._keeper.session
        answer = self._transfer(method, url, headers, body, thumbprint, session if own else None)
        if not own or answer.status != _UNAUTHORIZED:
            return answer
        answer.close()
        if not (body is None or isinstance(body, bytes) or _rewound(body)):
            raise CannotConnect(f"{self.name}: the session was over when {method} began")
        session = self._keeper.renewed(session)
        return self._transfer(method, url, headers, body, thumbprint, session)

    def _transfer(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None,
        body: Any,
        thumbprint: str | None,
        session: SoapSession | None,
    ) -> urllib3.BaseHTTPResponse:
        sent = dict(headers or {})
        if session is not None:
            sent["Cookie"] = session.cookie
        return self._connections.transfer(method, url, sent, body, thumbprint)

    def http_error(self, error: Exception, url: str) -> VSphereError:
        """Ours for what urllib3 or a socket raised while the answer to `http` was read."""
        host, port, _ = self._connections.locate(url)
        return connection_error(error, host, port, self._settings.request_limit_s)

    def cookie(self) -> str:
        """The session's value, for programs that reuse it. A secret."""
        return session_value(self._keeper.session.cookie)

    def close(self) -> None:
        """Log out; harmless when repeated."""
        self._keeper.close()
        self._connections.close()

    def _password(self) -> str:
        try:
            return read_secret(self._settings.password, f"the password of {self._settings.user}")
        except KeyFault as fault:
            reason = str(fault)
        raise LoginRefused(reason)

    def _logins(self) -> int:
        keeper: SessionKeeper | None = getattr(self, "_keeper", None)
        return keeper.logins if keeper else 0

    def name_of(self, entity: Any) -> str:
        """ "web01 (vm-57)"; the moref alone where the name cannot be read."""
        moref = one_line(str(getattr(entity, "_moId", "?")))
        try:
            return f"{one_line(str(entity.name))} ({moref})"
        except (vmodl.MethodFault, VSphereError, AttributeError):
            return moref


def _rewound(body: Any) -> bool:
    try:
        body.seek(0)
    except (AttributeError, OSError, ValueError):
        return False
    return True
