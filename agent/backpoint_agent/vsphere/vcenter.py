"""One vCenter, logged in: the only door to it.

Decides how the server is trusted, that a lost session is renewed, what is tried again, and that no
exchange lasts for ever. Refuses to know VMs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import urllib3

from backpoint_agent.settings.model import VCenterSettings
from backpoint_agent.stopping import Stop

T = TypeVar("T")


class VCenter:
    """Thread-safe. Every call may raise CannotConnect, LoginRefused, CertificateRefused,
    PermissionMissing, ObjectGone, Busy, TaskFailed, Stopped."""

    def __init__(self, settings: VCenterSettings, stop: Stop) -> None:
        """Connect, verify the certificate, log in."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """As the configuration calls it."""
        raise NotImplementedError

    @property
    def uuid(self) -> str:
        """instanceUuid of the vCenter."""
        raise NotImplementedError

    @property
    def content(self) -> Any:
        """The ServiceContent."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """host:port."""
        raise NotImplementedError

    def call(self, what: str, ask: Callable[[], T], *, repeat: bool = True) -> T:
        """Run one exchange ("reading the inventory"): faults become our errors, a lost session is
        renewed and the call made once more. repeat: it only asks, so that after a broken
        connection it may be made again, with back-off; an exchange with an effect says False."""
        raise NotImplementedError

    def object(self, kind: str, moref: str) -> Any:
        """A managed object by type ("VirtualMachine", "HttpNfcLease") and moref; asks nobody."""
        raise NotImplementedError

    def http(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, body: Any = None
    ) -> urllib3.BaseHTTPResponse:
        """One HTTPS exchange with this session's cookie; the body of the answer is not read yet
        (the caller reads and releases it). url: absolute, or a path on the vCenter. The vCenter
        is trusted as configured; an ESXi host that a lease names, likewise or by the lease's own
        thumbprint header `X-Backpoint-Thumbprint` is never sent: see `trust.py`. A 401 renews the
        session and is tried once more. Raises as `call`; an HTTP status is the caller's affair."""
        raise NotImplementedError

    def cookie(self) -> str:
        """The session's value, for programs that reuse it. A secret."""
        raise NotImplementedError

    def close(self) -> None:
        """Log out; harmless when repeated."""
        raise NotImplementedError
