"""Whom we believe to be the vCenter or the host that we called, decided inside the TLS handshake.

Three ways: the system's authorities, the authorities of a file, or one pinned certificate, of which
then neither name nor expiry is asked. Every context comes from here and carries its decision, so
that no byte of a request is sent before it. The environment (SSL_CERT_FILE, SSLKEYLOGFILE,
REQUESTS_CA_BUNDLE) is not asked: whoever can set it could weaken the decision. Knows no HTTP.

pyvmomi's own pinning is not used: it looks at the pin only where the authorities refuse, and from
the second connection on not at all.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backpoint_agent.errors import CertificateRefused
from backpoint_agent.stopping import Stop

_LOOK_S: Final = 0.5
"""Between two looks at the stop while a server is silent."""
_EXPIRED, _NOT_YET_VALID, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64
_HASH_BY_LENGTH: Final = {40: hashlib.sha1, 64: hashlib.sha256}


def fingerprint(certificate: bytes, algorithm: str = "sha256") -> str:
    """ "AA:BB:..." of a certificate in DER; algorithm: sha256 or sha1."""
    return hashlib.new(algorithm, certificate).digest().hex(":").upper()


@dataclass(frozen=True)
class Trust:
    """ca_file: authorities instead of the system's. pin: hexadecimal digits, lower case."""

    ca_file: Path | None = None
    pin: str | None = None

    @classmethod
    def make(cls, ca_file: Path | None, thumbprint: str | None) -> Trust:
        """thumbprint: SHA-256 or SHA-1, colons and case as one likes; it comes before `ca_file`.
        Raises CertificateRefused if it is none."""
        if not thumbprint:
            return cls(ca_file)
        pin = thumbprint.replace(":", "").replace(" ", "").lower()
        if len(pin) not in _HASH_BY_LENGTH or not set(pin) <= set("0123456789abcdef"):
            raise CertificateRefused(f"{thumbprint[:100]!r} is no SHA-256 or SHA-1 thumbprint")
        return cls(pin=pin)

    def for_host(self, thumbprint: str | None) -> Trust:
        """How another host is trusted: as vCenter itself says (thumbprint), else by authority."""
        return Trust.make(self.ca_file, thumbprint)

    def context(self) -> TrustContext:
        """A context that connects to nobody else; raises CertificateRefused if it cannot be."""
        context = TrustContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.pin:
            context.pin = self.pin
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        # A self-signed certificate, or that of an intermediate, may stand in a ca_file itself.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            context.load_verify_locations(*self._authorities())
        except (OSError, ssl.SSLError) as error:
            where = self.ca_file or "the system's certificate authorities"
            reason = error.strerror if type(error) is not ssl.SSLError else "no certificate in it"
            raise CertificateRefused(f"cannot load {where}: {reason}") from None
        return context

    def _authorities(self) -> tuple[str | None, str | None]:
        if self.ca_file:
            return str(self.ca_file), None
        compiled_in = ssl.get_default_verify_paths()
        file, folder = Path(compiled_in.openssl_cafile), Path(compiled_in.openssl_capath)
        if not file.is_file() and not folder.is_dir():
            raise CertificateRefused(
                "this system has no certificate authorities; set ca_file or thumbprint"
            )
        return str(file) if file.is_file() else None, str(folder) if folder.is_dir() else None


class NotPinned(ssl.SSLError):
    """The server showed another certificate than the pinned one."""

    certificate: bytes = b""


class TrustedSocket(ssl.SSLSocket):
    """Compares the pin at the end of the handshake; reads until `give_up_at` (monotonic seconds),
    so that a server cannot hold us by sending a byte now and then.

    heeds: whose request ends a read that waits, with Stopped.
    """

    give_up_at: float | None = None
    heeds: Stop | None = None

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        context = self.context
        certificate = self.getpeercert(binary_form=True) or b""
        if not isinstance(context, TrustContext) or not context.accepts(certificate):
            error = NotPinned("not the pinned certificate")
            error.certificate = certificate
            raise error
        context.presented = certificate

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if self.give_up_at is not None:
            left = self.give_up_at - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer takes too long")
            self.settimeout(left)
        if self.heeds is None:
            return super().recv_into(buffer, nbytes, flags)
        return self._recv_heeding(self.heeds, buffer, nbytes, flags)

    def _recv_heeding(self, stop: Stop, buffer: Any, nbytes: int | None, flags: int) -> int:
        limit_s = self.gettimeout() or 0.0
        silent_until = time.monotonic() + limit_s
        try:
            while True:
                stop.check()
                left = silent_until - time.monotonic()
                self.settimeout(max(0.001, min(left, _LOOK_S)))
                try:
                    return super().recv_into(buffer, nbytes, flags)
                except TimeoutError:
                    if left <= _LOOK_S:
                        raise
        finally:
            self.settimeout(limit_s)


class TrustContext(ssl.SSLContext):
    """presented: the certificate (DER) that was last verified."""

    sslsocket_class = TrustedSocket
    pin: str | None = None
    presented: bytes | None = None

    def accepts(self, certificate: bytes) -> bool:
        """Whether this is the pinned certificate; all are where the authorities decide."""
        if self.pin is None:
            return self.verify_mode == ssl.CERT_REQUIRED
        return _HASH_BY_LENGTH[len(self.pin)](certificate).hexdigest() == self.pin


def explain_refusal(error: ssl.SSLError, host: str, port: int, limit_s: float) -> str | None:
    """What is wrong with the certificate, and what the server's fingerprint is, so that it can be
    pinned after a check; None if the handshake failed for another reason."""
    if isinstance(error, NotPinned):
        return (
            f"{host}:{port} does not show the pinned certificate but one with SHA-256 "
            f"{fingerprint(error.certificate)}, SHA-1 {fingerprint(error.certificate, 'sha1')}; "
            "check who answers there before changing the pin"
        )
    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    seen = presented_fingerprint(host, port, limit_s)
    remedy = "" if seen is None else f"; checked on the server itself, it can be pinned: {seen}"
    return f"the certificate of {host}:{port} {_flaw(error)}{remedy}"


def _flaw(error: ssl.SSLCertVerificationError) -> str:
    match error.verify_code:
        case code if code == _EXPIRED:
            return "has expired"
        case code if code == _NOT_YET_VALID:
            return "is not valid yet (or this machine's clock is wrong)"
        case code if code in (_OTHER_NAME, _OTHER_ADDRESS):
            return "is made out to another name"
        case _:
            return f"is of no authority that is trusted here ({error.verify_message}); set ca_file"


def presented_fingerprint(host: str, port: int, limit_s: float) -> str | None:
    """SHA-256 of whatever certificate the server shows; a handshake, and nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host.strip("[]"), port), timeout=limit_s) as plain,
            context.wrap_socket(plain, server_hostname=host.strip("[]")) as secure,
        ):
            return fingerprint(secure.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return None
