"""What an object store's errors mean: try again, denied, missing, set up wrongly, or full.

The library tells them apart by class only in part; the rest is the HTTP status and the code in the
text of the answer, or how the connection failed. All of that text is a stranger's: what of it gets
into a message is a code or a name of a region, short and of harmless characters. Knows no request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from backpoint_repo.errors import (
    BackpointError,
    ObjectMissing,
    RepositoryError,
    StoreDenied,
    StoreFull,
    StoreMisconfigured,
    StoreReadOnly,
    StoreUnavailable,
    StoreUnfit,
)
from backpoint_repo.store.object_codes import (
    CREDENTIAL_FAULTS,
    FORBIDDEN_CODES,
    FULL_CODES,
    MISSING_CODES,
    NO_BUCKET_CODES,
    PASSING_CODES,
    PASSING_STATUS,
    REGION_CODES,
)

Doing = Literal["read", "list", "write", "delete"]


class Temporary(StoreUnavailable):
    """Trying again may help."""

    final: StoreUnavailable | None = None
    """What it is where trying again never helped, when that is something else."""
    arrived = True
    """Whether the request may have been carried out."""
    there = False
    """Whether an object store said so itself."""


class Taken(RepositoryError):
    """A put found something at the key, or somebody who is just about to put or delete it there.

    certain: it is there.
    """

    def __init__(self, message: str, *, certain: bool) -> None:
        super().__init__(message)
        self.certain = certain


class OutOfRange(RepositoryError):
    """A range that begins behind the object's end."""


class NoSuffixes(RepositoryError):
    """The store gives no last bytes of an object; its size must be asked for first."""


class NoRanges(RepositoryError):
    """The answer is not marked as a part, as HTTP allows; the whole must be asked for."""


@dataclass(frozen=True)
class Answer:
    """status: 0 where there was none. code: of a body that is an object store's error, else ""."""

    status: int
    code: str
    text: str


@dataclass(frozen=True)
class _Request:
    doing: Doing
    key: str
    address: str

    def failed(self, why: str) -> str:
        """Behind a semicolon is advice that names variables of S3."""
        if not self.address.startswith("s3:"):
            why = why.partition("; ")[0]
        return f"cannot {self.doing} {self.key or 'objects'} in {self.address}: {why}"


def sorted_fault(error: Exception, doing: Doing, key: str, address: str) -> BackpointError | None:
    """What to raise instead of an error of the library; None where it is no such error.

    key: what is read, written or deleted; of a listing its prefix.
    """
    if isinstance(error, BackpointError):
        return error
    if not _is_of_library(error):
        return None
    request, answer = _Request(doing, key, address), parse_answer(str(error))
    if _is_of_credentials(answer.text):
        fault = Temporary(request.failed("the credentials cannot be got"))
        fault.final = StoreDenied(request.failed(_NO_CREDENTIALS))
        return fault
    if answer.status or answer.code:
        return _refused(request, answer)
    if type(error).__name__ == "NotSupportedError":
        return NoSuffixes(request.failed("the store does not know this request"))
    if "source: NotPartial" in answer.text:
        return NoRanges(request.failed("the store gives no parts of objects"))
    return _broken_off(request, answer.text)


def parse_answer(text: str) -> Answer:
    """From the library's text of an error."""
    text = text[:_TEXT_MAX]
    found = _STATUS.search(text)
    if found is None:
        # Of several that are deleted by one request each has an answer of its own.
        deleted = _OF_MANY.match(text.partition("\n\nDebug source:")[0])
        return Answer(0, deleted[1] if deleted else "", text)
    code = _CODE.search(text, found.end())
    return Answer(int(found[1]), code[1] if code else "", text)


def no_object_store(doing: Doing, key: str, address: str) -> StoreMisconfigured:
    """For an answer that none would give."""
    return StoreMisconfigured(_Request(doing, key, address).failed(_NO_STORE))


def temporary(doing: Doing, key: str, address: str, why: str) -> Temporary:
    """why: `the answer was cut short`."""
    return Temporary(_Request(doing, key, address).failed(why))


def _refused(request: _Request, answer: Answer) -> BackpointError:
    """It answered, with an error."""
    said = answer.code or f"status {answer.status}"
    if answer.status == 404 or answer.code in MISSING_CODES:
        return _absent(request, answer)
    if answer.code in CREDENTIAL_FAULTS:
        return StoreDenied(request.failed(f"{CREDENTIAL_FAULTS[answer.code]} ({said})"))
    if answer.status == 507 or answer.code in FULL_CODES:
        return StoreFull(request.failed(f"no space is left there, or none for us ({said})"))
    if answer.code in REGION_CODES or answer.status in (301, 302, 307, 308):
        return StoreMisconfigured(request.failed(_other_region(answer)))
    if answer.code in PASSING_CODES or answer.status in PASSING_STATUS:
        busy = Temporary(request.failed(f"it is busy or has a fault of its own ({said})"))
        busy.there = bool(answer.code)
        return busy
    if answer.status in (304, 409, 412):
        return _taken(request, answer)
    if answer.status == 416 and request.doing == "read":
        return OutOfRange(request.failed("the object ends before that"))
    if answer.status == 401:
        return StoreDenied(request.failed(f"it does not accept the credentials ({said})"))
    if answer.status in (403, 405) or answer.code in FORBIDDEN_CODES:
        return _forbidden(request, said)
    if answer.status == 501 and request.doing == "write":
        return StoreUnfit(request.failed("it does not know put-if-absent (NotImplemented)"))
    if answer.status == 400 and not answer.code:
        # The answer to HEAD has no text that would tell which of them it is.
        why = "it rejects the request (status 400): the region or the credentials may be wrong"
        return StoreMisconfigured(request.failed(why))
    if not answer.code:
        return StoreMisconfigured(request.failed(f"{_NO_STORE} ({said})"))
    return StoreUnavailable(request.failed(f"it refuses the request ({said})"))


