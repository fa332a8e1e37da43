"""What answers mean, said by a server on a real socket: the class and what the user is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import S3Store

from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    RepositoryError,
    StoreDenied,
    StoreFull,
    StoreMisconfigured,
    StoreReadOnly,
    StoreUnavailable,
    StoreUnfit,
)
from backpoint_repo.store.contract import StoredObject, Tail
from backpoint_repo.store.object_faults import Temporary, parse_answer
from backpoint_repo.store.object_store import OBJECT_MAX, ObjectStore
from scripted_server import (
    RESET,
    Request,
    a_listing,
    an_error,
    an_object,
    answer,
    bucket_at,
    scripted_server,
)

if TYPE_CHECKING:
    from obstore.store import S3Credential

KEY = "points/ab"
CALLS: dict[str, Callable[[ObjectStore], object]] = {
    "get": lambda store: store.get(KEY),
    "range": lambda store: store.get_range(KEY, 2, 3),
    "tail": lambda store: store.get_tail(KEY, 4),
    "size": lambda store: store.size(KEY),
    "put": lambda store: store.put(KEY, [b"content"]),
    "list": lambda store: list(store.list("points/")),
    "delete": lambda store: store.delete(KEY),
}
FORBIDDEN = "403 Forbidden"
BAD = "400 Bad Request"
DELETED = b"<DeleteResult><Deleted><Key>prefix/points/ab</Key></Deleted></DeleteResult>"
HTML = answer("200 OK", b"<html>Log in</html>", "Content-Type: text/html")
LIES = answer("200 OK", b"<html><body/></html>", "Content-Type: application/xml")
SECRETS = ("AKIDOFTESTS", "SECRETOFTESTS", "X-Amz", "\n", "\x1b", "<")

REFUSED: list[tuple[str, bytes, type[RepositoryError], str]] = [
    ("get", an_error(FORBIDDEN, "InvalidAccessKeyId"), StoreDenied, "AWS_ACCESS_KEY_ID"),
    ("put", an_error(FORBIDDEN, "SignatureDoesNotMatch"), StoreDenied, "AWS_SECRET_ACCESS_KEY"),
    ("list", an_error(BAD, "ExpiredToken"), StoreDenied, "expired"),
    ("put", an_error(FORBIDDEN, "RequestTimeTooSkewed"), StoreDenied, "set this machine's clock"),
    ("get", an_error("401 Unauthorized", "Whatever"), StoreDenied, "does not accept"),
    ("get", an_error(FORBIDDEN, "AccessDenied"), StoreDenied, "may also be missing"),
    ("size", answer(FORBIDDEN), StoreDenied, "may not read"),
    ("list", an_error(FORBIDDEN, "AccessDenied"), StoreDenied, "may not list"),
    ("put", an_error(FORBIDDEN, "AccessDenied"), StoreReadOnly, "may not write"),
    ("delete", an_error(FORBIDDEN, "AccessDenied"), StoreReadOnly, "may not delete"),
    (
        "delete",
        answer(
            "200 OK",
            b"<DeleteResult><Error><Key>prefix/points/ab</Key><Code>AccessDenied</Code>"
            b"<Message>Access Denied</Message></Error></DeleteResult>",
        ),
        StoreReadOnly,
        "may not delete",
    ),
    ("get", an_error("404 Not Found", "NoSuchKey"), ObjectMissing, KEY),
    ("size", answer("404 Not Found"), ObjectMissing, KEY),
    ("get", an_error("404 Not Found", "NoSuchBucket"), StoreMisconfigured, "no such bucket"),
    ("put", an_error("404 Not Found", "NoSuchBucket"), StoreMisconfigured, "no such bucket"),
    ("list", an_error("404 Not Found", "NoSuchBucket"), StoreMisconfigured, "no such bucket"),
    (
        "get",
        an_error(BAD, "AuthorizationHeaderMalformed", "<Region>eu-north-1</Region>"),
        StoreMisconfigured,
        "in the region eu-north-1; set AWS_REGION",
    ),
    ("put", answer("404 Not Found"), StoreMisconfigured, "no object store"),
    ("put", an_error("301 Moved Permanently", "PermanentRedirect"), StoreMisconfigured, "region"),
    ("put", an_error("307 Temporary", "TemporaryRedirect"), StoreMisconfigured, "region"),
    ("size", answer(BAD), StoreMisconfigured, "region or the credentials"),
    ("put", an_error("507 Insufficient Storage", "Whatever"), StoreFull, "no space"),
    ("put", an_error(FORBIDDEN, "QuotaExceeded"), StoreFull, "no space"),
    ("put", an_error("501 Not Implemented", "NotImplemented"), StoreUnfit, "put-if-absent"),
    ("put", an_error("412 Precondition Failed", "PreconditionFailed"), ObjectExists, KEY),
    ("get", an_error(BAD, "SomethingNew"), StoreUnavailable, "SomethingNew"),
    ("get", HTML, StoreMisconfigured, "no object store"),
    ("put", HTML, StoreMisconfigured, "no object store"),
    ("list", HTML, StoreMisconfigured, "no object store"),
    ("delete", HTML, StoreMisconfigured, "no object store"),
    ("get", answer("404 Not Found", b"<html>no such page"), StoreMisconfigured, "no object store"),
    ("get", answer("404 Not Found"), StoreMisconfigured, "no object store"),
    ("delete", answer("404 Not Found"), StoreMisconfigured, "no object store"),
    ("get", answer(BAD, b"this is HTTPS"), StoreMisconfigured, "status 400"),
    ("get", answer("418 Teapot", b"tea"), StoreMisconfigured, "no object store"),
    ("get", b"SSH-2.0-OpenSSH_9.9\r\n", StoreMisconfigured, "no object store"),
    ("list", answer("200 OK", b"{}"), StoreMisconfigured, "no object store"),
    ("get", an_object(b"", size=OBJECT_MAX + 1), ObjectDamaged, "too many"),
]


@pytest.mark.parametrize(("call", "said", "expected", "told"), REFUSED)
def test_what_is_no_use_to_try_again(
    call: str, said: bytes, expected: type[RepositoryError], told: str
) -> None:
    """Raised at once, in one line, without what a stranger or a credential says."""
    pauses: list[float] = []
    with (
        scripted_server(lambda _: said) as server,
        pytest.raises(RepositoryError, match=told) as raised,
    ):
        CALLS[call](server.store(pauses))
    assert type(raised.value) is expected
    assert pauses == []
    assert not any(secret in str(raised.value) for secret in SECRETS)
    # With -v, too: the library's error has all of the answer in it.
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


PASSING: list[bytes] = [
    an_error("500 Internal Server Error", "InternalError"),
    answer("502 Bad Gateway", b"<html>nginx</html>"),
    an_error("503 Service Unavailable", "SlowDown"),
    answer("429 Too Many Requests"),
    an_error("409 Conflict", "OperationAborted"),
    an_error("400 Bad Request", "RequestTimeout"),
    b"",
    RESET,
    b"HTTP/1.1 200 OK\r\nContent-",
]
GOOD: dict[str, tuple[Callable[[Request], bytes], object]] = {
    "get": (lambda _: an_object(b"content"), b"content"),
    "range": (
        lambda _: an_object(b"nte", "Content-Range: bytes 2-4/7", status="206 Partial Content"),
        b"nte",
    ),
    "tail": (
        lambda _: an_object(b"tent", "Content-Range: bytes 3-6/7", status="206 Partial Content"),
        Tail(7, b"tent"),
    ),
    "size": (lambda _: an_object(b"", size=7), 7),
    "put": (lambda _: an_object(b""), None),
    "list": (
        lambda _: a_listing([("prefix/points/ab", 7)], more=False),
        [StoredObject("points/ab", 7)],
    ),
    "delete": (lambda _: answer("200 OK", DELETED), None),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("said", PASSING)
def test_what_passes_is_tried_again(call: str, said: bytes) -> None:
    """Twice a fault, then a good answer: nobody notices. To a 409 a put asks who has the key."""
    good, expected = GOOD[call]
    if call == "size":
        # The answer to HEAD has no body, so only its status tells.
        said = said.replace(b" 400 ", b" 408 ").partition(b"<")[0]

    def script(request: Request) -> bytes:
        if call == "put" and request.method != "PUT":
            return answer("404 Not Found")
        tries = sum(seen.method == request.method for seen in server.seen)
        return said if tries <= 2 else good(request)

    pauses: list[float] = []
    with scripted_server(script) as server:
        assert CALLS[call](server.store(pauses)) == expected
    assert len(pauses) == 2
    assert pauses[1] >= pauses[0] / 2 > 0


@pytest.mark.parametrize("call", ["get", "put", "list", "delete"])
def test_what_never_passes_ends(call: str) -> None:
    """With what it was, within a total of pauses; a store that is there is waited for longer."""
    gateway, busy = answer("502 Bad Gateway"), an_error("503 Slow Down", "SlowDown")
    for said, why, least, most in ((gateway, "status 502", 2, 8), (busy, "SlowDown", 90, 120)):
        pauses: list[float] = []
        with (
            scripted_server(partial(_always, said)) as server,
            pytest.raises(StoreUnavailable, match=why),
        ):
            CALLS[call](server.store(pauses))
        assert least < sum(pauses) < most


def _always(said: bytes, _: Request) -> bytes:
    return said


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("get", an_object(b"cont", size=7)),
        ("range", an_object(b"nt", "Content-Range: bytes 2-4/7", status="206 Partial Content")),
        (
            "range",
            an_object(b"nt", "Content-Range: bytes 2-4/7", status="206 Partial Content", size=3),
        ),
        ("range", an_object(b"ten", "Content-Range: bytes 3-5/7", status="206 Partial Content")),
        ("range", an_object(b"nt", "Content-Range: bytes 2-3/7", status="206 Partial Content")),
        ("tail", an_object(b"ent", "Content-Range: bytes 4-6/7", status="206 Partial Content")),
        ("tail", an_object(b"con", "Content-Range: bytes 0-3/7", status="206 Partial Content")),
        ("tail", an_object(b"ten", "Content-Range: bytes 3-6/7", status="206 Partial Content")),
    ],
)
def test_bytes_that_are_not_those_asked_for_are_never_given_out(call: str, said: bytes) -> None:
    pauses: list[float] = []
    with scripted_server(lambda _: said) as server, pytest.raises(StoreUnavailable):
        CALLS[call](server.store(pauses))
    assert len(pauses) > 3


def test_a_range_that_is_larger_than_asked_for_is_not_read() -> None:
    """The library would make room for whatever the head of the answer promises."""
    huge = an_object(
        b"x", "Content-Range: bytes 0-99999999999/100000000000", status="206 Partial Content",
        size=100_000_000_000,
    )  # fmt: skip
    for call in ("range", "tail", "get"):
        with (
            scripted_server(lambda _: huge) as server,
            pytest.raises(RepositoryError) as raised,
        ):
            CALLS[call](server.store())
        assert isinstance(raised.value, ObjectDamaged | Temporary)


@pytest.mark.parametrize("call", ["range", "tail"])
def test_whole_objects_for_parts(call: str) -> None:
    """A server that does not mark parts as such is asked for all; a web page is no object."""
    with scripted_server(lambda _: an_object(b"content")) as server:
        assert CALLS[call](server.store()) == GOOD[call][1]
    with (
        scripted_server(lambda _: HTML) as server,
        pytest.raises(StoreMisconfigured, match="no object store"),
    ):
        CALLS[call](server.store())


def test_what_lists_nothing_must_list_the_configuration() -> None:
    """To the library any XML is an empty listing: an empty folder is believed of a store that can
    list, or has no repository."""

    def script(there: bool, can_list: bool, request: Request) -> bytes:
        if request.method == "HEAD":
            return an_object(b"", size=99) if there else an_error("404 Not Found", "NoSuchKey")
        lists = "start-after" in request.query and can_list
        return a_listing([("prefix/config", 99)], more=False) if lists else LIES

    for there, can_list in ((False, False), (True, True)):
        with scripted_server(partial(script, there, can_list)) as server:
            assert list(server.store().list("trash/")) == []
    with (
        scripted_server(partial(script, True, False)) as server,
        pytest.raises(StoreUnavailable, match="does not list what is there"),
    ):
        list(server.store().list("trash/"))


def test_a_range_behind_the_end_is_empty_at_once() -> None:
    pauses: list[float] = []
    refusal = an_error("416 Range Not Satisfiable", "InvalidRange")
    with scripted_server(lambda _: refusal) as server:
        assert server.store(pauses).get_range(KEY, 99, 5) == b""
    assert pauses == []


@pytest.mark.parametrize("lost", [b"", RESET, b"HTTP/1.1 200 OK\r\n", PASSING[0]])
@pytest.mark.parametrize(("taken", "ours"), [(b"content", True), (b"another", False)])
def test_a_put_whose_answer_was_lost(taken: bytes, ours: bool, lost: bytes) -> None:
    """Tried again it finds the key taken: by itself, where the bytes are its own."""

    def script(request: Request) -> bytes:
        if request.method == "PUT":
            tries = sum(seen.method == "PUT" for seen in server.seen)
            return lost if tries == 1 else an_error("412 Precondition Failed", "PreconditionFailed")
        return an_object(b"" if request.method == "HEAD" else taken, size=len(taken))

    with scripted_server(script) as server:
        if ours:
            server.store().put(KEY, [b"con", b"tent"])
        else:
            with pytest.raises(ObjectExists):
                server.store().put(KEY, [b"con", b"tent"])
    assert [seen.method for seen in server.seen] == ["PUT", "PUT", "HEAD", "GET"]
    assert all(seen.headers["if-none-match"] == "*" for seen in server.seen[:2])


def test_equal_bytes_are_not_ours_where_we_never_sent_any() -> None:
    """A first put that finds the key taken has lost, whatever lies there."""
    refusal = an_error("412 Precondition Failed", "PreconditionFailed")
    with scripted_server(lambda _: refusal) as server, pytest.raises(ObjectExists):
        server.store().put(KEY, [b"content"])
    assert len(server.seen) == 1


def test_a_conflict_is_no_proof_that_the_key_is_taken() -> None:
    """409 while somebody deletes: taken where something is there, tried again where nothing is."""
    there = True

    def script(request: Request) -> bytes:
        if request.method == "PUT":
            puts = sum(seen.method == "PUT" for seen in server.seen)
            conflict = an_error("409 Conflict", "ConditionalRequestConflict")
            return conflict if there or puts < 3 else an_object(b"")
        return an_object(b"", size=7) if there else answer("404 Not Found")

    with scripted_server(script) as server, pytest.raises(ObjectExists):
        server.store().put(KEY, [b"content"])
    there = False
    with scripted_server(script) as server:
        server.store().put(KEY, [b"content"])


def test_a_store_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    pauses: list[float] = []
    store = ObjectStore(bucket_at(f"http://127.0.0.1:{port}"), "s3://b", pauses.append)
    with pytest.raises(StoreUnavailable, match="the connection was refused"):
        store.get(KEY)
    assert len(pauses) > 3


def test_a_name_that_cannot_be_resolved() -> None:
    """It may come back; where it does not, the address is wrong."""
    pauses: list[float] = []
    store = ObjectStore(bucket_at("http://nowhere.invalid"), "s3://b", pauses.append)
    with pytest.raises(StoreMisconfigured, match="AWS_ENDPOINT_URL"):
        store.get(KEY)
    assert len(pauses) > 3


def test_a_server_without_tls() -> None:
    """It answers a handshake with an error in plain HTTP."""

    def answer_plainly() -> None:
        with listening.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(answer(BAD))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        answering = threading.Thread(target=answer_plainly)
        answering.start()
        endpoint = f"https://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(StoreMisconfigured, match="does not speak TLS"):
            ObjectStore(bucket_at(endpoint), "s3://b").get(KEY)
        answering.join()


@given(st.text(max_size=300))
def test_any_text_is_an_answer_of_harmless_parts(text: str) -> None:
    """What is taken from a body is a short code, whatever the body is."""
    for said in (text, f"Server returned non-2xx status code: 400 Bad Request: {text}"):
        found = parse_answer(said)
        assert found.code == "" or (found.code.isascii() and len(found.code) <= 64)
        assert 0 <= found.status <= 999


def test_credentials_that_cannot_be_got() -> None:
    """Whoever hands them out may come back; where nobody ever does, there are none."""

    def provide() -> S3Credential:
        raise RuntimeError("SECRETOFTESTS")

    pauses: list[float] = []
    bucket = S3Store(
        "bucket",
        endpoint="http://127.0.0.1:1",
        client_options={"allow_http": True},
        credential_provider=provide,
    )
    with pytest.raises(StoreDenied, match="AWS_ACCESS_KEY_ID") as raised:
        ObjectStore(bucket, "s3://b", pauses.append).get(KEY)
    assert "SECRETOFTESTS" not in str(raised.value)
    assert len(pauses) > 3


def test_advice_names_variables_of_s3_to_its_users_only() -> None:
    with scripted_server(lambda _: HTML) as server:
        for address, named in (("s3://b", True), ("gs://b", False)):
            with pytest.raises(StoreMisconfigured, match="no object store") as raised:
                ObjectStore(bucket_at(server.endpoint), address).get(KEY)
            assert ("AWS_" in str(raised.value)) is named
