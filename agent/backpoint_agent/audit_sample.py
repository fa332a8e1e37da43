"""Which parts of a disk an incremental reads although they are said not to have changed.

A disk is cut into units of 1 MiB, put in an order that nobody can foresee, and each incremental
takes the next share of that order, going round for ever. So any R incrementals in a row look at the
share P of the disk, and none at a unit twice before all were looked at: a lost 64 KiB is found with
probability P within R runs, for P * N / R bytes read in each of N. Pure.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

UNIT: Final = 1 << 20


def sample_size(size: int, probability: float, runs: int) -> int:
    """Units of a disk of `size` bytes that each incremental looks at."""
    units = -(-size // UNIT)
    return math.ceil(units * probability / runs)


def plan_sample(
    size: int, probability: float, runs: int, generation: int, secret: bytes
) -> list[tuple[int, int]]:
    """(offset, length) in bytes, in disk order, for the `generation`-th point of a VM.

    secret: keeps the order from being foreseen; the same for all runs of a disk.
    """
    units = -(-size // UNIT)
    count = min(units, sample_size(size, probability, runs))
    if count == 0:
        return []
    step, start = _order(units, secret)
    first = generation * count
    chosen = sorted((start + step * at) % units for at in range(first, first + count))
    return [(unit * UNIT, min(UNIT, size - unit * UNIT)) for unit in chosen]


def _order(units: int, secret: bytes) -> tuple[int, int]:
    """A step coprime to `units`, and a start: at -> (start + step * at) mod units hits each once.

    Steps of an arithmetic order spread a run's units over the whole disk, better than chance does:
    what is lost in one stretch (behind 128 GiB, say) is met early.
    """
    digest = hashlib.blake2b(secret, digest_size=32).digest()
    start = int.from_bytes(digest[:16]) % units
    step = 1 + int.from_bytes(digest[16:]) % units
    while math.gcd(step, units) != 1:
        step += 1
    return step, start
