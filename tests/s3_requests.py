"""Signed requests to an S3 service, for what the store's client has no call for: policies, locks
and versions of a bucket, and puts that carry no condition. Knows nothing of repositories.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

_REGION: Final = "us-east-1"


@dataclass(frozen=True)
class Answer:
    """What a request came to; the body as it was sent."""

    status: int
    body: bytes

    def texts(self, *path: str) -> list[str]:
        """Of all elements at this path below the root of an XML body, whatever its namespace."""
        step = "/".join(f"{{*}}{name}" for name in path)
        return [found.text or "" for found in ElementTree.fromstring(self.body).findall(step)]


@dataclass(frozen=True)
class Caller:
    """One credential at one endpoint (http://HOST:PORT). Not for secrets that matter."""

    endpoint: str
    access_key: str
    secret_key: str

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """path: /BUCKET or /BUCKET/KEY. Names of headers in lower case."""
        host = self.endpoint.removeprefix("http://")
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        fields = {
            "host": host,
            "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
            "x-amz-date": stamp,
            **(headers or {}),
        }
        asked = urlencode(sorted((query or {}).items()), quote_via=quote)
        fields["authorization"] = self._signature(method, path, asked, fields)
        connection = http.client.HTTPConnection(host, timeout=60)
        try:
            connection.request(method, quote(path) + (f"?{asked}" if asked else ""), body, fields)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        finally:
            connection.close()

    def _signature(self, method: str, path: str, query: str, fields: Mapping[str, str]) -> str:
        """The header `authorization`, as signature version 4 has it."""
        names = ";".join(sorted(fields))
        lines = [f"{name}:{fields[name]}" for name in sorted(fields)]
        digest = fields["x-amz-content-sha256"]
        canonical = "\n".join([method, quote(path), query, *lines, "", names, digest])
        day = fields["x-amz-date"][:8]
        scope = f"{day}/{_REGION}/s3/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        signed = "\n".join(["AWS4-HMAC-SHA256", fields["x-amz-date"], scope, hashed])
        key = b"AWS4" + self.secret_key.encode()
        for part in (*scope.split("/"), signed):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        who = f"{self.access_key}/{scope}"
        return f"AWS4-HMAC-SHA256 Credential={who}, SignedHeaders={names}, Signature={key.hex()}"
