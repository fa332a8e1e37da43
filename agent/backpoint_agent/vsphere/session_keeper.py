"""Keeps one login of one vCenter alive: logs in, renews what was lost, logs out.

Decides when the password is sent: once for a session, by one thread however many meet its end, and
never again after it was refused, since accounts get locked. Refuses to know what is asked.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final

from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import StubAdapterBase

from backpoint_agent.errors import CannotConnect, LoginRefused, VSphereError
from backpoint_agent.vsphere.faults import error_of
from backpoint_agent.vsphere.soap import SoapSession, service_of

LOGOUT_LIMIT_S: Final = 5.0
"""For each of logout's two exchanges; a vCenter that hangs ends the session by itself."""


class SessionKeeper(StubAdapterBase):  # type: ignore[misc]  # pyVmomi has no types
    """The stub behind all managed objects. A call that vCenter refuses for want of a session had no
    effect, whatever it is; so it is made again in a new one, once. Thread-safe.

    begin: makes a session that is not logged in. password: read at each login, so that none is
    kept here, and a changed one is found. keep_alive_s: between signs of life.
    """

    def __init__(
        self,
        version: str,
        user: str,
        *,
        begin: Callable[[], SoapSession],
        password: Callable[[], str],
        keep_alive_s: float,
    ) -> None:
        super().__init__(version=version)
        self._user = user
        self._begin = begin
        self._password = password
        self._keep_alive_s = keep_alive_s
        self._renewing = threading.Lock()
        self._refused: str | None = None
        self._closed = threading.Event()
        self.logins = 0
        self.session = self._log_in()
        self._heart = threading.Thread(
            target=self._beat, name=f"keep-alive {self.session!r}", daemon=True
        )
        self._heart.start()

    def InvokeMethod(self, mo: Any, info: Any, args: Any) -> Any:
        """As pyvmomi wants it."""
        session = self.session
        try:
            return session.InvokeMethod(mo, info, args, outer=self)
        except vim.fault.NotAuthenticated:
            pass  # the new session is asked outside: nothing of the old failure in its errors
        return self.renewed(session).InvokeMethod(mo, info, args, outer=self)

    def renewed(self, lost: SoapSession) -> SoapSession:
        """The session that follows `lost`, made unless another thread has.

        Raises CannotConnect and LoginRefused.
        """
        with self._renewing:
            if self.session is lost:
                if self._closed.is_set():
                    raise CannotConnect("this session was closed")
                self.session = self._log_in()
            return self.session

    def close(self) -> None:
        """Log out and end the signs of life; harmless when repeated."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.session.limit_s = LOGOUT_LIMIT_S
        with contextlib.suppress(VSphereError, vmodl.MethodFault):
            service_of(self.session).RetrieveContent().sessionManager.Logout()
        self._heart.join(LOGOUT_LIMIT_S)

    def _log_in(self) -> SoapSession:
        if self._refused:
            raise LoginRefused(self._refused)
        what = f"logging in as {self._user}"
        session = self._begin()
        try:
            manager = service_of(session).RetrieveContent().sessionManager
            if manager is None:
                raise CannotConnect("the server offers no login")
            manager.Login(self._user, self._password())
        except vmodl.MethodFault as fault:
            error = error_of(what, fault)
        else:
            self.logins += 1
            return session
        if isinstance(error, LoginRefused):
            self._refused = f"{error}; it is not tried again, lest the account be locked"
            raise LoginRefused(self._refused)
        raise error

    def _beat(self) -> None:
        """What goes wrong here is met by whoever asks next, and told there."""
        while not self._closed.wait(self._keep_alive_s):
            with contextlib.suppress(VSphereError, vmodl.MethodFault):
                service_of(self).CurrentTime()
