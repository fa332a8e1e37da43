"""The simulator's certificate: made for each run, right or wrong as a test asks."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate, which is its own authority: `file` is what a client trusts."""

    file: Path
    key_file: Path
    sha1: str
    sha256: str

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        names: Sequence[str] = ("localhost", "127.0.0.1"),
        expired: bool = False,
    ) -> Certificate:
        """Write `vcenter.pem` and `vcenter.key` into `folder`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now - DAY if expired else now + 2 * DAY)
            .add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256())
        )
        made = cls(
            folder / "vcenter.pem",
            folder / "vcenter.key",
            certificate.fingerprint(hashes.SHA1()).hex(":").upper(),
            certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        )
        made.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        with open(os.open(made.key_file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as f:
            f.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        return made


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
