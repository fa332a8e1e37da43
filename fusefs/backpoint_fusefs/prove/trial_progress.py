"""How far the trial of one point has come: which level it is at, and while data is read, how much.

Decides when the bar is there: its thread is gone before a boot begins, which forks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from backpoint_repo.progress import progress
from backpoint_repo.proof import Level
from backpoint_repo.terminal import say


class TrialProgress:
    """A context manager."""

    def __init__(self, name: str, size: int, *, as_json: bool) -> None:
        self._name = name
        self._size = size
        self._as_json = as_json
        self._bar = ExitStack()
        self._advance: Callable[[int], None] = lambda _: None

    def __enter__(self) -> TrialProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def entering(self, level: Level) -> None:
        """A level begins."""
        self._bar.close()
        self._advance = lambda _: None
        if not self._as_json:
            say(f"{self._name}: {level.value}")
        if level is Level.DATA:
            shown = progress(f"reading {self._name}", self._size, as_json=self._as_json)
            self._advance = self._bar.enter_context(shown)

    def advance(self, size: int) -> None:
        """So many bytes of disk more are read."""
        self._advance(size)
