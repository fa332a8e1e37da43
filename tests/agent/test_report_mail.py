"""The mail about a run: sent when it should be, to a server that is who it says it is."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.report.mail import MailNotSent, make_message, send_mail
from backpoint_agent.report.mail_text import LINES_MAX, mail_body, mail_subject
from backpoint_agent.settings.model import MailSettings, SecretSettings, Settings
from backpoint_repo.errors import KeyFault
from mail_server import MailServer, Manner, running_mail_server
from run_records import failed_outcome, settings_in, some_outcome, some_run
from vcsim.certificate import Certificate

PASSWORD = "open sesame"
TROUBLE = some_run(some_outcome("a"), failed_outcome("b"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Of `localhost`, its own authority."""
    return Certificate.make(tmp_path_factory.mktemp("right"))


def settings_for(folder: Path, server: MailServer, /, **changes: Any) -> Settings:
    """Mail by this server, which is believed; changes: of the mail's settings."""
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "password").chmod(0o600)
    given: dict[str, Any] = {
        "server": "localhost",
        "port": server.port or 25,
        "security": server.security,
        "sender": "Backpoint <backpoint@example.com>",
        "to": ("admin@example.com", "Two <two@example.com>"),
        "ca_file": server.certificate and server.certificate.file,
    }
    if server.login:
        given |= {"user": server.login[0], "password": {"file": folder / "password"}}
    mail = MailSettings.model_validate(given | changes)
    settings = settings_in(folder)
    report = settings.report.model_copy(update={"mail": mail})
    return settings.model_copy(update={"report": report})


@pytest.fixture(params=["starttls", "tls"])
def server(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[MailServer]:
    """One with TLS that wants a login."""
    login = ("backpoint", PASSWORD)
    options = {"certificate": certificate, "security": request.param, "login": login}
    with running_mail_server(**options) as running:
        yield running


def refusal(settings: Settings, run: RunRecord = TROUBLE, limit_s: float = 20) -> str:
    """Why the mail is not sent: one line, without the password."""
    with pytest.raises(MailNotSent) as caught:
        send_mail(settings, run, limit_s=limit_s)
    text = str(caught.value)
    assert "\n" not in text
    assert PASSWORD not in text
    assert caught.value.__cause__ is None
    return text


def test_a_mail_arrives_through_tls_with_a_login(tmp_path: Path, server: MailServer) -> None:
    """Headers, text and recipients; nothing of it was in clear."""
    send_mail(settings_for(tmp_path, server), TROUBLE)
    [message] = server.received
    assert message["Subject"] == "Backpoint nightly: 1 of 2 VMs"
    assert message["From"] == "Backpoint <backpoint@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@example.com>")
    assert message["Date"] is not None
    assert server.recipients == [["admin@example.com", "two@example.com"]]
    assert message.get_content_type() == "text/plain"
    assert "b: failed: it broke" in message.get_content()
    assert not [line for line in server.lines if line[:4] not in ("ehlo", "STAR")]


def test_without_tls_a_mail_goes_only_where_the_settings_say_so(tmp_path: Path) -> None:
    """And no password goes, whatever is configured."""
    with running_mail_server(login=("backpoint", PASSWORD)) as server:
        settings = settings_for(tmp_path, server, user=None, password=None)
        send_mail(settings, TROUBLE)
        assert len(server.received) == 1
        mail = settings.report.mail
        assert mail is not None
        secret = SecretSettings(file=tmp_path / "password")
        with_login = mail.model_copy(update={"user": "backpoint", "password": secret})
        report = settings.report.model_copy(update={"mail": with_login})
        assert "sends no password" in refusal(settings.model_copy(update={"report": report}))
        assert not [line for line in server.lines if "AUTH" in line.upper()]


def test_a_server_that_hides_starttls_is_told_nothing(
    tmp_path: Path, certificate: Certificate
) -> None:
    """Somebody in between may take the offer away; nothing goes in clear instead."""
    with running_mail_server(certificate=certificate) as server:
        assert "STARTTLS" in refusal(settings_for(tmp_path, server, security="starttls"))
        assert server.received == []
        assert all(line[:4] in ("ehlo", "QUIT", "quit", "") for line in server.lines)


