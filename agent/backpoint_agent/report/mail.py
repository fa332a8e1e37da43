"""The mail about a run, by SMTP.

Decides when one is sent, that the server is verified before it is told anything, and that all of it
takes a limited time, whatever server and name service do. What it says is `mail_text.py`'s affair.
"""

from __future__ import annotations

import base64
import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from email.errors import MessageError
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid
from typing import Final

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.report.mail_text import mail_body, mail_subject
from backpoint_agent.secret_reading import read_secret
from backpoint_agent.settings.model import MailSettings, Settings
from backpoint_repo.errors import BackpointError
from backpoint_repo.terminal import printable

LIMIT_S: Final = 120.0
"""For all of it."""

_EXCHANGE_LIMIT_S: Final = 30.0
_SAID_MAX: Final = 300


class MailNotSent(BackpointError):
    """The mail server cannot be reached, believed, or persuaded; the message says which."""


def send_mail(settings: Settings, record: RunRecord, *, limit_s: float = LIMIT_S) -> None:
    """Send what the settings ask for. Raises MailNotSent, KeyFault where there is no password."""
    mail = settings.report.mail
    if mail is None or (mail.when == "trouble" and record.good):
        return
    message = make_message(mail, record)
    context = None if mail.security == "none" else _context(mail)
    password = ""
    if mail.password is not None:
        if context is None:
            raise MailNotSent('report.mail: security = "none" sends no password')
        password = read_secret(mail.password, f"password of the mail server {mail.server}")
        if not password.isascii():
            raise MailNotSent(f"the password of the mail server {mail.server} is not ASCII")
    delivery = _Delivery(mail, message, password, context)
    thread = threading.Thread(target=delivery.run, name="mail", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        delivery.cut_off()
        raise MailNotSent(f"mail server {mail.server} did not take the mail within {limit_s:g} s")
    if delivery.failure:
        raise MailNotSent(f"mail server {mail.server} {delivery.failure}")


def make_message(mail: MailSettings, record: RunRecord) -> EmailMessage:
    """Raises MailNotSent where an address of the settings is none."""
    message = EmailMessage()
    message["Subject"] = mail_subject(record)
    message["From"] = _addresses("sender", (mail.sender,))
    message["To"] = _addresses("to", mail.to)
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = make_msgid(domain=message["From"].addresses[0].domain)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail_body(record))
    return message


def _addresses(key: str, given: tuple[str, ...]) -> str:
    """The text of a header. Raises MailNotSent where it does not hold as many addresses."""
    text = ", ".join(given)
    probe = EmailMessage()
    try:
        probe["To"] = text
        header = probe["To"]
        right = len(header.addresses) >= len(given) and all(
            address.username and address.domain for address in header.addresses
        )
    except (MessageError, ValueError, IndexError):
        right = False
    if not right or header.defects or (key == "sender" and len(header.addresses) != 1):
        raise MailNotSent(f"report.mail.{key}: {printable(text)!r} is no mail address")
    return text


class _Delivery:
    """One mail, for a thread of its own: a name service may hang longer than any socket does."""

    def __init__(
        self,
        mail: MailSettings,
        message: EmailMessage,
        password: str,
        context: ssl.SSLContext | None,
    ) -> None:
        self._mail = mail
        self._message = message
        self._password = password
        self._context = context
        self._smtp: smtplib.SMTP | None = None
        self.failure = ""

    def run(self) -> None:
        """Raises nothing: `failure` says why it is not sent."""
        try:
            self._deliver()
        except smtplib.SMTPAuthenticationError as error:
            user = printable(self._mail.user or "")
            self.failure = f"refuses the login of {user} (code {error.smtp_code})"
        except (OSError, ValueError, MessageError) as error:  # an SMTPException is an OSError
            self.failure = self._told(error)

    def cut_off(self) -> None:
        """Whatever the thread waits for, it waits no more."""
        connection = self._smtp and self._smtp.sock
        if connection:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _deliver(self) -> None:
        mail = self._mail
        with self._connected() as smtp:
            self._smtp = smtp
            if mail.security == "starttls":
                smtp.ehlo_or_helo_if_needed()
                if not smtp.has_extn("starttls"):
                    raise smtplib.SMTPNotSupportedError("it does not offer STARTTLS")
                smtp.starttls(context=self._context)
            if self._password:
                smtp.login(mail.user or "", self._password)
            refused = smtp.send_message(self._message)
        if refused:
            raise smtplib.SMTPRecipientsRefused(refused)

    def _connected(self) -> smtplib.SMTP:
        mail = self._mail
        if mail.security == "tls":
            limit_s, context = _EXCHANGE_LIMIT_S, self._context
            return smtplib.SMTP_SSL(mail.server, mail.port, timeout=limit_s, context=context)
        return smtplib.SMTP(mail.server, mail.port, timeout=_EXCHANGE_LIMIT_S)

    def _told(self, error: Exception) -> str:
        match error:
            case smtplib.SMTPRecipientsRefused(recipients=recipients):
                each = (f"{who} ({c} {self._said(why)})" for who, (c, why) in recipients.items())
                return f"refuses to take it for {printable(', '.join(each))}"
            case smtplib.SMTPResponseException(smtp_code=code) if code < 0:
                return "does not speak SMTP"
            case smtplib.SMTPResponseException():
                return f"says {error.smtp_code} {self._said(error.smtp_error)}"
            case (
                smtplib.SMTPServerDisconnected()
                | ssl.SSLEOFError()
                | ssl.SSLZeroReturnError()
                | ConnectionResetError()
                | BrokenPipeError()
            ):
                return "ended the connection"
            case smtplib.SMTPException():
                return f"cannot take it: {self._said(str(error))}"
            case ssl.SSLCertVerificationError():
                return f"has a certificate that is refused: {self._said(error.verify_message)}"
            case ssl.SSLError():
                return f"does not speak TLS as it should: {self._said(error.reason or 'no reason')}"
            case TimeoutError():
                return f"did not answer within {_EXCHANGE_LIMIT_S:g} s"
            case OSError():
                return f"cannot be reached: {self._said(error.strerror or 'no reason')}"
        return "could not be told this mail"

    def _said(self, text: str | bytes) -> str:
        """Words of the server's, which may repeat what it was told."""
        shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        for secret in self._secret_forms():
            shown = shown.replace(secret, "...")
        return printable(shown)[:_SAID_MAX]

    def _secret_forms(self) -> Iterator[str]:
        if self._password:
            password, user = self._password.encode(), (self._mail.user or "").encode()
            yield self._password
            yield base64.b64encode(password).decode()
            yield base64.b64encode(b"\0" + user + b"\0" + password).decode()


def _context(mail: MailSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=mail.ca_file)
    except OSError as error:
        why = error.strerror or "it has no certificates"
        raise MailNotSent(f"report.mail.ca_file: {mail.ca_file} cannot be used: {why}") from None
