"""A mail server on a local socket that does as it is told: keeps mail, refuses it, or misbehaves.

Speaks as much SMTP as one client needs, in clear, with STARTTLS, or in TLS from the start.
"""

from __future__ import annotations

import base64
import email
import email.policy
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, Literal

from vcsim.certificate import Certificate

Manner = Literal["", "silent", "drips", "hangs up", "speaks HTTP"]


@dataclass
class MailServer:
    """login: user and password it wants, None for none. refused: recipients it does not take.
    manner: how it misbehaves. echoes: it repeats what it was told when it refuses."""

    certificate: Certificate | None = None
    security: Literal["starttls", "tls", "none"] = "none"
    login: tuple[str, str] | None = None
    refused: tuple[str, ...] = ()
    manner: Manner = ""
    echoes: bool = False
    port: int = 0
    received: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """All that clients have said in clear, before any TLS."""
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert self.certificate is not None
        context.load_cert_chain(self.certificate.file, self.certificate.key_file)
        return context


@contextmanager
def running_mail_server(**options: Any) -> Iterator[MailServer]:
    """One that listens at `port` of 127.0.0.1."""
    server = MailServer(**options)

    class Handler(_Conversation):
        mail = server

    with _Listener(("127.0.0.1", 0), Handler) as listener:
        server.port = listener.server_address[1]
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            listener.shutdown()
            thread.join()


class _Listener(ThreadingTCPServer):
    """handle_error is quiet: clients that do not like a certificate hang up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Conversation(StreamRequestHandler):
    mail: MailServer

    def handle(self) -> None:
        self._secret = False
        if self.mail.manner == "silent":
            self._await_the_end()
        if self.mail.manner == "drips":
            while not self.mail.over.wait(0.01):
                self.connection.sendall(b"2")
        if self.mail.manner == "speaks HTTP":
            self._say("HTTP/1.1 400 Bad Request")
        if self.mail.manner:
            return
        if self.mail.security == "tls":
            self._encrypt()
        self._say("220 mail ready")
        self._sender, self._wanted = "", list[str]()
        while line := self._hear():
            word = line.split()[0].upper() if line.split() else ""
            answer = getattr(self, f"_on_{word.lower()}", None)
            if word == "QUIT":
                self._say("221 bye")
                return
            if answer is None:
                self._say("500 what?")
            else:
                answer(line)

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()
        self.connection.close()

    def _on_ehlo(self, line: str) -> None:
        offers = ["mail at your service", "8BITMIME"]
        if self.mail.security == "starttls" and not self._secret:
            offers.append("STARTTLS")
        if self.mail.login and (self._secret or self.mail.security == "none"):
            offers.append("AUTH PLAIN")
        for offer in offers[:-1]:
            self._say(f"250-{offer}")
        self._say(f"250 {offers[-1]}")

    def _on_starttls(self, line: str) -> None:
        self._say("220 go on")
        self._encrypt()

    def _on_auth(self, line: str) -> None:
        given = base64.b64decode(line.split()[2]).decode().split("\0")[1:]
        told = f" {given} {line}" if self.mail.echoes else ""
        right = self.mail.login is not None and given == list(self.mail.login)
        self._say("235 welcome" if right else f"535 no{told}")
        self._auth = line

    def _on_mail(self, line: str) -> None:
        self._say("250 ok")

    def _on_rcpt(self, line: str) -> None:
        address = line.partition("<")[2].partition(">")[0]
        if address in self.mail.refused:
            self._say(f"550 not here {self._auth}" if self.mail.echoes else "550 not here")
            return
        self._wanted.append(address)
        self._say("250 ok")

    def _on_rset(self, line: str) -> None:
        self._wanted.clear()
        self._say("250 ok")

    def _on_data(self, line: str) -> None:
        self._say("354 go on")
        data = b""
        while (read := self.rfile.readline()) not in (b".\r\n", b""):
            data += read.removeprefix(b".") if read.startswith(b"..") else read
        message = email.message_from_bytes(data, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.mail.received.append(message)
        self.mail.recipients.append(self._wanted)
        self._wanted = []
        self._say("250 taken")

    def _encrypt(self) -> None:
        context = self.mail.context
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
        self._secret = True

    def _hear(self) -> str:
        line = self.rfile.readline(8192)
        if not line:
            return ""
        text = line.decode().strip()
        if not self._secret:
            self.mail.lines.append(text)
        return text or "?"

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())
        self.wfile.flush()

    def _await_the_end(self) -> None:
        with suppress(OSError):
            self.connection.settimeout(0.02)
            while not self.mail.over.is_set():
                with suppress(socket.timeout):
                    if not self.connection.recv(1):
                        return
