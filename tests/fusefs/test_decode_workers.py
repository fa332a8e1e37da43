"""Workers hand back what jobs give or raise, in the loop, and end when told."""

from __future__ import annotations

import threading
from typing import Any

import outcome
import pytest
import trio
import trio.testing

from backpoint_fusefs.decode_workers import DecodeWorkers


def test_results_and_exceptions_come_home() -> None:
    def fail() -> None:
        raise OSError("no")

    async def main() -> None:
        workers = DecodeWorkers(2)
        try:
            results: list[int] = []

            async def one(number: int) -> None:
                results.append(await workers.run(lambda: number * 2))

            async with trio.open_nursery() as nursery:
                for number in range(500):
                    nursery.start_soon(one, number)
            assert sorted(results) == list(range(0, 1000, 2))
            with pytest.raises(OSError, match="no"):
                await workers.run(fail)
        finally:
            workers.close()

    trio.run(main)


def test_what_a_reader_waits_for_goes_before_what_is_only_prefetched() -> None:
    async def main() -> None:
        workers, gate, order = DecodeWorkers(1), threading.Event(), list[str]()

        def ignore(_: outcome.Outcome[Any]) -> None:
            pass

        workers.start(gate.wait, deliver=ignore)
        workers.start(order.append, "prefetch", deliver=ignore)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run, order.append, "read")
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        workers.close()
        assert order[0] == "read"

    trio.run(main)


def test_a_cancelled_reader_ends_with_its_job_and_closing_drops_the_rest() -> None:
    async def main() -> None:
        workers, gate = DecodeWorkers(1), threading.Event()
        delivered: list[outcome.Outcome[Any]] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run, gate.wait)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(10):
                workers.start(int, deliver=delivered.append)
            nursery.cancel_scope.cancel()
            gate.set()
        workers.close()
        assert len(delivered) <= 10
        assert not [t for t in threading.enumerate() if t.name.startswith("decode-")]

    trio.run(main)
