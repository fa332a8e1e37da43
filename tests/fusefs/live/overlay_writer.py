"""Writes a disk of a session without end, from two threads, and tells what it has synced.

To be killed. Line by line: `<thread> <number>`, all that this thread wrote up to this number is
durable. Block b of a thread's half has the number of the last write to it, all over.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from backpoint_fusefs.live.overlay.block_set import BLOCK
from backpoint_fusefs.live.overlay.overlay_disk import OverlayDisk
from fusefs.live.overlay_bases import BytesBase, numbered

BLOCKS = 512
"""Of each thread's half."""


def block_of(thread: int, number: int) -> int:
    return thread * BLOCKS + number * 101 % BLOCKS


def text_of(number: int) -> bytes:
    return (f"{number:015d} ".encode() * (BLOCK // 16))[:BLOCK]


def _work(disk: OverlayDisk, thread: int, number: int) -> None:
    while True:
        # From one block to more than a log takes in a record.
        for _ in range(1 << number % 7):
            number += 1
            disk.write(block_of(thread, number) * BLOCK, text_of(number))
        disk.sync()
        sys.stdout.write(f"{thread} {number}\n")
        sys.stdout.flush()


def main(folder: Path, numbers: list[int]) -> None:
    disk = OverlayDisk(folder, BytesBase(numbered(2 * BLOCKS * BLOCK)))
    threads = [
        threading.Thread(target=_work, args=(disk, thread, number))
        for thread, number in enumerate(numbers)
    ]
    for started in threads:
        started.start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(number) for number in sys.argv[2:]])
