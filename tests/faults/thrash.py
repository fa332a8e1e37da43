"""Real commands on a real repository, several at once, killed and stopped at any moment.

    PYTHONPATH=tests python -m faults.thrash --seed 7 --for 600

In rounds: everybody works for a while, then nobody, and everything that was promised is looked for.
In the end all that nobody needs must go. A seed draws the same work again; at which moment of it a
process is killed depends on the machine. Prints the seed, keeps the folder and shows the last
commands where a promise is broken.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from command_line import make_repository
from faults.thrash_audit import audit, audit_end
from faults.thrash_disks import Fleet
from faults.thrash_mount import MountWorker
from faults.thrash_points import Broken, Promises
from faults.thrash_processes import Processes
from faults.thrash_work import Ground, work_on
from leftovers import clear, find_leftovers
from small_repository import PASSPHRASE

_WORKERS: Final = 4
_ROUND_S: Final = 30.0
_LAST_LINES: Final = 60


def thrash(folder: Path, seed: int, seconds: float) -> dict[str, int]:
    """So long in rounds, and what comes after that; how often each command ended how.

    Raises Broken, with all that was found in a round. Leaves nothing mounted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    make_repository(folder, folder / "repo")
    (folder / "restored").mkdir()
    processes = Processes(folder, PASSPHRASE.text)
    ground = Ground(folder, Fleet(folder / "states", str(seed)), Promises(), processes)
    try:
        _thrash(ground, seed, seconds)
    finally:
        clear(find_leftovers(within=folder))
        processes.close()
    return processes.counts


def _thrash(ground: Ground, seed: int, seconds: float) -> None:
    mounts, end, number = MountWorker(ground), time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        _round(ground, mounts, f"{seed} {number}", min(left, _ROUND_S, seconds / 2))
        ground.processes.tell(f"round {number}: {audit(ground)} points are right")
        number += 1
    mounts.discard_all()
    audit_end(ground)


def _round(ground: Ground, mounts: MountWorker, seed: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    broken: list[Exception] = []

    def work(rng: random.Random) -> None:
        while time.monotonic() < end and not broken:
            work_on(ground, rng)

    def mount(rng: random.Random) -> None:
        mounts.work(rng, lambda: time.monotonic() < end and not broken, broken.append)

    def guarded(part: Callable[[random.Random], None], name: str) -> None:
        try:
            part(random.Random(f"{seed} {name}"))
        except Exception as error:
            # Whatever it is: the others must end, and the seed be told.
            broken.append(error)

    threads = [
        threading.Thread(target=guarded, args=(part, f"{part.__name__} {number}"))
        for number, part in enumerate([mount, *[work] * _WORKERS])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise Broken("\n".join(map(repr, broken))) from broken[0]


def main() -> int:
    """0: all promises were kept. 1: not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--for", dest="seconds", type=float, default=60)
    parser.add_argument("--keep", action="store_true", help="keep the folder in any case")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=f"thrash-{args.seed}-"))
    try:
        counts = thrash(folder, args.seed, args.seconds)
    except Exception:
        lines = (folder / "log").read_text().splitlines()[-_LAST_LINES:]
        print(*lines, f"seed {args.seed}, in {folder}", sep="\n", file=sys.stderr)
        raise
    print(*(f"{count:5} {how}" for how, count in counts.items()), sep="\n")
    print(f"{Counter(counts).total()} commands, all promises kept")
    if not args.keep:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
