"""Jobs on a few threads, their results in order, a few jobs ahead and no more."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")
THREADS: Final = os.cpu_count() or 1
_AHEAD: Final = 2 * THREADS


def in_threads(
    jobs: Iterable[Callable[[], T]], abandon: Callable[[], None] = lambda: None
) -> Generator[T, None, None]:
    """Results in the order of the jobs, which are drawn as there is room. A job's error is raised.
    To be closed by whoever may not want all of them.

    abandon: called when it ends early (an error, a signal, nobody wants more) before the jobs that
    run are waited for, so that they may end early, too.
    """
    window: deque[Future[T]] = deque()
    with ThreadPoolExecutor(THREADS, "read") as workers:
        try:
            for job in jobs:
                window.append(workers.submit(job))
                if len(window) >= _AHEAD:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        except BaseException:  # of whatever kind: a signal raises SystemExit here
            abandon()
            workers.shutdown(wait=False, cancel_futures=True)
            raise
