"""A session's disk that dies before each single system call of what it does, and again later.

What `test_overlay_model` finds by chance, here for a few histories in all places, by a kill and by
a power cut; then it is synced, loses power, and grows, so that what was half done shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count

import pytest

from backpoint_fusefs.live.overlay.block_set import BLOCK
from backpoint_fusefs.live.overlay.overlay_disk import OverlayDisk
from fusefs.live.overlay_power import PowerCut
from fusefs.live.test_overlay_model import DiskMachine

_SIZE = 20 * BLOCK


def _overwrites_what_was_flushed(disk: DiskMachine) -> None:
    disk.write(0, 6 * BLOCK)
    disk.sync()
    disk.write(2 * BLOCK, 6 * BLOCK)


def _zeros_what_was_flushed(disk: DiskMachine) -> None:
    disk.write(0, 6 * BLOCK)
    disk.sync()
    disk.zero(2 * BLOCK, 2 * BLOCK)
    disk.sync()


def _is_shortened_and_written_behind_the_end(disk: DiskMachine) -> None:
    disk.write(0, 6 * BLOCK)
    disk.sync()
    disk.resize(2 * BLOCK + 1000)
    disk.write(2 * BLOCK, 5 * BLOCK)
    disk.sync()
    disk.resize(2 * BLOCK + 2000)
    disk.write(2 * BLOCK + 1000, 5 * BLOCK)


def _grows_behind_a_flushed_end(disk: DiskMachine) -> None:
    disk.resize(5 * BLOCK + 1000)
    disk.write(0, 5 * BLOCK + 1000)
    disk.sync()
    disk.write(5 * BLOCK + 500, 3000)


def _fills_its_log_twice(disk: DiskMachine) -> None:
    for number in range(20):
        disk.write(number * BLOCK, BLOCK)
        disk.sync()


def _is_cut_and_committed(disk: DiskMachine) -> None:
    disk.write(100, 3 * BLOCK)
    disk.cut()
    disk.write(2 * BLOCK, BLOCK)
    disk.sync()
    disk.cut()
    disk.write(10 * BLOCK + 1, 20)
    disk.commit(1)
    disk.commit(0)


@pytest.mark.parametrize(
    "history",
    [
        _overwrites_what_was_flushed,
        _zeros_what_was_flushed,
        _is_shortened_and_written_behind_the_end,
        _grows_behind_a_flushed_end,
        _fills_its_log_twice,
        _is_cut_and_committed,
    ],
)
def test_a_disk_that_dies_anywhere(history: Callable[[DiskMachine], None]) -> None:
    """Each block is what was synced last, or what was written later, and stays so."""
    ended = False
    for calls in count():
        for seed in range(6):
            ended = _dies_after(history, calls, random.Random(seed), power=seed % 2 > 0)
        if ended:
            break


def _dies_after(
    history: Callable[[DiskMachine], None], calls: int, chance: random.Random, *, power: bool
) -> bool:
    """Whether it came to its end before."""
    disk = DiskMachine()
    disk.begin(_SIZE)
    disk.folder.cut_after(calls, chance)
    try:
        history(disk)
        ended = True
    except PowerCut:
        ended = False
    _goes_on(disk, chance, power=power)
    disk.sync()
    _goes_on(disk, chance, power=True)
    disk.resize(2 * _SIZE)
    disk.reads_as_it_should()
    disk.teardown()
    return ended


def _goes_on(disk: DiskMachine, chance: random.Random, *, power: bool) -> None:
    disk.folder.restart(power=power, chance=chance)
    disk.folder.go_on()
    disk.disk = OverlayDisk(disk.folder.path, disk.base, disk.floor)
    disk.model.found(bytes(disk.disk.read(0, 2 * _SIZE)))
    disk.reads_as_it_should()
