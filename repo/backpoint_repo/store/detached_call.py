"""Calls in threads that nobody has to wait for: a signal, or the process's end, goes before them.

Only the main thread gets signals, and not while it is in a library; and a thread of the usual kind
keeps a process from ending until a dead store has been given up. Knows nothing of what is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def begin(call: Callable[[], T]) -> Future[T]:
    """Its result, or what it raises, once it is there."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # whatever it is, it is raised where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=work, name="request", daemon=True).start()
    return outcome


def interruptible(call: Callable[[], T]) -> T:
    """What it returns or raises; in the main thread a signal's exception at once, while the call
    ends by itself."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    return begin(call).result()
