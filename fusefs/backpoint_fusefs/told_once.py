"""Failures that go to the log once, however often the kernel asks again."""

from __future__ import annotations

import logging
from typing import Final

_KEPT: Final = 1024
_LOG = logging.getLogger("backpoint.mount")


class ToldOnce:
    """Remembers the last messages. For the event loop only."""

    def __init__(self) -> None:
        self._told: dict[str, None] = {}

    def __call__(self, message: str) -> None:
        if message not in self._told:
            self._told[message] = None
            if len(self._told) > _KEPT:
                del self._told[next(iter(self._told))]
            _LOG.error("%s", message)