@pytest.mark.parametrize(
    "wrong", ["expired", "another name", "unknown", "no file", "no certificate"]
)
def test_a_certificate_that_is_not_right_is_refused(
    tmp_path: Path, server: MailServer, certificate: Certificate, wrong: str
) -> None:
    """Before any word of the mail or the login."""
    other = tmp_path / "other"
    other.mkdir()
    changes: dict[str, Any] = {}
    if wrong == "expired":
        server.certificate = Certificate.make(other, expired=True)
    elif wrong == "another name":
        server.certificate = Certificate.make(other, names=["mail.example.com"])
    elif wrong == "unknown":
        changes["ca_file"] = None
    elif wrong == "no file":
        changes["ca_file"] = tmp_path / "missing.pem"
    else:
        (tmp_path / "empty.pem").write_text("x")
        changes["ca_file"] = tmp_path / "empty.pem"
    text = refusal(settings_for(tmp_path, server, **changes))
    if wrong.startswith("no "):
        assert str(changes["ca_file"]) in text
    else:
        assert "certificate" in text
    assert server.received == []


def test_a_wrong_password_is_told_without_it(tmp_path: Path, server: MailServer) -> None:
    """Even where the server repeats what it was told."""
    server.login, server.echoes = ("backpoint", "another"), True
    settings = settings_for(tmp_path, server)
    assert "refuses the login of backpoint (code 535)" in refusal(settings)


def test_recipients_that_are_refused_are_named(tmp_path: Path, server: MailServer) -> None:
    """The others get it; what the server repeats of the login is not shown."""
    server.refused, server.echoes = ("two@example.com",), True
    text = refusal(settings_for(tmp_path, server))
    assert "two@example.com (550 not here AUTH PLAIN ...)" in text
    assert server.recipients == [["admin@example.com"]]
    server.refused = ("two@example.com", "admin@example.com")
    assert "admin@example.com (550" in refusal(settings_for(tmp_path, server))


@pytest.mark.parametrize(
    ("manner", "in_clear", "in_tls"),
    [
        ("silent", "within 0.3 s", "within 0.3 s"),
        ("drips", "within 0.3 s", "does not speak TLS"),
        ("hangs up", "ended the connection", "ended the connection"),
        # It may be gone before its answer is read.
        ("speaks HTTP", "does not speak SMTP", "does not speak TLS|ended the connection"),
    ],
)
def test_no_server_holds_a_run_for_long(
    tmp_path: Path, server: MailServer, manner: Manner, in_clear: str, in_tls: str
) -> None:
    """One says nothing, one a byte now and then, one is gone, one is something else."""
    server.manner = manner
    expected = in_tls if server.security == "tls" else in_clear
    limit_s = 0.3 if "0.3" in expected else 20
    assert re.search(expected, refusal(settings_for(tmp_path, server), limit_s=limit_s))


