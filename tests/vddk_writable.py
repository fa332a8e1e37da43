#!/usr/bin/env python3
"""VDDK's stand-in for restores, the first `nbdkit` on the PATH: disks that no snapshot froze, and
what is written to them is counted.

Decides only what differs from `vddk_stand_in.py`, which checks and serves the rest: asked for VDDK
it becomes that one, which finds this one again as its nbdkit; then it becomes the real one.
VDDK_STAND_IN_WRITTEN: a folder that gets nbdkit's figures of each process that may write.
VDDK_STAND_IN_FAIL_BEHIND: writes from this offset on fail.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import NoReturn

STAND_IN = Path(__file__).resolve().with_name("vddk_stand_in.py")
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20}


def main() -> NoReturn:
    words = sys.argv[1:]
    if "vddk" in words:
        if any(word.startswith("snapshot=") for word in words):
            sys.exit("nbdkit: error: a restore writes no snapshot")
        os.execv(STAND_IN, [str(STAND_IN), *words, "snapshot=snapshot-0"])
    if "--readonly" not in words:
        figures = Path(os.environ["VDDK_STAND_IN_WRITTEN"]) / str(os.getpid())
        words = ["--filter=stats", *words, f"statsfile={figures}"]
        if offset := os.environ.get("VDDK_STAND_IN_FAIL_BEHIND"):
            words = ["--filter=protect", *words, f"protect={offset}-"]
    real = real_nbdkit()
    os.execv(real, [real, *words])


def real_nbdkit() -> str:
    """The next one on the PATH."""
    own = os.path.realpath(__file__)
    for folder in os.environ["PATH"].split(os.pathsep):
        found = shutil.which("nbdkit", path=folder)
        if found and os.path.realpath(found) != own:
            return found
    sys.exit("nbdkit: error: no nbdkit behind the stand-in")


def bytes_written(folder: Path) -> int:
    """By all processes so far; each counts when it has ended."""
    total = 0.0
    for file in folder.iterdir():
        found = re.search(r"^write: \d+ ops, [\d.]+ s, ([\d.]+) (\w+)", file.read_text(), re.M)
        if found:
            total += float(found[1]) * UNITS[found[2]]
    return round(total)


if __name__ == "__main__":
    main()