def _absent(request: _Request, answer: Answer) -> BackpointError:
    of_bucket = request.doing in ("list", "write")
    if answer.code in NO_BUCKET_CODES or (of_bucket and answer.code):
        why = "there is no such bucket; make it first, or look at its name"
        return StoreMisconfigured(f"{request.address}: {why}")
    # The answer to HEAD has no text. Any other one without a code is of a web server or of a proxy
    # that has lost its way to the store; what only they miss is not gone.
    if of_bucket or not (answer.code or _EMPTY.match(answer.text)):
        return StoreMisconfigured(request.failed(f"{_NO_STORE} (status 404)"))
    return ObjectMissing(f"{request.key} is missing in {request.address}")


def _taken(request: _Request, answer: Answer) -> BackpointError:
    if request.doing == "write":
        certain = answer.status != 409 or answer.code in ("BlobAlreadyExists", "EntityAlreadyExist")
        return Taken(f"{request.key} exists", certain=certain)
    return Temporary(request.failed(f"it was changed at the same time (status {answer.status})"))


def _forbidden(request: _Request, said: str) -> StoreUnavailable:
    if request.doing in ("write", "delete"):
        why = f"this credential may not {request.doing}, or the object is locked ({said})"
        return StoreReadOnly(request.failed(why))
    why = f"this credential may not {request.doing} ({said})"
    if request.doing == "read":
        # A store that may not tell whether something exists says the same of what does not.
        why += ", and where it may not list either, the object may also be missing"
    return StoreDenied(request.failed(why))


def _other_region(answer: Answer) -> str:
    region = _REGION.search(answer.text)
    where = f"in the region {region[1]}" if region else "in another region or at another address"
    return f"the bucket is {where}; set AWS_REGION, or AWS_ENDPOINT_URL where it is no AWS"


def _broken_off(request: _Request, text: str) -> StoreUnavailable:
    """There was no answer, or not all of it."""
    for mark, why in _WRONG_MARKS:
        if mark in text:
            return StoreMisconfigured(request.failed(why))
    known = (why for mark, why in _PASSING_MARKS if mark in text)
    kinds = ", ".join(_KIND.findall(text)[:_KINDS_MAX])
    fault = Temporary(request.failed(next(known, f"the connection failed ({kinds or 'unknown'})")))
    if "dns error" in text:
        why = "its name cannot be resolved; check AWS_ENDPOINT_URL and this machine's name service"
        fault.final = StoreMisconfigured(request.failed(why))
    # All of these are errors of making the connection.
    fault.arrived = "kind: Connect," not in text
    return fault


def _is_of_library(error: Exception) -> bool:
    """By name: a process may have more than one copy of the library."""
    ancestors = {(kind.__module__, kind.__name__) for kind in type(error).__mro__}
    ours = ("obstore.exceptions", "BaseError") in ancestors
    return ours or isinstance(error, OSError | NotImplementedError)


def _is_of_credentials(text: str) -> bool:
    """Whether they were asked for and not had: of a machine's own service, or of a provider."""
    asked = text.partition("Debug source:")[0].partition(" - ")[0]
    return "169.254." in asked or "credential provider" in asked


_TEXT_MAX: Final = 1 << 16
_STATUS: Final = re.compile(r"Server returned non-2xx status code: (\d{3})")
_EMPTY: Final = re.compile(r"[^\n]*performing HEAD [^\n]*status code: 404 [A-Za-z ]*: ?\n\nDebug")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_OF_MANY: Final = re.compile(
    r".*DeleteObjects request failed .*\(code: ([A-Za-z0-9]{1,64})\)", re.S
)
_KIND: Final = re.compile(r"kind: ([A-Za-z]{1,32})\b")
_KINDS_MAX: Final = 4
_REGION: Final = re.compile(r"<Region>([a-z0-9-]{1,32})</Region>")
_NO_STORE: Final = "what answers there is no object store; check AWS_ENDPOINT_URL"
_NO_CREDENTIALS: Final = (
    "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
_WRONG_MARKS: Final = (
    ("BadScheme", "its address is http://, which is not allowed: use https://, or allow http"),
    ("InvalidMessage", "it does not speak TLS: should its address be http://?"),
    (
        "InvalidCertificate",
        "its certificate is not trusted: either it is for another name, or ca_file in [store] must "
        "name that of its authority; AWS_CA_BUNDLE does, too",
    ),
    ("Received redirect without LOCATION", _other_region(Answer(301, "", ""))),
    ("Parse(", _NO_STORE),
    ("Unable to extract metadata from headers", _NO_STORE),
    ("source: Header {", _NO_STORE),
    ("InvalidListResponse", _NO_STORE),
    ("InvalidDeleteObjectsResponse", _NO_STORE),
    ("InvalidPath", "there are objects whose names no repository gives"),
)
_PASSING_MARKS: Final = (
    ("dns error", "its name cannot be resolved"),
    ("ConnectionRefused", "the connection was refused"),
    ("ConnectionReset", "the connection was broken off"),
    ("IncompleteMessage", "the connection was broken off"),
    ("IncompleteBody", "the answer was cut short"),
    ("TimedOut", "nothing came of an answer in time"),
    ("kind: Timeout", "nothing came of an answer in time"),
    ("UnexpectedRange", "it answered with another part than was asked for"),
    ("HostUnreachable", "its host cannot be reached"),
    ("NetworkUnreachable", "there is no network"),
)
