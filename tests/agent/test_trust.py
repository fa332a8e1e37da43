"""Whom the agent believes to be its vCenter: decided in the handshake, before anything is sent."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from backpoint_agent.errors import CannotConnect, CertificateRefused
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.trust import Trust
from backpoint_agent.vsphere.vcenter import VCenter
from rogue_server import ok, rogue_server
from vcenter_login import logged_in, vcenter_settings
from vcsim import Simulator, running_simulator

WRONG_PIN = "AB:" * 31 + "AB"


def _hello(request: bytes, ended: threading.Event) -> Iterable[bytes]:
    return [ok(b"hello")]


def _refusal(simulator: Simulator, folder: Path, **changes: object) -> str:
    with pytest.raises(CertificateRefused) as refused:
        VCenter(vcenter_settings(simulator, folder, **changes), Stop())
    return str(refused.value)


def test_every_right_trust_logs_in(simulator: Simulator, tmp_path: Path) -> None:
    """A CA file, SHA-256 and SHA-1 pins in any spelling let the agent in."""
    plain = simulator.thumbprint_sha256.replace(":", "").lower()
    for pin in (None, simulator.thumbprint_sha256, plain, simulator.thumbprint_sha1):
        with logged_in(simulator, tmp_path, thumbprint=pin) as vcenter:
            assert vcenter.uuid
            assert vcenter.thumbprint("sha1") == simulator.thumbprint_sha1
            assert vcenter.thumbprint("sha256") == simulator.thumbprint_sha256


def test_unknown_authority_is_refused(simulator: Simulator, tmp_path: Path) -> None:
    """The message shows the fingerprint, so that it can be pinned after a check."""
    text = _refusal(simulator, tmp_path, ca_file=None)
    assert simulator.thumbprint_sha256 in text
    assert "authority" in text
    assert not [call for call in simulator.calls() if call.method == "Login"]


def test_environment_does_not_weaken_trust(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that other programs obey make no certificate trusted, and log no keys."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(simulator.ca_file))
    keys = tmp_path / "tls-keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    assert "authority" in _refusal(simulator, tmp_path, ca_file=None)
    with logged_in(simulator, tmp_path):
        assert not keys.exists()


def test_proxy_of_the_environment_is_not_used(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would see addresses and could hang us; the vCenter is asked directly."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with logged_in(simulator, tmp_path) as vcenter:
        assert vcenter.uuid


def test_expired_certificate(tmp_path: Path) -> None:
    """By authority it is refused for its age; pinned it is believed: somebody checked it."""
    with running_simulator(tmp_path / "vc", certificate_expired=True) as simulator:
        assert "has expired" in _refusal(simulator, tmp_path)
        with logged_in(simulator, tmp_path, thumbprint=simulator.thumbprint_sha256) as vcenter:
            assert vcenter.uuid


def test_certificate_of_another_name(tmp_path: Path) -> None:
    """By authority it is refused for its name; pinned it is believed."""
    with running_simulator(tmp_path / "vc", certificate_names=["vc.other"]) as simulator:
        assert "another name" in _refusal(simulator, tmp_path)
        with logged_in(simulator, tmp_path, thumbprint=simulator.thumbprint_sha1) as vcenter:
            assert vcenter.uuid


def test_other_certificate_than_the_pinned_one(simulator: Simulator, tmp_path: Path) -> None:
    """The message says what the server showed, and the password was not sent."""
    text = _refusal(simulator, tmp_path, thumbprint=WRONG_PIN)
    assert simulator.thumbprint_sha256 in text
    assert simulator.thumbprint_sha1 in text
    assert not [call for call in simulator.calls() if call.method == "Login"]


def test_nothing_is_sent_before_the_check(tmp_path: Path) -> None:
    """Whoever takes the vCenter's address learns nothing, neither with a pin nor without."""
    with rogue_server(tmp_path / "rogue", _hello) as rogue:
        for trust in (Trust(), Trust.make(None, WRONG_PIN)):
            plain = socket.create_connection(("127.0.0.1", rogue.port), timeout=10)
            with plain, pytest.raises(ssl.SSLError):
                trust.context().wrap_socket(plain, server_hostname="127.0.0.1")
        assert rogue.requests == []


def test_the_pin_is_checked_on_every_connection(tmp_path: Path) -> None:
    """A server that shows its certificate twice is refused twice: no state turns the check off."""
    with rogue_server(tmp_path / "rogue", _hello) as rogue:
        context = Trust.make(None, WRONG_PIN).context()
        for _ in range(3):
            plain = socket.create_connection(("127.0.0.1", rogue.port), timeout=10)
            with plain, pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.parametrize("text", ["AA:BB", "Z" * 64, "a" * 63, "é" * 40])
def test_no_thumbprint(text: str) -> None:
    """What is no fingerprint pins nothing, and is not quietly left out."""
    with pytest.raises(CertificateRefused, match="thumbprint"):
        Trust.make(None, text)


def test_unusable_authorities(tmp_path: Path) -> None:
    """A ca_file that is missing or holds no certificate is named; nobody is trusted instead."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing here\n")
    for file in (empty, tmp_path / "missing.pem", tmp_path):
        with pytest.raises(CertificateRefused, match=file.name):
            Trust.make(file, None).context()


def test_hosts_that_leases_name(simulator: Simulator, tmp_path: Path) -> None:
    """Another host is believed by the thumbprint given with its URL, and sees no cookie."""
    with (
        rogue_server(tmp_path / "host", _hello) as host,
        logged_in(simulator, tmp_path) as vcenter,
    ):
        url = f"https://{host.address}/nfc/52-1/disk-0.vmdk"
        with pytest.raises(CertificateRefused):
            vcenter.http("GET", url)
        with pytest.raises(CertificateRefused):
            vcenter.http("GET", url, thumbprint=simulator.thumbprint_sha1)
        assert host.requests == []
        for pin in (host.certificate.sha1, host.certificate.sha256):
            answer = vcenter.http("GET", url, thumbprint=pin)
            assert (answer.status, answer.read()) == (200, b"hello")
            answer.release_conn()
        sent = b"".join(host.requests)
        assert sent.count(b"GET /nfc/52-1/disk-0.vmdk") == 2
        assert b"ookie" not in sent
        assert vcenter.cookie().encode() not in sent


def test_hosts_trusted_by_authority(simulator: Simulator, tmp_path: Path) -> None:
    """A ca_file of several authorities serves vCenter and hosts, still without the cookie."""
    with rogue_server(tmp_path / "host", _hello) as host:
        both = tmp_path / "both.pem"
        both.write_bytes(simulator.ca_file.read_bytes() + host.certificate.file.read_bytes())
        with logged_in(simulator, tmp_path, ca_file=both) as vcenter:
            answer = vcenter.http("GET", f"https://{host.address}/x")
            assert answer.read() == b"hello"
            answer.release_conn()
        assert b"ookie" not in b"".join(host.requests)


def test_urls_that_are_not_followed(simulator: Simulator, tmp_path: Path) -> None:
    """Nothing goes in the clear, and what is no URL is said to be none."""
    with logged_in(simulator, tmp_path) as vcenter:
        for url in ("http://127.0.0.1/x", "ftp://127.0.0.1/x"):
            with pytest.raises(CertificateRefused, match="without TLS"):
                vcenter.http("GET", url)
        for url in ("x.vmdk", "https://", "https://h:port/x"):
            with pytest.raises(CannotConnect, match="no address"):
                vcenter.http("GET", url)
