"""SIGTERM and an interrupt while something runs until it is told to stop, and while it ends.

For the main thread.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Final, NoReturn

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_Handler = Callable[[int, FrameType | None], Any] | int | None


class _Stopped(BaseException):
    """Not an Exception: nothing but `until_stopped` may catch it."""


@contextlib.contextmanager
def until_stopped() -> Iterator[None]:
    """A signal ends the block, which is no failure."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _Stopped

    before = [signal.signal(number, stop) for number in _SIGNALS]
    try:
        yield
    except _Stopped:
        pass
    finally:
        _restore(before)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals are not heard: for an end that has its own limits of time."""
    before = [signal.signal(number, signal.SIG_IGN) for number in _SIGNALS]
    try:
        yield
    finally:
        _restore(before)


def _restore(handlers: Sequence[_Handler]) -> None:
    for number, handler in zip(_SIGNALS, handlers, strict=True):
        signal.signal(number, handler)
