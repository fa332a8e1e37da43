"""A session's disk whose process is killed: what it said to be synced is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backpoint_fusefs.live.overlay.block_set import BLOCK
from backpoint_fusefs.live.overlay.overlay_disk import OverlayDisk
from fusefs.live import overlay_writer
from fusefs.live.overlay_bases import BytesBase, numbered
from fusefs.live.overlay_writer import BLOCKS, block_of, text_of


def _write_until_killed(folder: Path, numbers: list[int], lines: int) -> list[int]:
    """Of each thread the number it told last, before it was killed in the middle of more."""
    command = [sys.executable, overlay_writer.__file__, str(folder), *map(str, numbers)]
    told = list(numbers)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    ) as child:
        assert child.stdout is not None
        for _ in range(lines):
            thread, number = child.stdout.readline().split()
            told[int(thread)] = int(number)
        child.kill()
        for line in child.stdout:
            if line.endswith("\n"):
                told[int(line.split()[0])] = int(line.split()[1])
    return told


def test_what_was_synced_survives_kills(tmp_path: Path) -> None:
    """Four times in a row, over one disk: each block has the content that was synced last, or one
    written later, and never a mix."""
    told, synced = [0, 0], dict[int, int]()
    base = BytesBase(numbered(2 * BLOCKS * BLOCK))
    for round_ in range(4):
        begun = told
        told = _write_until_killed(tmp_path / "0", begun, 40 + 70 * round_)
        for thread, (first, last) in enumerate(zip(begun, told, strict=True)):
            assert last > first
            synced |= {block_of(thread, number): number for number in range(first + 1, last + 1)}
        disk = OverlayDisk(tmp_path / "0", base)
        for block in range(2 * BLOCKS):
            content = bytes(disk.read(block * BLOCK, BLOCK))
            assert _number_in(content, block, base) >= synced.get(block, 0)
        disk.close()
        # What the next process writes is told from what this one had not synced.
        told = [last + 2 * BLOCKS for last in told]


def _number_in(content: bytes, block: int, base: BytesBase) -> int:
    """Of the write that the block has whole; 0 for what the point has."""
    if content == base.content[block * BLOCK : (block + 1) * BLOCK]:
        return 0
    number = int(content[:16])
    assert content == text_of(number)
    assert block_of(block // BLOCKS, number) == block
    return number
