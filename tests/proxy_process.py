"""The process behind `paced_proxy.py`: a thread per connection, told what to do on stdin.

`python tests/proxy_process.py ORDER`, where ORDER is one JSON object; each line on stdin is
[verb, argument], and each gets one line of JSON back. It ends with its stdin.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections import Counter
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from paced_proxy import Harm
from proxy_answers import MADE_UP
from proxy_wire import Bandwidth, Gone, Head, Wire

_HALVED: Final = ("reset-answer", "cut-answer", "shorten-answer")


class Proxy:
    """What all connections share."""

    def __init__(self, target: str, delay_s: float, bytes_per_s: float | None) -> None:
        parts = urlsplit(target)
        self.target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.delay_s = delay_s
        self.up, self.down = Bandwidth(bytes_per_s), Bandwidth(bytes_per_s)
        self._lock = threading.Lock()
        self._rules: list[tuple[Harm, list[int]]] = []
        self._methods: Counter[str] = Counter()
        self._in_flight = self._most_in_flight = self._harmed = 0
        self._clients: set[Wire] = set()
        # Holds the port while no connection is accepted.
        self._keeper = _bound(0)
        self.port: int = self._keeper.getsockname()[1]
        self._listener: socket.socket | None = None
        self.accept()

    def accept(self) -> None:
        """Take connections, if none are taken now."""
        with self._lock:
            if self._listener is not None:
                return
            self._listener = _bound(self.port)
            self._listener.listen(512)
            threading.Thread(target=self._accepting, args=[self._listener], daemon=True).start()

    def refuse(self) -> None:
        """Take no more connections and reset those there are."""
        with self._lock:
            listener, self._listener = self._listener, None
            clients = list(self._clients)
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for client in clients:
            client.reset()

    def order(self, verb: str, what: Any) -> Any:
        """Do what a line on stdin asks for."""
        if verb == "port":
            return self.port
        if verb == "counts":
            return self._counts()
        if verb == "clear":
            with self._lock:
                self._methods.clear()
                self._most_in_flight = self._in_flight
                self._harmed = self.up.passed = self.down.passed = 0
        elif verb == "calm":
            with self._lock:
                self._rules.clear()
            self.accept()
        elif verb == "harm":
            harm = Harm(**what)
            if harm == Harm("refuse"):
                self.refuse()
            else:
                with self._lock:
                    self._rules.append((harm, [0]))
        return None

    def began(self, method: str, path: str) -> Harm | None:
        """Count a request; what is to be done to it."""
        with self._lock:
            self._methods[method] += 1
            self._in_flight += 1
            self._most_in_flight = max(self._most_in_flight, self._in_flight)
            found = None
            for harm, seen in self._rules:
                if harm.method not in (None, method) or not re.search(harm.key, path):
                    continue
                seen[0] += 1
                late = harm.times is not None and seen[0] >= harm.first + harm.times
                if found is None and seen[0] >= harm.first and not late:
                    found = harm
            self._harmed += found is not None
            return found

    def ended(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def _counts(self) -> dict[str, Any]:
        with self._lock:
            return {
                "methods": dict(self._methods),
                "most_in_flight": self._most_in_flight,
                "harmed": self._harmed,
                "bytes_up": self.up.passed,
                "bytes_down": self.down.passed,
            }

    def _accepting(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[Wire(connection)], daemon=True).start()

    def _serve(self, client: Wire) -> None:
        with self._lock:
            self._clients.add(client)
        link = Link(self, client)
        try:
            while link.exchange():
                pass
        except Gone:
            client.reset()
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()
            link.hang_up()


class Link:
    """One client's connection and the one to the server that goes with it."""

    def __init__(self, proxy: Proxy, client: Wire) -> None:
        self._proxy = proxy
        self._client = client
        self._server: Wire | None = None

    def hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def exchange(self) -> bool:
        """One request and its answer; False: there will be no other. Raises Gone."""
        try:
            asked = self._client.head()
        except Gone:
            return False  # a client that hangs up between requests
        if asked.get("expect"):
            self._client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            asked = asked.lacking("expect")
        method, target, _ = asked.first.split(" ", 2)
        if method == "GET" and "list-type=" in target:
            method = "LIST"
        harm = self._proxy.began(method, unquote(target))
        try:
            return self._harmed(harm, asked) if harm else self._forward(asked)
        finally:
            self._proxy.ended()

    def _harmed(self, harm: Harm, asked: Head) -> bool:
        kind = harm.kind
        if kind == "refuse":
            self._proxy.refuse()
            raise Gone
        if kind == "stall":
            time.sleep(harm.stall_s)
            return self._forward(asked)
        if kind in MADE_UP:
            return self._answer(kind, asked)
        return self._forward(asked, kind)

    def _answer(self, kind: str, asked: Head) -> bool:
        """One of our own; the server hears nothing of the request."""
        for _ in self._client.pieces(asked.length):
            pass
        time.sleep(self._proxy.delay_s)
        status, media, text = MADE_UP[kind]
        fields = (("Content-Type", media), ("Content-Length", str(len(text))))
        body = b"" if asked.first.startswith("HEAD ") else text.encode()
        self._client.send(Head(f"HTTP/1.1 {status} X", fields).encode() + body)
        return True

    def _forward(self, asked: Head, harm: str = "") -> bool:
        time.sleep(self._proxy.delay_s)
        server = self._connected()
        try:
            server.send(asked.encode())
            self._pass_request(asked, server, harm)
        except Gone:
            if harm:
                raise
            # A server may have answered, and hung up, before it had all.
        answer = server.head()
        while answer.first.split(" ")[1] == "100":
            answer = server.head()
        has_body = self._has_body(asked, answer)
        if harm == "lose-answer":
            raise Gone
        self._pass_answer(answer, server, has_body, harm)
        return harm != "cut-answer" and "close" not in (answer.get("connection") or "")

    def _pass_request(self, asked: Head, server: Wire, harm: str) -> None:
        if harm == "reset-request":
            self._client.move(server, asked.length // 2, self._proxy.up)
            server.reset()
            raise Gone
        if asked.chunked:
            server.send(self._client.chunks())
        else:
            self._client.move(server, asked.length, self._proxy.up)

    def _pass_answer(self, answer: Head, server: Wire, has_body: bool, harm: str) -> None:
        if harm in _HALVED:
            half = answer.length // 2 if has_body else 0
            if harm == "shorten-answer":
                answer = answer.having("Content-Length", str(half))
            self._client.send(answer.encode())
            server.move(self._client, half, self._proxy.down)
            self.hang_up()
            if harm == "reset-answer":
                raise Gone
        elif has_body and answer.chunked:
            self._client.send(answer.encode() + server.chunks())
        else:
            self._client.send(answer.encode())
            if has_body:
                server.move(self._client, answer.length, self._proxy.down)

    def _has_body(self, asked: Head, answer: Head) -> bool:
        status = answer.first.split(" ")[1]
        return not asked.first.startswith("HEAD ") and status not in ("204", "304")

    def _connected(self) -> Wire:
        if self._server is not None and self._server.idle_and_closed():
            self.hang_up()
        if self._server is None:
            try:
                self._server = Wire(socket.create_connection(self._proxy.target))
            except OSError as error:
                raise Gone from error
        return self._server


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


def main() -> None:
    proxy = Proxy(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        verb, what = json.loads(line)
        print(json.dumps(proxy.order(verb, what)), flush=True)


if __name__ == "__main__":
    main()
