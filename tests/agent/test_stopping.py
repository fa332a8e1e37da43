"""A request to stop reaches whoever waits, and only those below it."""

from __future__ import annotations

import threading
import time

import pytest

from backpoint_agent.errors import Stopped
from backpoint_agent.stopping import Stop

LONG_S = 600


def test_a_request_ends_every_wait() -> None:
    """Waiters on a stop and on its children wake, long before their time, with the reason."""
    stop = Stop()
    child, grandchild = Stop(stop), Stop(Stop(stop))
    said: list[str] = []

    def wait(on: Stop) -> None:
        try:
            on.wait(LONG_S)
        except Stopped as stopped:
            said.append(str(stopped))

    threads = [threading.Thread(target=wait, args=(on,)) for on in (stop, child, grandchild) * 5]
    for thread in threads:
        thread.start()
    stop.request("SIGTERM")
    for thread in threads:
        thread.join(30)
    assert said == ["stopped: SIGTERM"] * 15


def test_a_child_does_not_stop_its_parent() -> None:
    """One VM's failure leaves its siblings and the job alone."""
    job = Stop()
    one, other = Stop(job), Stop(job)
    one.request("its window ended")
    with pytest.raises(Stopped, match="its window ended"):
        one.check()
    job.check()
    other.check()
    other.wait(0)


def test_the_first_reason_is_kept() -> None:
    """What stopped first is what is told."""
    stop = Stop()
    stop.request("SIGINT")
    stop.request("SIGTERM")
    assert stop.reason == "SIGINT"


def test_a_wait_after_the_request_does_not_begin() -> None:
    """Who comes late is told at once."""
    stop = Stop()
    stop.request("the end of the window")
    began = time.monotonic()
    with pytest.raises(Stopped):
        stop.wait(LONG_S)
    assert time.monotonic() - began < LONG_S / 10


def test_a_wait_that_nobody_stops_ends_by_itself() -> None:
    """Without a request the time simply passes."""
    stop = Stop()
    began = time.monotonic()
    stop.wait(0.02)
    assert time.monotonic() - began >= 0.02
    assert stop.reason is None
