"""Which packs a scrub reads, and in which order. Pure: knows no store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.index_segment import PackRef


def plan_scrub(
    packs: Sequence[PackRef],
    last_good: NDArray[np.float64],
    now: float,
    every_s: float,
    oldest_first: bool,
) -> list[PackRef]:
    """What to read, in order, each pack once.

    last_good: (n,) when each pack was last read in full, seconds since 1970, -inf for never.
    Those that are due (never read, or longer ago than `every_s`) in the order given; with
    `oldest_first` all of them, due or not, by age, those never read first.
    """
    if oldest_first:
        return [packs[at] for at in np.argsort(last_good, kind="stable").tolist()]
    return [packs[at] for at in np.flatnonzero(now - last_good > every_s).tolist()]
