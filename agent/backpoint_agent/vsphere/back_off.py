"""How long to wait before a question that got no answer is asked again.

Pure. Decides the waits; refuses to know who asks whom, or to sleep.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 15.0
TRIES_MAX: Final = 8


def plan_waits(total_s: float, chance: random.Random) -> Iterator[float]:
    """Doubling waits, in seconds, together no more than `total_s` and fewer than TRIES_MAX.

    Each is between half of its size and the whole, so that many askers do not come back at once.
    """
    wait, spent = min(FIRST_WAIT_S, total_s / 4), 0.0
    for _ in range(TRIES_MAX - 1):
        jittered = wait * chance.uniform(0.5, 1)
        spent += jittered
        if spent > total_s:
            return
        yield jittered
        wait = min(wait * 2, LONGEST_WAIT_S)
