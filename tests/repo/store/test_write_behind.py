"""Jobs done behind their readers: each once, in order, within bounds, and before the end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial

from backpoint_repo.store.write_behind import WriteBehind


def test_jobs_are_done_once_and_in_order() -> None:
    behind, done = WriteBehind(10), list[int]()
    for number in range(500):
        assert behind.add(number % 7, partial(done.append, number))
        if number % 50 == 0:
            behind.settle()
            assert done == list(range(number + 1))
    behind.settle()
    assert done == list(range(500))


def test_what_waits_is_bounded() -> None:
    """One that alone is larger has its turn; who finds no room for long is sent away."""
    behind, done, go = WriteBehind(10, patience_s=0.01), list[int](), threading.Event()
    assert behind.add(99, lambda: done.append(go.wait()))
    assert not behind.add(1, lambda: done.append(2))
    go.set()
    behind.settle()
    assert behind.add(1, lambda: done.append(3))
    behind.settle()
    assert done == [True, 3]


def test_a_process_ends_when_all_is_done() -> None:
    program = """
import time
from functools import partial
from backpoint_repo.store.write_behind import WriteBehind
behind = WriteBehind(100)
for number in range(5):
    behind.add(1, partial(lambda n: (time.sleep(0.01), print(n)), number))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"0", b"1", b"2", b"3", b"4"]


def test_a_process_is_forked_when_all_is_done() -> None:
    """Nothing is done twice, no lock is held by a thread that is not there, and both go on."""
    behind, (reading, writing) = WriteBehind(1000), os.pipe()
    for _ in range(20):
        for word in (b"a", b"b", b"c"):
            behind.add(1, partial(_say, writing, word))
        child = os.fork()
        if child == 0:
            behind.add(1, partial(_say, writing, b"child"))
            behind.settle()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(reading, 99) == b"abcchild"
    os.close(reading)
    os.close(writing)


def _say(pipe: int, word: bytes) -> None:
    os.write(pipe, word)
