"""Jobs on a few threads, a few ahead and no more; results as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final, TypeVar

T = TypeVar("T")
U = TypeVar("U")
THREADS: Final = os.cpu_count() or 1


def in_threads(
    jobs: Iterable[Callable[[], T]],
    abandon: Callable[[], None] = lambda: None,
    threads: int = THREADS,
) -> Generator[T, None, None]:
    """Results in the order in which jobs are done; jobs are drawn as there is room. A job's error
    is raised. To be closed by whoever may not want all of them.

    abandon: called when it ends early (an error, a signal, nobody wants more) before the jobs that
    run are waited for, so that they may end early, too.
    """
    window: set[Future[T]] = set()
    with ThreadPoolExecutor(threads, "read") as workers:
        try:
            for job in jobs:
                window.add(workers.submit(job))
                if len(window) >= 2 * threads:
                    yield from _take_done(window)
            while window:
                yield from _take_done(window)
        except BaseException:  # of whatever kind: a signal raises SystemExit here
            abandon()
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def side_by_side(lanes: int, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
    """Both results; at once where requests wait for a network. Raises what either raised."""
    if lanes == 1:
        return first(), second()
    with ThreadPoolExecutor(1, "beside") as beside:
        other = beside.submit(second)
        return first(), other.result()


def _take_done(window: set[Future[T]]) -> Generator[T, None, None]:
    """Results of those that are done, once there are any; errors after what went well."""
    done, _ = wait(window, return_when=FIRST_COMPLETED)
    window -= done
    for job in sorted(done, key=lambda job: job.exception() is not None):
        yield job.result()
