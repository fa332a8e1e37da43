"""Long listings: every key once, whatever keys there are, and several pages asked for at once."""

from __future__ import annotations

import bisect
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import StoreUnfit
from backpoint_repo.store.contract import StoredObject
from backpoint_repo.store.object_listing import PAGE, Page, Part, list_parts, plan_parts
from scripted_server import Request, a_listing, answer, scripted_server

FOLDER = "points/"
names = st.text("0123456789abcdefgz/-", min_size=1, max_size=6)


def page_of(key: str) -> Page:
    return [StoredObject(f"{FOLDER}{key}", 1)]


def hex_keys(count: int) -> list[str]:
    return [f"{FOLDER}{number * 7919 % 65536:04x}{number:08x}" for number in range(count)]


def listed(keys: list[str], request: Request) -> bytes:
    """keys: sorted. As S3 does: a page from behind a key or a token on, which is a key here."""
    after = request.query.get("start-after", "")
    begin = bisect.bisect_right(keys, after)
    return a_listing(
        [(key, 1) for key in keys[begin : begin + PAGE]], more=begin + PAGE < len(keys)
    )


@given(after=names, keys=st.sets(names), lanes=st.integers(1, 40))
def test_every_key_is_in_exactly_one_part(after: str, keys: set[str], lanes: int) -> None:
    parts = plan_parts(FOLDER, page_of(after), lanes)
    assert 1 <= len(parts) <= lanes
    assert parts[0].after == f"{FOLDER}{after}"
    assert parts[-1].last is None
    assert all(one.last == other.after for one, other in pairwise(parts))
    for key in keys:
        full = f"{FOLDER}{key}"
        inside = [part for part in parts if part.after < full <= (part.last or "~")]
        assert len(inside) == (key > after)


def test_parts_are_as_many_as_there_seem_to_be_pages() -> None:
    """A page that ends in the middle is half of all; one at a hundredth is one of a hundred."""
    assert len(plan_parts(FOLDER, page_of("8000"), 16)) == 1
    assert len(plan_parts(FOLDER, page_of("4000"), 16)) == 3
    assert len(plan_parts(FOLDER, page_of("028f"), 16)) == 16
    assert len(plan_parts(FOLDER, page_of("0000"), 16)) == 16
    assert len(plan_parts("packs/", [StoredObject("packs/02/8f", 1)], 16)) == 16


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 30 * PAGE, 30 * PAGE + 7])
@pytest.mark.parametrize("spread", [True, False])
def test_all_keys_once(count: int, spread: bool) -> None:
    keys = sorted(hex_keys(count) if spread else [f"{FOLDER}{at:09}" for at in range(count)])

    def ask(after: str) -> Page:
        begin = bisect.bisect_right(keys, after)
        return [StoredObject(key, 1) for key in keys[begin : begin + PAGE]]

    first = ask("")
    found = list(first)
    if len(first) == PAGE:
        for page in list_parts(ask, plan_parts(FOLDER, first, 16), 16):
            found += page
    assert sorted(found) == [StoredObject(key, 1) for key in keys]


def test_a_fault_ends_a_listing() -> None:
    def ask(after: str) -> Page:
        raise StoreUnfit(after)

    with pytest.raises(StoreUnfit):
        list(list_parts(ask, [Part("a", "b"), Part("b")], 2))


def test_several_pages_are_on_their_way_at_once() -> None:
    """The server answers nothing behind the first page before four requests have come."""
    keys = sorted(f"prefix/{key}" for key in hex_keys(12 * PAGE))
    waiting, four = list[Request](), threading.Event()

    def script(request: Request) -> bytes:
        if "start-after" in request.query:
            waiting.append(request)
            if len(waiting) == 4:
                four.set()
            if not four.wait(20):
                return answer("404 Not Found")
        return listed(keys, request)

    with scripted_server(script) as server:
        store = server.store()
        found = [key for key, _ in store.list(FOLDER)]
    assert sorted(found) == [key.removeprefix("prefix/") for key in keys]
    assert len(server.seen) <= 1 + 11 + 16


def test_folders_entries_of_their_own_are_not_objects() -> None:
    """Some consoles make one, with the folder's name; a page that has it is full all the same."""
    keys = sorted(["prefix/points/", *(f"prefix/{key}" for key in hex_keys(2 * PAGE))])
    with scripted_server(lambda request: listed(keys, request)) as server:
        found = [key for key, _ in server.store().list(FOLDER)]
    assert sorted(found) == sorted(hex_keys(2 * PAGE))


def test_an_answer_that_is_no_listing_does_not_end_one() -> None:
    """To the library any XML is an empty listing, also where a thousand keys more are."""
    keys = sorted(f"prefix/{key}" for key in hex_keys(3 * PAGE))
    lied = set[str]()

    def script(request: Request) -> bytes:
        after = request.query.get("start-after", "")
        if after and after not in lied:
            lied.add(after)
            return answer("200 OK", b"<html/>", "Content-Type: application/xml")
        return listed(keys, request)

    with scripted_server(script) as server:
        found = [key for key, _ in server.store().list(FOLDER)]
    assert sorted(found) == sorted(hex_keys(3 * PAGE))
    assert lied


def test_a_store_that_lists_in_no_order() -> None:
    """Where the first page tells, all is listed at once; where a later one does, that is said."""
    keys = [f"prefix/{key}" for key in hex_keys(PAGE + 200)]
    pages = {"": keys[:PAGE], "more": keys[PAGE:]}

    def by_tokens(request: Request) -> bytes:
        token = request.query.get("continuation-token", "")
        return a_listing([(key, 1) for key in pages[token]], more=not token)

    with scripted_server(by_tokens) as server:
        found = [key for key, _ in server.store().list(FOLDER)]
    assert found == hex_keys(PAGE + 200)

    def later(request: Request) -> bytes:
        if "start-after" in request.query:
            return listed(sorted(keys)[::-1], Request("GET", "/", {}, b""))
        return listed(sorted(keys), request)

    with scripted_server(later) as server, pytest.raises(StoreUnfit, match="order"):
        list(server.store().list(FOLDER))


def test_an_empty_listing_is_believed_of_an_object_store_only() -> None:
    """It says of an object that it is missing; a web server shows the same page for everything."""

    def script(request: Request) -> bytes:
        return answer("404 Not Found") if request.method == "HEAD" else a_listing([], more=False)

    with scripted_server(script) as server:
        assert list(server.store().list(FOLDER)) == []
