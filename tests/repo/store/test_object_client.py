"""Requests to an object store that are interrupted, stall, or are made behind a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backpoint_repo.store.address import open_store
from backpoint_repo.store.detached_call import interruptible
from backpoint_repo.store.object_client import ObjectClient
from object_server import ObjectServer
from scripted_server import Request, a_listing, an_object, answer, bucket_at, scripted_server

FORKED = """
import os, sys
from backpoint_repo.store.address import open_store
store = open_store(sys.argv[1], os.environ)
assert store.get("packs/aa/a") == b"parent's"
for generation in ("child", "grandchild"):
    process = os.fork()
    if process == 0:
        other = open_store(sys.argv[1], os.environ)
        store.put(f"packs/aa/{generation}", [generation.encode()])
        assert other.get(f"packs/aa/{generation}") == generation.encode()
        assert len(list(store.list("packs/"))) == len(list(other.list("packs/")))
        continue
    ended = os.waitpid(process, 0)[1] == 0
    assert store.get("packs/aa/a") == b"parent's"
    os._exit(0 if ended else 1)
"""

LEFT = """
import sys
from itertools import islice
from scripted_server import ScriptedServer
store = ScriptedServer(int(sys.argv[1])).store()
found = store.list("points/")
assert len(list(islice(found, 1001))) == 1001
sys.exit(3)
"""
PATHS = {"PYTHONPATH": str(Path(__file__).parents[2])}


def test_a_forked_process_goes_on_with_its_parents_store(server: ObjectServer) -> None:
    """As a mount does that goes into the background; its parent can still use it, too."""
    environment = os.environ | server.environment()
    address = f"s3://tests/forked-{os.getpid()}"
    store = open_store(address, environment)
    store.put("packs/aa/a", [b"parent's"])
    command = [sys.executable, "-W", "error", "-c", FORKED, address]
    subprocess.run(command, env=environment, check=True, timeout=60)
    found = sorted(key for key, _ in store.list("packs/"))
    assert found == ["packs/aa/a", "packs/aa/child", "packs/aa/grandchild"]


def test_a_signal_ends_the_waiting() -> None:
    """The server never answers; it has the request when the signal comes."""
    done = threading.Event()

    def script(request: Request) -> bytes:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        done.wait(60)
        return answer("404 Not Found")

    with scripted_server(script) as server:
        with pytest.raises(KeyboardInterrupt):
            server.store().get("points/ab")
        done.set()


def test_a_process_ends_while_requests_are_under_way() -> None:
    """Of a long listing's parts only one is ever answered, and that is all that is wanted."""
    done = threading.Event()

    def script(request: Request) -> bytes:
        after = request.query.get("start-after", "")
        if after not in ("", "prefix/points/000003e7"):
            done.wait(60)
        first = 1000 if after else 0
        keys = [(f"prefix/points/{number:08x}", 1) for number in range(first, first + 1000)]
        return a_listing(keys, more=True)

    with scripted_server(script) as server:
        command = [sys.executable, "-W", "error", "-c", LEFT, str(server.port)]
        ended = subprocess.run(command, env=os.environ | PATHS, check=False, timeout=25)
        done.set()
    assert ended.returncode == 3


def test_what_a_request_raises_is_raised_in_any_thread() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interruptible(fail)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        pool.submit(interruptible, fail).result()


def test_time_limits_are_those_of_what_is_done() -> None:
    """What reads may not pause for long; what writes has a total, by its size."""
    client = ObjectClient(bucket_at("http://127.0.0.1:1"))
    large = 32 << 20
    reading, *writing = (
        requests.bucket.client_options
        for requests in (
            client.reading(),
            client.writing(0),
            client.writing(large),
            client.writing(large, again=True),
        )
    )
    assert {"read_timeout", "timeout", "connect_timeout"} <= reading.keys()
    assert not any("read_timeout" in options for options in writing)
    seconds = [int(options["timeout"].removesuffix("s")) for options in writing]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert reading["allow_http"] == "true"
    assert client.reading() is client.reading()


def test_a_request_is_made_once() -> None:
    """The library would repeat what fails; a conditional put must not be."""
    with scripted_server(lambda _: an_object(b"x")) as server:
        at, bucket = ObjectClient(bucket_at(server.endpoint)).reading()
        assert bytes(at.get(bucket, "a").bytes()) == b"x"
    with scripted_server(lambda _: answer("500 Internal Server Error")) as server:
        at, bucket = ObjectClient(bucket_at(server.endpoint)).writing(1)
        with pytest.raises(at.exceptions.GenericError):
            at.put(bucket, "a", b"x", mode="create")
    assert len(server.seen) == 1