def test_a_server_that_is_not_there_is_told(tmp_path: Path, server: MailServer) -> None:
    """A closed port, and a name that no name service knows."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "cannot be reached" in refusal(settings_for(tmp_path, server, port=port))
    text = refusal(settings_for(tmp_path, server, server="no-such-host.invalid"))
    assert "no-such-host.invalid cannot be reached" in text


def test_a_missing_password_is_told(tmp_path: Path, server: MailServer) -> None:
    """Nothing is sent without it."""
    settings = settings_for(tmp_path, server)
    (tmp_path / "password").unlink()
    with pytest.raises(KeyFault, match="password of the mail server localhost"):
        send_mail(settings, TROUBLE)
    (tmp_path / "password").write_text("pässword")
    (tmp_path / "password").chmod(0o600)
    assert "not ASCII" in refusal(settings)
    assert server.received == []


def test_when_decides_whether_there_is_a_mail(tmp_path: Path) -> None:
    """Trouble: a VM without a point, an alarm, a run that did not come about."""
    with running_mail_server() as server:
        good = some_run(some_outcome("a", warnings=("w",)))
        alarmed = some_run(some_outcome("a", alarms=("x",)))
        unreached = some_run(trouble="vCenter does not answer")
        for when, sent in (("trouble", 3), ("always", 4)):
            server.received.clear()
            for run in (good, alarmed, unreached, TROUBLE):
                send_mail(settings_for(tmp_path, server, when=when), run)
            assert len(server.received) == sent
        send_mail(settings_in(tmp_path), TROUBLE)
        assert len(server.received) == 4


@pytest.mark.parametrize("bad", ["nobody", "@", "a@", "<>", "a@b@c", "two, one@example.com"])
@pytest.mark.parametrize("key", ["sender", "to"])
def test_an_address_that_is_none_is_told(tmp_path: Path, key: str, bad: str) -> None:
    """Before any server is asked."""
    changes: dict[str, Any] = {key: bad if key == "sender" else ("a@example.com", bad)}
    settings = settings_for(tmp_path, MailServer(), **changes)
    assert f"report.mail.{key}" in refusal(settings)


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_name_or_message_makes_a_header_or_a_line(job: str, text: str) -> None:
    """Each stands within its own line; whatever it is, the mail can be sent."""
    hostile = f"{text}\r\nBcc: evil@example.com\r\n\r\nnew body\n.\n"
    outcomes = (
        failed_outcome(hostile, error=hostile, alarms=(hostile,)),
        some_outcome(hostile, warnings=(hostile,), transport=hostile),
    )
    run = some_run(*outcomes, job=hostile + job, trouble=hostile, skipped=((hostile, hostile),))
    mail = MailSettings(server="h", sender="a@example.com", to=("b@example.com",))
    message = make_message(mail, run)
    assert message["Bcc"] is None
    assert message["Subject"].startswith("Backpoint ")
    head, _, _ = message.as_bytes(policy=SMTP).partition(b"\r\n\r\n")
    assert not [line for line in head.split(b"\r\n") if line.lower().startswith(b"bcc")]
    lines = message.get_content().splitlines()
    assert not [line for line in lines if line.startswith(("Bcc", "new body", "."))]


def test_what_failed_stands_first() -> None:
    """Then alarms, then points, then what is of less weight."""
    run = some_run(
        some_outcome("good", warnings=("slow",)),
        some_outcome("odd", alarms=("a lie",)),
        failed_outcome("bad", error="no answer"),
        failed_outcome("late", status="not-started", error="the window ended"),
        skipped=(("test9", "excluded"),),
        trouble="half of it",
    )
    body = mail_body(run)
    order = ("half of it", "bad: failed: no answer", "late: not-started", "odd: a lie")
    places = [body.index(text) for text in (*order, "good: 20", "good: slow", "test9: excluded")]
    assert places == sorted(places)
    assert mail_subject(run) == "Backpoint nightly: 2 of 4 VMs, 1 alarm, trouble"


@pytest.mark.parametrize(
    ("alarms", "subject"),
    [
        ((), "Backpoint nightly: 1 of 1 VM"),
        (("x",), "Backpoint nightly: 1 of 1 VM, 1 alarm"),
        (("x", "y"), "Backpoint nightly: 1 of 1 VM, 2 alarms"),
    ],
)
def test_the_subject_counts(alarms: tuple[str, ...], subject: str) -> None:
    """In words that are right for one."""
    assert mail_subject(some_run(some_outcome(alarms=alarms))) == subject


def test_a_mail_has_a_bounded_size() -> None:
    """Five thousand VMs with long messages; what failed is still there."""
    outcomes = [failed_outcome(f"vm{n}", error="x" * 5000) for n in range(5000)]
    run = replace(some_run(*outcomes), job="j" * 500)
    body = mail_body(run)
    assert len(body) < 2_100_000
    assert body.count("\n") <= LINES_MAX + 1
    assert "lines more" in body
    assert "vm0: failed" in body
    assert len(mail_subject(run)) <= 200
