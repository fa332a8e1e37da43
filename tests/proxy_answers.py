"""Answers that a proxy gives in an object server's place: S3's errors, and web pages."""

from __future__ import annotations

from typing import Final, NamedTuple


class Answer(NamedTuple):
    """media: its Content-Type."""

    status: int
    media: str
    text: str


def _error(status: int, code: str, message: str, more: str = "") -> Answer:
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}'
        f"</Message>{more}<RequestId>4442587FB7D0A2F9</RequestId></Error>"
    )
    return Answer(status, "application/xml", text)


_PAGE: Final = "<!DOCTYPE html><html><head><title>Welcome</title></head><body>Hello</body></html>"
MADE_UP: Final = {
    "internal-error": _error(500, "InternalError", "We encountered an internal error. Try again."),
    "slow-down": _error(503, "SlowDown", "Please reduce your request rate."),
    "access-denied": _error(403, "AccessDenied", "Access Denied."),
    "bad-signature": _error(403, "SignatureDoesNotMatch", "The signature does not match."),
    "wrong-region": _error(
        400,
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed; the region 'us-east-1' is wrong; expecting "
        "'eu-west-1'",
        "<Region>eu-west-1</Region>",
    ),
    "expired-token": _error(400, "ExpiredToken", "The provided token has expired."),
    "clock-skew": _error(
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the server's time is too large.",
    ),
    "no-such-key": _error(404, "NoSuchKey", "The specified key does not exist."),
    "no-such-bucket": _error(404, "NoSuchBucket", "The specified bucket does not exist."),
    "login-page": Answer(200, "text/html", _PAGE),
    "bad-gateway": Answer(502, "text/html", _PAGE),
}
"""By what `paced_proxy.Kind` calls them."""
